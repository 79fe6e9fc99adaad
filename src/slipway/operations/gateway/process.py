"""Runs Envoy: checks the configuration, starts it, starts it again when it ends, and stops it."""

import http.client
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen, TimeoutExpired

from slipway.contract import Lane, ServingError, SpecError
from slipway.contract.lane import FILE_NAME as LANE
from slipway.operations.gateway.binary import find_envoy, reason, validate
from slipway.operations.gateway.configuration import BOOTSTRAP, check_budgets, static_bootstrap, write_configuration
from slipway.operations.gateway.listener import public_models
from slipway.operations.gateway.routes import LISTENERS, replace
from slipway.operations.gateway.settings import GatewaySettings, ServerPorts, read_keys, read_settings
from slipway.serving import process as processes
from slipway.serving.command import HOST, Ports
from slipway.serving.limits import server_limits
from slipway.serving.supervisor import pause_s
from slipway.system.yaml_json import dump_yaml

Event = Callable[..., None]
"""`event(name, message, **fields)`."""
READY_S = 15.0
"""Seconds in which a started Envoy must listen. It takes 0.2 s, and 0.3 s with 2,000 classifiers."""
DRAIN_S = 10
"""Seconds for which connections of a replaced listener, and so keys that were withdrawn, are served."""
LONG_S = 60.0
"""An Envoy that ran longer than this counts as healthy, and is started again at once."""
ENVOY_LOG = "envoy.log"


@dataclass
class Gateway:
    """An Envoy for one file of settings. `check` it, then use `kept` for as long as it is to run."""

    source: Path
    settings: GatewaySettings
    models: tuple[str, ...]
    """Names of the models that clients may ask."""
    event: Event
    process: Popen[bytes] | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _listens: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def open(cls, source: Path, *, event: Event, served: tuple[Path, Ports] | None = None) -> "Gateway":
        """A gateway of the settings in `source`.

        Args:
            served: repository and ports of the server that `slipway serve` runs, if it does.

        Raises:
            SpecError: the settings are wrong, or disagree with `served`.
        """
        settings = read_settings(source)
        if served is not None:
            settings = _in_front_of(settings, *served, source=source)
        if settings.repository is None:
            raise SpecError(f"{source}: repository: give the folder that the server serves; its classifiers are public")
        lane = Path(settings.repository) / LANE
        if not lane.is_file():
            raise SpecError(f"{source}: repository: {settings.repository} is not a repository: it has no {LANE}")
        models = public_models(Lane.read(lane))
        check_budgets(settings, models)
        return cls(source, settings, models, event)

    @property
    def is_ready(self) -> bool:
        return self._listens.is_set()

    @property
    def address(self) -> str:
        return self.settings.listen

    def check(self) -> None:
        """Raises SlipwayError if the gateway could not start: settings, keys, configuration, ports."""
        keys = read_keys(self.settings, source=self.source)
        with tempfile.TemporaryDirectory() as folder:  # only its owner may read it, as the keys are in it
            bootstrap = Path(folder) / BOOTSTRAP
            replace(bootstrap, dump_yaml(static_bootstrap(self.settings, keys=keys, models=self.models)))
            validate(find_envoy(), bootstrap)

    def check_ports(self) -> None:
        """Raises ServingError if another process listens on a port of the gateway."""
        for name, address in (
            ("listen", self.settings.host_port),
            ("metrics_port", (HOST, self.settings.metrics_port)),
        ):
            try:
                socket.create_server(address).close()
            except OSError as error:
                raise ServingError(
                    f"{self.source}: {name}: {address[0]}:{address[1]} cannot be used: {error.strerror}; end the "
                    "process that listens there, or choose another"
                ) from None

    def update(self, models: Iterable[str]) -> None:
        """Serve other models, and read keys and rates again; requests under way are answered.

        Raises:
            SlipwayError: a key is wrong; the gateway goes on as before.
        """
        self.models = tuple(models)
        self._write()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Run Envoy for the duration of the block, and start it again when it ends.

        Raises:
            ServingError: the first start fails.
        """
        self.check_ports()
        self._write()
        first: list[ServingError] = []
        tried = threading.Event()
        # The thread lives as long as Envoy may: the kernel ends a child with the thread that started it.
        thread = threading.Thread(target=self._keep, args=(first, tried), daemon=True)
        thread.start()
        try:
            tried.wait()
            if first:
                raise first[0]
            yield
        finally:
            self._stopping.set()
            thread.join()
            shutil.rmtree(self.settings.folder / LISTENERS, ignore_errors=True)  # the keys are in it

    def _write(self) -> None:
        write_configuration(self.settings, keys=read_keys(self.settings, source=self.source), models=self.models)

    def _keep(self, first: list[ServingError], tried: threading.Event) -> None:
        short = failed = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                why = self._run_once(tried)
                failed = 0
            except (ServingError, OSError) as error:
                why, failed = str(error), failed + 1
                if not tried.is_set():
                    first.append(ServingError(why))
                    tried.set()
                    return
            if self._stopping.is_set():
                return
            ran_s = time.monotonic() - started
            short = 0 if ran_s > LONG_S else short + 1
            self.event("gateway_lost", f"{why}; it is started again, and the server goes on")
            self._stopping.wait(pause_s(short=short, failed=failed, start_s=0.5))

    def _run_once(self, tried: threading.Event) -> str:
        """Run Envoy from one start to its end; returns the reason of the end.

        Raises:
            ServingError: it did not listen in time.
        """
        folder = self.settings.folder
        log = folder / ENVOY_LOG
        process = processes.start(
            _command(find_envoy(), folder / BOOTSTRAP, workers=self.settings.workers),
            environment={},
            log=log,
            limits=server_limits(instances=0),
            secret=_NO_SECRET,
        )
        self.process = process
        started = time.monotonic()
        try:
            while not self._listening():
                if process.poll() is not None or time.monotonic() > started + READY_S or self._stopping.is_set():
                    said = reason(log.read_text(encoding="utf-8", errors="replace"))
                    raise ServingError(f"the gateway does not listen on {self.address}: {said}")
                self._stopping.wait(0.02)
            self._listens.set()
            tried.set()
            self.event("gateway_ready", f"the gateway listens on {self.address}", address=self.address, pid=process.pid)
            while process.poll() is None:
                if self._stopping.wait(0.1):
                    return "stopped"
            return f"the gateway ended by itself with exit code {process.returncode}"
        finally:
            self._listens.clear()
            _stop(process)

    def _listening(self) -> bool:
        """Whether Envoy has its listener, clusters and routes. A connection to its port would count as a client's."""
        connection = http.client.HTTPConnection(HOST, self.settings.metrics_port, timeout=1)
        try:
            connection.request("GET", "/stats?filter=^listener_manager.(total_listeners_active|workers_started)$")
            said = connection.getresponse().read().decode()
        except OSError:
            return False
        finally:
            connection.close()
        return "total_listeners_active: 1" in said and "workers_started: 1" in said


_NO_SECRET = "\0"  # no argument of Envoy contains a secret
STOP_S = 3.0


def _stop(process: Popen[bytes]) -> None:
    process.terminate()
    with suppress(TimeoutExpired):
        process.wait(STOP_S)
    processes.kill(process)


def _command(binary: Path, bootstrap: Path, *, workers: int) -> list[str]:
    flags: Mapping[str, str] = {
        "config-path": str(bootstrap),
        "concurrency": str(workers),
        "drain-time-s": str(DRAIN_S),
        "drain-strategy": "immediate",
        "log-level": "warning",
        "component-log-level": "misc:error",  # it names each field that is marked as unfinished
    }
    return [
        str(binary),
        "--disable-hot-restart",
        *(part for flag, value in flags.items() for part in (f"--{flag}", value)),
    ]


def _in_front_of(settings: GatewaySettings, repository: Path, ports: Ports, *, source: Path) -> GatewaySettings:
    """The settings for the server of `slipway serve`; raises SpecError if they name another."""
    served = ServerPorts(grpc=ports.grpc, http=ports.http, status=ports.status)
    if "stable" in settings.model_fields_set and settings.stable != served:
        raise SpecError(
            f"{source}: stable: {vars(settings.stable)} is not the server that slipway serve starts, {vars(served)}; "
            "leave stable out"
        )
    if settings.repository is not None and Path(settings.repository).resolve() != repository.resolve():
        raise SpecError(
            f"{source}: repository: {settings.repository} is not {repository}, which slipway serve serves; leave it out"
        )
    changed = settings.model_copy(update={"stable": served, "repository": str(repository.resolve())})
    changed = GatewaySettings.parse(changed.model_dump(), source=str(source))  # do its ports differ from the server's?
    if ports.metrics in (changed.metrics_port, changed.host_port[1]):
        raise SpecError(f"{source}: port {ports.metrics} is tritonserver's metrics port too; choose another")
    return changed
