"""Runs the gateway without some of its parts: an Envoy for each step, from a changed configuration, asked in its
turn."""

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.operations.gateway.binary import start_envoy
from slipway.operations.gateway.configuration import BOOTSTRAP, static_bootstrap
from slipway.operations.gateway.plan import GatewayPlan
from slipway.operations.gateway.process import READY_S
from slipway.operations.gateway.settings import GatewaySettings, ServerPorts, read_keys
from slipway.operations.journal.folders import private_folder
from slipway.serving import Ports
from slipway.serving import process as processes
from slipway.serving.ports import HOST
from slipway.system.yaml_json import dump_yaml

NICE = 5
"""Niceness of the Envoys, which is that of the launcher that starts the whole gateway."""
Settings = dict[str, Any]
"""A part of Envoy's configuration, as its JSON."""
Change = Callable[[Settings], None]
"""A function that changes a listener."""


def _without(*filters: str) -> Change:
    def change(listener: Settings) -> None:
        manager = _manager(listener)
        manager["http_filters"] = [
            one for one in manager["http_filters"] if one["name"].rpartition(".")[2] not in filters
        ]

    return change


def _without_records(listener: Settings) -> None:
    _without("api_key_auth", "buffer", "local_ratelimit")(listener)
    del _manager(listener)["access_log"]


def _without_tls(listener: Settings) -> None:
    del listener["filter_chains"][0]["transport_socket"]


def _manager(listener: Settings) -> Settings:
    found: Settings = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


DISK = "disk"
LADDER: Mapping[str, Change] = {
    "tap": _without("tap", "header_mutation"),
    "guard": _without("lua", "rbac"),
    "checks": _without_records,
    "tls": _without_tls,
}
"""Each step lacks its part and those before it, and the last one is Envoy alone. `guard` includes the filter that
refuses what the guard has not checked. `checks` are those of key, size and rate, and the metrics of each request."""


def lacking(part: str) -> tuple[str, ...]:
    """Return the parts that the gateway of a step lacks."""
    if part == DISK:
        return ("a spool in memory",)
    names = list(LADDER)
    return tuple(names[: names.index(part) + 1]) if part in LADDER else ()


@dataclass(frozen=True)
class Stopped:
    """An Envoy that runs only in its turn, so that its timers take nothing from the others."""

    pid: int
    port: int
    has_tls: bool

    @contextmanager
    def running(self) -> Iterator[None]:
        os.kill(self.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGSTOP)


@contextmanager
def stopped(part: str, source: Path, server: Ports, repository: Path) -> Iterator[Stopped]:
    """Start the gateway of `source` for one step, in front of the same server, on a port of its own."""
    folder = source.parent / part
    private_folder(folder, what=part)
    plan = _plan(part, source, server, repository)
    settings = plan.settings
    private_folder(settings.spool, what="spool")
    bootstrap = static_bootstrap(settings, keys=read_keys(settings, source=plan.source), models=plan.models)
    made = json.loads(json.dumps(bootstrap))  # a copy that may be changed
    for name in lacking(part):
        if name in LADDER:
            LADDER[name](made["static_resources"]["listeners"][0])
    (folder / BOOTSTRAP).write_text(dump_yaml(made), encoding="utf-8")
    process = start_envoy(folder, workers=settings.workers)
    try:
        os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        port = settings.host_port[1]
        _wait(port)
        os.kill(process.pid, signal.SIGSTOP)
        yield Stopped(process.pid, port, has_tls="tls" not in lacking(part))
    finally:
        processes.kill(process)
        shutil.rmtree(folder)


@contextmanager
def all_stopped(parts: tuple[str, ...], source: Path, server: Ports, repository: Path) -> Iterator[dict[str, Stopped]]:
    with ExitStack() as stack:
        yield {part: stack.enter_context(stopped(part, source, server, repository)) for part in parts}


def _plan(part: str, source: Path, server: Ports, repository: Path) -> GatewayPlan:
    """Return the plan of `source` with ports and a spool of its own, written beside it."""
    own = Ports.free()
    given = GatewaySettings.read(source).model_dump(exclude_none=True)
    observed = given["observe"]
    spool = source.parent / part / "spool" if part == DISK else Path(observed["spool"]).with_name(part)
    given |= {
        "listen": f"{HOST}:{own.grpc}",
        "metrics_port": own.metrics,
        "repository": str(repository),
        "stable": ServerPorts(grpc=server.grpc, http=server.http, status=server.status).model_dump(exclude_none=True),
        "observe": {**observed, "spool": str(spool)},
    }
    changed = source.with_name(f"{part}.yaml")
    changed.write_text(dump_yaml(given), encoding="utf-8")
    return GatewayPlan.open(changed)


def _wait(port: int) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
