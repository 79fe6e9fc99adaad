"""Runs Envoy: checks the configuration, starts it, starts it again when it ends, and stops it."""

import http.client
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen, TimeoutExpired

from slipway.contract import Lane, ServingError, SlipwayError, SpecError
from slipway.operations.gateway.binary import ENVOY_LOG, reason, start_envoy
from slipway.operations.gateway.certificate import Certificate
from slipway.operations.gateway.changes import changes, contents
from slipway.operations.gateway.plan import GatewayPlan
from slipway.operations.gateway.routes import LISTENERS
from slipway.operations.gateway.settings import ServerPorts
from slipway.operations.journal.folders import in_memory
from slipway.operations.journal.spool import DROPPED, Bound
from slipway.serving import process as processes
from slipway.serving.endpoint import Renewed
from slipway.serving.ports import HOST
from slipway.serving.supervisor import Event, pause_s
from slipway.system.text import command
from slipway.system.timed_http import TimedConnection

READY_S = 15.0
"""Seconds in which a started Envoy must listen. It takes 0.2 s, and 0.3 s with 2,000 classifiers."""
LONG_S = 60.0
"""An Envoy that ran longer than this counts as healthy, and is started again at once."""
LOOK_S, MOST_SILENT = 2.0, 3
"""Seconds between two looks whether Envoy answers, and looks without an answer after which it is killed."""
SPOOL_S, SPOOL_SHARE = 1.0, 0.02
"""Longest time between two looks at the spool, in s, and the share of the time that looking may take: a spool
that nobody empties has thousands of files."""
STOP_S = 3.0


class Gateway:
    """A running Envoy. Use `kept` for as long as it is to run; `reload` may be called from any thread."""

    def __init__(self, plan: GatewayPlan, *, event: Event) -> None:
        self.plan = plan
        self.process: Popen[bytes] | None = None
        self.renewed: Renewed | None = None
        """Result of the last `update`; None before the first one."""
        self._event = event
        self._read: Mapping[str, str] = {}
        self._certificate: Certificate | None = None
        """Settings, keys and certificate that Envoy has now."""
        self._spool_full, self._spool_said, self._spool_next = False, -LONG_S, 0.0
        self._bound: Bound | None = None
        self._stopping, self._listens = threading.Event(), threading.Event()

    @property
    def is_ready(self) -> bool:
        """Whether it listens and answers."""
        return self._listens.is_set()

    @property
    def address(self) -> str:
        return self.plan.settings.listen

    def reload(self, lane: Lane | None = None) -> str:
        """Take up the settings, keys and certificate as they are now, and other models. No request is refused for it.

        Args:
            lane: what is served; by default what the repository holds now.

        Returns:
            What it took up and withdrew of settings, keys and certificate, in words, and a warning if that ends soon.

        Raises:
            SlipwayError: something of it is wrong, or needs a restart; a certificate would come into force that clients
                refuse, or a stable server that does not listen. The gateway keeps its old settings.
        """
        new = self.plan.again(lane=lane)
        certificate = new.certificate()
        # One that ran out meanwhile must not keep a stolen key in force.
        if certificate and certificate != self._certificate and (said := certificate.problem(datetime.now(UTC))):
            raise SpecError(f"{new.source}: tls.certificate: {said}")
        if new.settings.stable != self.plan.settings.stable:
            _check_listens(new.settings.stable, source=new.source)
        changed = self._take_up(new)
        said = f"the gateway {changed}; it forwards {len(new.models)} models"
        self._event("gateway_reloaded", said, models=len(new.models))
        return "; ".join([changed, *self._warned_of_its_end()])

    def _take_up(self, plan: GatewayPlan) -> str:
        """Write what Envoy reads; returns what has changed, in words."""
        read, certificate = contents(plan.settings), plan.certificate()
        plan.write()
        changed = changes(self._read, read)
        self.plan, self._read, self._certificate = plan, read, certificate
        return changed

    def _warned_of_its_end(self) -> list[str]:
        """The warning of the certificate, if there is one; it is an event too."""
        if self._certificate is None or not (said := self._certificate.warning(datetime.now(UTC))):
            return []
        warning = f"{self.plan.source}: tls.certificate: {said}"
        self._event("certificate_ends", warning)
        return [warning]

    def update(self, lane: Lane) -> None:
        """Reload for what is served now. If that is refused, `renewed` and the event `gateway_not_updated` say why."""
        try:
            changed = self.reload(lane)
        except (SlipwayError, OSError) as error:
            self.renewed = Renewed(done=False, message=f"the gateway keeps its old settings: {error}")
            self._event("gateway_not_updated", self.renewed.message)
        else:
            self.renewed = Renewed(done=True, message=f"the gateway {changed}")

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Run Envoy for the duration of the block, and start it again when it ends.

        Raises:
            ServingError: the first start fails.
        """
        self._check_ports()
        self._take_up(self.plan)
        self._warned_of_its_end()
        self._say_where_the_spool_is()
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
            shutil.rmtree(self.plan.settings.folder / LISTENERS, ignore_errors=True)  # the keys are in it

    def _say_where_the_spool_is(self) -> None:
        settings = self.plan.settings
        if settings.observe is not None and not in_memory(settings.spool):
            self._event(
                "spool_on_disk",
                f"the spool {settings.spool} is on a disk, and a sampled request is answered only when its file is "
                "written; give observe.spool a folder on a tmpfs",
            )

    def _check_ports(self) -> None:
        """Raises ServingError if another process listens on a port of the gateway."""
        settings = self.plan.settings
        ports = {"listen": settings.host_port, "metrics_port": (HOST, settings.metrics_port)}
        for name, address in ports.items():
            try:
                socket.create_server(address).close()
            except OSError as error:
                raise ServingError(
                    f"{self.plan.source}: {name}: {address[0]}:{address[1]} cannot be used: {error.strerror}; end the "
                    "process that listens there, or choose another"
                ) from None

    def _keep(self, first: list[ServingError], tried: threading.Event) -> None:
        """The thread of `kept`: `first` gets the error of the first start, and `tried` is set when that is over."""
        try:
            self._restart(first, tried)
        finally:
            self._listens.clear()
            tried.set()

    def _restart(self, first: list[ServingError], tried: threading.Event) -> None:
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
            self._event("gateway_lost", f"{why}; it is started again, and the server goes on")
            self._stopping.wait(pause_s(short=short, failed=failed, start_s=0.5))

    def _run_once(self, tried: threading.Event) -> str:
        """Run Envoy from one start to its end; returns the reason of the end.

        Raises:
            ServingError: it did not listen in time.
        """
        folder = self.plan.settings.folder
        log = folder / ENVOY_LOG
        process = start_envoy(folder, workers=self.plan.settings.workers)
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
            self._event(
                "gateway_ready",
                f"the gateway listens on {self.address}",
                address=self.address,
                pid=process.pid,
            )
            return self._watched(process)
        finally:
            self._listens.clear()
            _stop(process)

    def _watched(self, process: Popen[bytes]) -> str:
        """Wait until Envoy ends, is silent for too long, or is to stop; returns the reason."""
        silent, next_look = 0, time.monotonic() + LOOK_S
        while process.poll() is None:
            if self._stopping.wait(0.1):
                return "stopped"
            self._hold_spool()
            if time.monotonic() > next_look:
                silent = 0 if self._listening() else silent + 1
                next_look = time.monotonic() + LOOK_S
            if silent == MOST_SILENT:
                return f"the gateway did not answer {MOST_SILENT} times"
        return f"the gateway ended by itself with exit code {process.returncode}"

    def _hold_spool(self) -> None:
        """Keep what Envoy taps within its bound: the collector may be dead. Nothing here may end the gateway."""
        settings, started = self.plan.settings, time.monotonic()
        if settings.observe is None or started < self._spool_next:
            return
        bound = self._bound
        if bound is None or bound.folder != settings.spool:
            bound = self._bound = Bound(settings.spool, counted_in=settings.folder / DROPPED)
        was_full, self._spool_full = self._spool_full, False
        try:
            self._spool_full = bound.hold(limit_bytes=settings.observe.spool_bytes) > 0
        except OSError as error:
            self._spool_full = True
            said = f"the spool {settings.spool} cannot be kept in its bound: {error.strerror}"
        else:
            run = command("slipway journal run", settings.file)
            said = f"the spool {settings.spool} is full, and what is tapped is dropped; is {run} alive?"
            if bound.problem:
                said += f" The number of dropped files cannot be written, and is kept in memory: {bound.problem}"
        took_s = time.monotonic() - started
        self._spool_next = started + min(SPOOL_S, took_s / SPOOL_SHARE)
        if self._spool_full and not was_full and time.monotonic() > self._spool_said + LONG_S:
            self._spool_said = time.monotonic()
            self._event("spool_full", said)

    def _listening(self) -> bool:
        """Whether Envoy has its listener, clusters and routes. A connection to its port would count as a client's."""
        connection = TimedConnection(HOST, self.plan.settings.metrics_port, timeout=1)
        try:
            connection.request("GET", "/stats/prometheus?filter=^listener_manager")
            said = connection.getresponse().read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return all(
            f"envoy_listener_manager_{one}{{}} 1\n" in said for one in ("total_listeners_active", "workers_started")
        )


def _check_listens(server: ServerPorts, *, source: Path) -> None:
    """Raises ServingError if nothing listens on a port of a server that is to get all requests."""
    for name in ("grpc", "http", "status"):
        port = getattr(server, name)
        try:
            socket.create_connection((HOST, port), timeout=2).close()
        except OSError as error:
            raise ServingError(
                f"{source}: stable.{name}: {HOST}:{port} cannot be reached: {error.strerror or error}; give those of a "
                "slipway serve, and wait until it is ready"
            ) from None


def _stop(process: Popen[bytes]) -> None:
    process.terminate()
    with suppress(TimeoutExpired):
        process.wait(STOP_S)
    processes.kill(process)
