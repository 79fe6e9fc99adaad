"""The share of the candidate: a file of routes that Envoy watches, replaced by rename, in force within a moment."""

import fcntl
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from pydantic import Field, field_validator

from slipway.contract import SpecError
from slipway.contract.typed_file import Contract
from slipway.operations.gateway.settings import GatewaySettings
from slipway.system.targets import told
from slipway.system.text import command
from slipway.system.yaml_json import dump_yaml

Node: TypeAlias = "str | int | float | bool | Sequence[Node] | Mapping[str, Node]"
"""A part of Envoy's configuration."""
ROUTES, LISTENERS, CLUSTERS = "routes", "listeners", "clusters"
_KINDS = {ROUTES: "route.v3.RouteConfiguration", LISTENERS: "listener.v3.Listener", CLUSTERS: "cluster.v3.Cluster"}
TRAFFIC = "traffic.json"
ARM_HEADER = "slipway-arm"
"""Header of an answer: `stable` or `candidate`, the server that the request was given to. The other may have answered
if the candidate was not ready."""
GRPC, HTTP = "grpc", "http"
STATUS_CLUSTER = "stable_status"


class Traffic(Contract):
    """Division of the requests between stable and candidate."""

    weight_percent: int = Field(default=0, ge=0, le=100)
    """Share of the requests that the candidate answers."""
    mirror_percent: int = Field(default=0, ge=0, le=100)
    """Share of the requests of which the candidate gets a copy. Nobody waits for its answers."""
    sticky_header: str | None = None
    """Header whose value decides, always in the same way, which server answers; at a higher weight, whoever had the
    candidate keeps it. Requests without it are divided at random."""

    @property
    def to_candidate(self) -> bool:
        """Whether the candidate gets requests, or copies of them."""
        return self.weight_percent > 0 or self.mirror_percent > 0

    @field_validator("sticky_header")
    @classmethod
    def _is_a_header(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name):
            raise ValueError("write the name of a header: 1 to 63 characters of a-z, 0-9 and -")
        return name


def write_routes(settings: GatewaySettings, traffic: Traffic) -> None:
    """Put `traffic` in force at the gateway of `settings`, running or not; it stays in force over restarts.

    Raises:
        SpecError: it sends requests to a candidate, and the settings have none.
        StorageError: the folder of the gateway cannot be written.
    """
    with _only_writer(settings.folder):
        _write(settings, traffic)


def write_same_routes(settings: GatewaySettings) -> None:
    """Write the routes of the traffic that is in force, for `settings` that may have changed; raises as `write_routes`.

    A weight that another process sets meanwhile is not lost.
    """
    with _only_writer(settings.folder):
        _write(settings, read_traffic(settings))


def _write(settings: GatewaySettings, traffic: Traffic) -> None:
    check_traffic(settings, traffic)
    replace(settings.folder / TRAFFIC, traffic.to_json(), durable=True)
    write_resources(settings.folder, ROUTES, [route_configuration(settings, traffic)])


def check_traffic(settings: GatewaySettings, traffic: Traffic) -> None:
    """Raises SpecError if `traffic` gives requests to a candidate, and the settings have none."""
    if traffic.to_candidate and settings.candidate is None:
        rollback = command("slipway release rollback", settings.file)
        raise SpecError(
            f"weight {traffic.weight_percent} % and mirror {traffic.mirror_percent} % need a second server; give "
            f"candidate: in {settings.file}, or take its requests away: {rollback}"
        )


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    with told(folder):
        make_folder(folder)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
            os.fsync(descriptor)  # a renamed file survives a power loss with its folder
        finally:
            os.close(descriptor)


def read_traffic(settings: GatewaySettings) -> Traffic:
    """The traffic that was last put in force; all of it to stable if there was none.

    Raises:
        SpecError: the file is damaged.
    """
    path = settings.folder / TRAFFIC
    try:
        return Traffic.read(path) if path.exists() else Traffic()
    except SpecError as error:
        again = command("slipway release rollback", settings.file)
        raise SpecError(f"{error}; {again} writes it again, with all requests to stable") from None


def has_requests(settings: GatewaySettings) -> bool:
    """Whether the candidate gets requests or copies, as far as is known: True if the file is damaged."""
    try:
        return read_traffic(settings).to_candidate
    except SpecError:
        return True


def make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)


def write_resources(folder: Path, name: str, resources: Sequence[Mapping[str, Node]]) -> None:
    """Replace `<folder>/<name>/<name>.yaml`, which Envoy watches."""
    make_folder(folder / name)
    replace(folder / name / f"{name}.yaml", dump_yaml(resource_file(name, resources)))


def resource_file(name: str, resources: Sequence[Mapping[str, Node]]) -> Node:
    """The content of a file of resources of one kind."""
    kind = f"type.googleapis.com/envoy.config.{_KINDS[name]}"
    return {"resources": [{"@type": kind, **resource} for resource in resources]}


def watched(folder: Path, name: str) -> Node:
    """The ConfigSource of a file that `write_resources` writes; a rename in its folder makes Envoy read it."""
    return file_source(folder / name / f"{name}.yaml", folder / name)


def file_source(file: Path, folder: Path) -> Node:
    """The ConfigSource of a file that Envoy reads again when something in `folder` is renamed."""
    source: Node = {"path": str(file), "watched_directory": {"path": str(folder)}}
    return {"path_config_source": source, "resource_api_version": "V3"}


def replace(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a file by rename, so that a reader finds the old or the new text; only its owner may read it.

    With `durable`, the same after a power loss, once the folder is on the disk too.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        new.rename(path)
    finally:
        new.unlink(missing_ok=True)


def route_configuration(settings: GatewaySettings, traffic: Traffic) -> Mapping[str, Node]:
    """Envoy's RouteConfiguration."""
    status: Node = {
        "match": {"path": "/v2/health/ready"},
        "route": {"cluster": STATUS_CLUSTER, "prefix_rewrite": "/ready", "timeout": "2s"},
    }
    grpc: Node = {
        "match": {"prefix": "/inference.GRPCInferenceService/", "grpc": {}},
        "route": _action(settings, traffic, GRPC),
    }
    http: Node = {"match": {"prefix": "/v2"}, "route": _action(settings, traffic, HTTP)}
    host: Node = {"name": "all", "domains": ["*"], "routes": [grpc, status, http]}
    return {
        "name": ROUTES,
        "virtual_hosts": [host],
        "validate_clusters": True,  # a share of an unknown cluster would be answered by 503
    }


def _action(settings: GatewaySettings, traffic: Traffic, protocol: str) -> Node:
    action: dict[str, Node] = {"timeout": f"{settings.timeout_s:g}s"}
    shares = {"stable": 100}
    # First, so that a growing weight keeps the users that it has. Left out at 0: weight 0 must be accepted, always.
    if settings.candidate is not None and traffic.weight_percent:
        shares = {"candidate": traffic.weight_percent, "stable": 100 - traffic.weight_percent}
    clusters: Node = [
        {
            "name": f"{'candidate_or_stable' if arm == 'candidate' else arm}_{protocol}",
            "weight": share,
            "response_headers_to_add": [{"header": {"key": ARM_HEADER, "value": arm}}],
        }
        for arm, share in shares.items()
    ]
    action["weighted_clusters"] = {"clusters": clusters, "use_hash_policy": traffic.sticky_header is not None}
    if traffic.sticky_header is not None:
        action["hash_policy"] = [{"header": {"header_name": traffic.sticky_header}}]
    if settings.candidate is not None:
        action["retry_policy"] = _retry()
    if traffic.mirror_percent:
        fraction: Node = {"default_value": {"numerator": traffic.mirror_percent, "denominator": "HUNDRED"}}
        action["request_mirror_policies"] = [{"cluster": f"candidate_{protocol}", "runtime_fraction": fraction}]
    return action


def _retry() -> Node:
    """Repeat at stable a request that the candidate could not take. A refusal for load is repeated too, once."""
    name = "envoy.retry_priorities.previous_priorities"
    kind = "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
    return {
        "retry_on": "connect-failure,refused-stream,reset",
        "num_retries": 1,
        "retry_priority": {"name": name, "typed_config": {"@type": kind, "update_frequency": 1}},
    }
