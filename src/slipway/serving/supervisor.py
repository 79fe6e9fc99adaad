"""Owns a server: restarts whatever dies, and reloads the repository on request."""

import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from slipway.contract import Lane, ServingError, SlipwayError
from slipway.serving import process as processes
from slipway.serving.contents import Contents
from slipway.serving.hidden_argument import is_shown
from slipway.serving.ports import HOST, Ports, check_ports
from slipway.serving.probe import BusyError, LeftOutError
from slipway.serving.probe_order import Turns
from slipway.serving.process import LogError
from slipway.serving.process_events import Bell, ProcessWatch
from slipway.serving.reload import reload, retire
from slipway.serving.server import Server, load_all, running
from slipway.serving.server_log import log_lines
from slipway.serving.status import ServingStatus
from slipway.serving.workspace import private_workspace

Event = Callable[..., None]
"""`event(name, message, **fields)`."""

FAILURES = 3
"""Number of failed probes in a row after which the steps of a classifier are loaded again. If all classifiers fail as
often, the server is restarted."""
STEP_TIMEOUT_S = 30.0
LONGEST_PAUSE_S = 60.0
"""Longest pause in seconds between two starts; a server that ran longer counts as healthy."""
LONGEST_REST_S = 5.0
"""Longest pause in seconds before a server that had answered is restarted: other clients wait for it."""


class Supervisor:
    """Serves one repository. Everything but `ask_for_reload` happens in the thread that calls `run`.

    At a reload, `renew` gives the folder to read, if that is not always the same: the image that a tag names then.
    """

    def __init__(
        self,
        repository: Path,
        *,
        ports: Ports,
        log: Path | None,
        timeout_s: float,
        status: ServingStatus,
        event: Event,
        ended: threading.Event,
        address: str = HOST,
        renew: Callable[[], Path] | None = None,
    ) -> None:
        self._renew = renew
        self._repository, self._ports, self._log, self._timeout_s = repository, ports, log, timeout_s
        self._address = address
        self._status, self._event, self._ended = status, event, ended
        self._reloads: queue.Queue[queue.Queue[tuple[bool, str]]] = queue.Queue()
        self._bell, self._asking = Bell(), threading.Lock()
        """The bell has rung once for each reload in the queue; the lock keeps it so."""
        self._broken: dict[str, str] = {}

    def check(self) -> None:
        """Raises SlipwayError if `run` could not start with this repository or these ports."""
        check_ports(self._ports, supervised=True, address=self._address)
        Contents.open(self._repository)

    @property
    def lane(self) -> Lane:
        """The served lane, once `run` was called."""
        return self._contents.lane

    def ask_for_reload(self) -> tuple[bool, str]:
        """Read the repository again; callable from any thread.

        Returns:
            Whether the new repository is served now, and the change or the reason against it.
        """
        if self._renew is not None:
            try:
                self._repository = self._renew()
            except SlipwayError as error:
                self._refuse(error)
                return False, str(error)
        answer: queue.Queue[tuple[bool, str]] = queue.Queue()
        with self._asking:
            self._reloads.put(answer)
            self._bell.ring()
        try:
            return answer.get(timeout=2 * self._timeout_s)
        except queue.Empty:
            return False, "the server is restarting; try again later"

    def run(self) -> None:
        """Serve until `ended` is set.

        Raises:
            SlipwayError: the repository cannot be served, or no ensemble answers after the first start.
        """
        for stale in processes.remove_stale():
            self._event("cleaned", f"removed {stale}, left by a launcher that was killed")
        with private_workspace() as self._workspace:
            if self._workspace.note:
                self._event("environment", self._workspace.note)
            self._contents = self._workspace.take(Contents.open(self._repository))
            first, short, failed = True, 0, 0
            while not self._ended.is_set():
                started = time.monotonic()
                try:
                    start_s = self._serve_once(first=first)
                    failed = 0
                except (ServingError, OSError) as error:  # such as a full disk
                    if first:
                        raise
                    self._event("start_failed", str(error))
                    start_s, failed = time.monotonic() - started, failed + 1
                first = False
                short = 0 if time.monotonic() - started > LONGEST_PAUSE_S else short + 1
                time.sleep(pause_s(short=short, failed=failed, start_s=start_s))

    def _serve_once(self, *, first: bool) -> float:
        """Run the server from one start to its end; returns the seconds until it was ready.

        Raises:
            ServingError: it never became ready.
        """
        deadline, started = time.monotonic() + self._timeout_s, time.monotonic()
        self._event("starting", f"tritonserver on {self._contents.origin}")
        for note in self._contents.lane.notes:
            self._event("fallback", note)
        with ExitStack() as undo:
            options: dict[str, Any] = {
                "ports": self._ports,
                "address": self._address,
                "deadline": deadline,
                "pass_on": lambda line: self._event("tritonserver", line),
            }
            try:
                server = undo.enter_context(running(self._contents, self._workspace, log=self._log, **options))
            except LogError as error:
                if first:
                    raise
                self._event("log_lost", f"{error}; the server starts without a log")
                server = undo.enter_context(running(self._contents, self._workspace, log=None, **options))
            undo.callback(self._tell, None)
            if is_shown(server.process.pid, server.admin_key):
                self._event(
                    "key_shown", "ptrace is not allowed here, so the process list shows tritonserver's admin key"
                )
            problems = load_all(server, deadline=deadline, say=lambda message: self._event("loading", message))
            if len(problems) == len(self._contents.steps):
                raise ServingError(next(iter(problems.values())))
            server.seconds_to_ready = time.monotonic() - started
            for name, problem in problems.items():
                self._event("broken", f"{name} is not served: {problem}", ensemble=name)
            self._broken = problems
            self._status.starts.inc()
            self._status.seconds_to_ready.set(server.seconds_to_ready)
            self._tell(server)
            self._event(
                "ready",
                f"ready after {server.seconds_to_ready:.1f} s: gRPC {server.grpc_url}, HTTP {server.http_url}",
                seconds=round(server.seconds_to_ready, 3),
                pid=server.process.pid,
                classifiers=len(server.lane.classifiers),
                broken=len(problems),
                open_files=server.limits.open_files,
                largest_form_bytes=server.limits.largest_form_bytes,
            )
            why = self._watch(server)
            self._event("restarting", why, last_words="".join(log_lines(server.log)[-1:]))
            processes.kill(server.process)
            return server.seconds_to_ready

    def _tell(self, server: Server | None) -> None:
        """Publish which classifiers answer; without a server none does."""
        problems = {}
        for name in self._contents.lane.classifiers:
            own = [self._broken[one] for one in (name, f"{name}_full") if one in self._broken]
            problems[name] = next(iter(own), "") if server is not None else "tritonserver is restarting"
        self._status.set_all(problems, alone=server.left_out if server is not None else ())

    def _watch(self, server: Server) -> str:
        """Watch the server until it has to be restarted; returns the reason."""
        turns = self._turns(server)
        with ProcessWatch(server, self._bell) as watched:
            while True:
                gone = watched.wait(turns.interval_s)
                if self._ended.is_set():
                    sys.exit(0)
                if server.process.poll() is not None:
                    return f"tritonserver ended by itself with exit code {server.process.returncode}"
                for step in server.lacking(gone):
                    self._repair(server, step, why="one of its processes is gone")
                if (reloaded := self._reload_if_asked(server)) or gone:
                    watched.look()
                    turns = self._turns(server) if reloaded else turns
                    continue
                name = turns.next(time.monotonic())
                if name is not None and not self._ask(server, turns, name):
                    return "no classifier answers"

    def _turns(self, server: Server) -> Turns:
        steps = server.contents.steps
        turns = Turns({name: steps[name] for name in server.lane.classifiers if name in server.loaded}, server.left_out)
        self._status.set_turn(turns.turn_s)
        return turns

    def _ask(self, server: Server, turns: Turns, name: str) -> bool:
        """Probe a classifier, and repair its steps if they fail too often. False if no classifier answers any more."""
        started, before, failures = time.perf_counter(), turns.problem(name), 0
        try:
            server.control.probe(name, server.contents.bundles(name))
            turns.answered(name)
        except BusyError:
            turns.answered(name)
        except LeftOutError as error:
            turns.left_out(name, str(error))
        except ServingError as error:
            # A full server still answers open connections; loading a step again would only harm them.
            full = server.full()
            failures = turns.failed(name, full or str(error), counts=not full)
        problem, chain = turns.problem(name), turns.chain_of(name)
        if bool(problem) != bool(before):
            said = f"{name} is not ready: {problem}" if problem else f"{name} is ready again"
            self._event("not_ready" if problem else "ready_again", said, classifier=name)
        self._status.set_some(turns.problems(chain.waiting), alone=turns.alone)
        self._status.set_seconds(name, time.perf_counter() - started)
        if not failures or failures % FAILURES or server.process.poll() is not None:
            return True
        if turns.none_answers(FAILURES):
            return False
        others = [one for one, steps in server.contents.steps.items() if steps != chain.steps]
        # First the steps that it shares with nothing else; if that did not help, all of its steps.
        spared = server.contents.needed(others) if failures == FAILURES else []
        for step in chain.steps:
            if step not in spared:
                self._repair(server, step, why=f"{name} did not answer {failures} times: {problem}")
        return True

    def _repair(self, server: Server, step: str, *, why: str) -> None:
        """Unload a step and load it again; Triton then restores its ensembles by itself."""
        started = time.monotonic()
        self._event("step_lost", f"{step}: {why}", step=step)
        self._status.repairs.inc()
        server.end_stubs(step)
        try:
            server.control.unload(step, timeout_s=STEP_TIMEOUT_S)
            server.control.load(step, timeout_s=STEP_TIMEOUT_S)
        except ServingError as error:
            return self._event("step_not_repaired", str(error), step=step)
        seconds = time.monotonic() - started
        return self._event("step_repaired", f"{step} is loaded again after {seconds:.1f} s", step=step)

    def _reload_if_asked(self, server: Server) -> bool:
        try:
            with self._asking:
                answer = self._reloads.get_nowait()
                self._bell.heard()
        except queue.Empty:
            return False
        started = time.monotonic()
        try:
            checked = Contents.open(self._repository, like=self._contents)
            new = self._workspace.take(checked, like=self._contents)
            change = reload(server, new, deadline=started + self._timeout_s)
        except (SlipwayError, OSError) as error:
            self._refuse(error)
            answer.put((False, str(error)))
        else:
            self._contents = new
            still = {
                name: why for name, why in self._broken.items() if name in new.steps and name not in change.switched
            }
            self._broken = still | server.left_out
            self._status.reloads.labels("done").inc()
            self._tell(server)
            self._event("reloaded", str(change), seconds=round(time.monotonic() - started, 3))
            answer.put((True, str(change)))
        retire(server, is_asked=self._bell.rings)
        return True

    def _refuse(self, error: Exception) -> None:
        self._status.reloads.labels("refused").inc()
        self._event("reload_refused", str(error))


def pause_s(*, short: int, failed: int, start_s: float) -> float:
    """Seconds until the next start.

    Args:
        short: number of servers in a row that ran for less than `LONGEST_PAUSE_S`.
        failed: number of the last ones among them that never answered. Only for these does the pause grow.
        start_s: duration of the last start. A pause of the same length limits starts to half of the time.
    """
    if failed:
        return min(2.0 ** min(failed - 1, 10), LONGEST_PAUSE_S)
    return min(start_s, LONGEST_REST_S) if short > 1 else 0.0
