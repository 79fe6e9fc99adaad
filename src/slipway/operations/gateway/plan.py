"""Plan of a gateway: its settings, the models behind it, and the keys; checked as a whole, and written."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from slipway.contract import Lane, SpecError
from slipway.contract.lane import FILE_NAME as LANE
from slipway.operations.gateway.binary import find_envoy, validate
from slipway.operations.gateway.certificate import Certificate
from slipway.operations.gateway.configuration import BOOTSTRAP, check_budgets, static_bootstrap, write_configuration
from slipway.operations.gateway.listener import public_models
from slipway.operations.gateway.routes import check_traffic, read_traffic, replace
from slipway.operations.gateway.settings import GatewaySettings, ServerPorts, read_keys, read_settings
from slipway.operations.journal.folders import private_folder
from slipway.serving.ports import Ports
from slipway.system.yaml_json import dump_yaml

FIXED = ("listen", "metrics_port", "workers", "max_connections", "budgets_ms")
"""Settings that a running Envoy does not take up."""


@dataclass(frozen=True)
class ServedRepository:
    """The server that `slipway serve` runs."""

    repository: Path
    ports: Ports


@dataclass(frozen=True)
class GatewayPlan:
    """A gateway for one file of settings."""

    source: Path
    settings: GatewaySettings
    models: tuple[str, ...]
    """Names of the models that clients may ask."""
    served: ServedRepository | None

    @classmethod
    def open(cls, source: Path, *, served: ServedRepository | None = None, lane: Lane | None = None) -> Self:
        """Read the settings.

        Args:
            served: the server of `slipway serve`, if it runs the gateway.
            lane: what is served; by default what the repository holds now.

        Raises:
            SpecError: the settings are wrong, or disagree with `served`.
        """
        settings = read_settings(source)
        if served is not None:
            settings = _in_front_of(settings, served, source=source)
        if settings.repository is None:
            raise SpecError(f"{source}: repository: give the folder that the server serves; its classifiers are public")
        file = Path(settings.repository) / LANE
        if lane is None and not file.is_file():
            raise SpecError(f"{source}: repository: {settings.repository} is not a repository: it has no {LANE}")
        models = public_models(lane or Lane.read(file))
        check_budgets(settings, models)
        return cls(source, settings, models, served)

    def again(self, *, lane: Lane | None = None) -> Self:
        """The plan of the same file as it is now, for a running Envoy.

        Raises:
            SlipwayError: it is wrong, or has changes that need a restart.
        """
        new = type(self).open(self.source, served=self.served, lane=lane)
        if changed := [name for name in FIXED if getattr(new.settings, name) != getattr(self.settings, name)]:
            raise SpecError(f"{self.source}: {', '.join(changed)}: changed; start the gateway again for that")
        new.check()
        return new

    def check(self) -> None:
        """Raises SlipwayError if the keys, the certificate, or the configuration made of all of it are wrong.

        The same where the traffic in force needs a candidate, and the settings have none.
        """
        check_traffic(self.settings, read_traffic(self.settings))
        keys = read_keys(self.settings, source=self.source)
        self.certificate()
        if self.settings.observe is not None:
            private_folder(self.settings.spool, what=f"{self.source}: observe.spool")
        with tempfile.TemporaryDirectory() as folder:  # only its owner may read it, as the keys are in it
            bootstrap = Path(folder) / BOOTSTRAP
            replace(bootstrap, dump_yaml(static_bootstrap(self.settings, keys=keys, models=self.models)))
            validate(find_envoy(), bootstrap)

    def certificate(self) -> Certificate | None:
        """The certificate that clients get; raises SpecError if it is damaged, or its key is another one's."""
        tls = self.settings.tls
        return Certificate.read(tls, source=self.source) if tls is not None else None

    def write(self) -> None:
        """Write what Envoy reads; a running one takes it up."""
        write_configuration(self.settings, keys=read_keys(self.settings, source=self.source), models=self.models)


def _in_front_of(settings: GatewaySettings, served: ServedRepository, *, source: Path) -> GatewaySettings:
    """The settings for the server of `slipway serve`; raises SpecError if they name another."""
    metrics = served.ports.metrics if settings.stable.metrics else None  # nobody must give it
    ports = ServerPorts(grpc=served.ports.grpc, http=served.ports.http, status=served.ports.status, metrics=metrics)
    if "stable" in settings.model_fields_set and settings.stable != ports:
        raise SpecError(
            f"{source}: stable: {settings.stable.model_dump(exclude_none=True)} is not the server of slipway serve; "
            f"that has {ports.model_dump(exclude_none=True)}; leave stable out"
        )
    repository = served.repository.resolve()
    if settings.repository is not None and Path(settings.repository).resolve() != repository:
        raise SpecError(
            f"{source}: repository: {settings.repository} is not {repository}, which slipway serve serves; leave it out"
        )
    changed = settings.model_copy(update={"stable": ports, "repository": str(repository)})
    changed = GatewaySettings.parse(changed.model_dump(), source=str(source))  # do its ports differ from the server's?
    if served.ports.metrics in (changed.metrics_port, changed.host_port[1]):
        raise SpecError(f"{source}: port {served.ports.metrics} is tritonserver's metrics port; choose another")
    return changed
