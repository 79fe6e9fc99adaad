"""Starts a tritonserver without models, loads a repository, and is ready when every ensemble has answered."""

import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

from slipway.contract import Lane, ServingError
from slipway.serving import load_many
from slipway.serving import process as processes
from slipway.serving.binary import TritonBinary, find_tritonserver
from slipway.serving.command import command, memory_variables
from slipway.serving.contents import Contents
from slipway.serving.control import Control
from slipway.serving.heads import left_out, spokesmen
from slipway.serving.limits import ServerLimits, server_limits
from slipway.serving.ports import HOST, Ports, check_ports
from slipway.serving.probe import BusyError
from slipway.serving.servable import check_libraries, check_servable
from slipway.serving.server_log import first_failure, passed_on
from slipway.serving.workspace import Workspace, private_workspace

DEFAULT_PORTS = Ports()
LOADERS = 2
"""Number of steps loaded at the same time. Loading is bound by the processor, so more only delay each other."""
SPARE_FILES = 4
ANSWER_S = 5.0
"""Seconds for the first right answer of an ensemble after it is loaded."""
Say = Callable[[str], None]


@dataclass
class Server:
    """A running server, and its contents."""

    process: Popen[bytes]
    binary: TritonBinary
    ports: Ports
    log: Path
    admin_key: str
    """Key of the restricted APIs: header `slipway-admin` (HTTP) or `triton-grpc-protocol-slipway-admin` (gRPC)."""
    control: Control
    workspace: Workspace
    contents: Contents
    limits: ServerLimits
    loaded: set[str] = field(default_factory=set)
    """Names of the models that the server has loaded."""
    stubs: dict[str, int] = field(default_factory=dict)
    """The processes of each step when it was loaded. Their number depends on the GPUs that Triton finds."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Heads that their groups could not load, with the reason; the others of the group answer."""
    untidy: bool = False
    """Whether the models of `load_many.py` are loaded."""
    former: tuple[str, ...] = ()
    """Loaded steps that no ensemble has any more since a reload."""
    seconds_to_ready: float = 0.0

    @property
    def lane(self) -> Lane:
        return self.contents.lane

    @property
    def grpc_url(self) -> str:
        return f"{HOST}:{self.ports.grpc}"

    @property
    def http_url(self) -> str:
        return f"{HOST}:{self.ports.http}"

    def load_steps(self, names: Iterable[str], *, deadline: float, say: Say = lambda _: None) -> dict[str, str]:
        """Load steps from the workspace until `deadline` (monotonic); returns each step that failed with the reason.

        Steps that are still loading at the deadline are killed.
        """

        def load(name: str) -> tuple[str, str]:
            try:
                self.control.load(name, timeout_s=max(deadline - time.monotonic(), 0.1))
            except ServingError as error:
                if time.monotonic() < deadline:
                    return name, str(error)
                self.end_stubs(name)
                return name, f"{name} did not answer within its time: still loading"
            say(f"{name} is loaded")
            return name, ""

        with ThreadPoolExecutor(LOADERS) as pool:
            results = dict(pool.map(load, names))
        self.loaded |= {name for name, problem in results.items() if not problem}
        alive = Counter(processes.stubs(self.process.pid).values())
        self.stubs |= {name: alive[name] for name in results}
        return {name: problem for name, problem in results.items() if problem}

    def load_ensembles(
        self, names: Sequence[str], contents: Contents, *, without: Mapping[str, str], deadline: float, say: Say
    ) -> dict[str, str]:
        """Load ensembles whose steps are loaded, and ask them; returns each that does not answer with the reason.

        Args:
            without: heads that were left out, with the reason.
        """
        problems = self._load(names, contents, deadline=deadline)
        silent: dict[tuple[str, ...], str] = {}
        for name in spokesmen(contents, names, without=without):
            try:
                if name not in problems:
                    self.wait_for(name, contents, deadline=deadline)
                    say(f"{name} answers")
            except ServingError as error:
                silent[contents.steps[name]] = str(error)
        for name in names:
            left_out = [without[one] for one in contents.lane.ensembles[name] if one in without]
            problem = problems.get(name) or silent.get(contents.steps[name]) or "; ".join(left_out)
            if problem:
                problems[name] = problem
        return problems

    def _load(self, names: Sequence[str], contents: Contents, *, deadline: float) -> dict[str, str]:
        if len(names) > load_many.MANY:
            if self._load_together(names, contents, deadline=deadline):
                return {}
            self.workspace.add(contents, names)  # the server says why of what looks newer than in the call before
        problems = {}
        for name in names:
            try:
                self.control.load(name, timeout_s=max(deadline - time.monotonic(), 0.1))
                self.loaded.add(name)
            except ServingError as error:
                problems[name] = str(error)
        return problems

    def _load_together(self, names: Sequence[str], contents: Contents, *, deadline: float) -> bool:
        """Load all of the ensembles in one call. False if one of them fails; then only each alone says why."""
        self.tidy()
        self.workspace.add_together([contents.models[name] for name in names])
        self.untidy = True
        try:
            self.control.load(load_many.NAME, timeout_s=max(deadline - time.monotonic(), 0.1))
        except ServingError:
            self.tidy()
            return False
        self.loaded |= {*names}
        return True

    def tidy(self) -> None:
        """Unload the model that loaded many ensembles in one call. It takes two more calls, which hold nobody up."""
        if self.untidy:
            for name in load_many.NAMES:
                with suppress(ServingError):  # the server is ending
                    self.control.unload(name, timeout_s=30)
            self.workspace.remove(load_many.NAMES)
            self.untidy = False

    def wait_for(self, name: str, contents: Contents, *, deadline: float) -> None:
        """Wait until a loaded ensemble answers with the right bundle.

        Raises:
            ServingError: it does not answer correctly before `deadline` (monotonic).
        """
        deadline = min(deadline, time.monotonic() + ANSWER_S)
        while True:
            try:
                return self.control.probe(name, contents.bundles(name))
            except BusyError:
                return None  # another client keeps it busy
            except ServingError as error:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise ServingError(f"{name} did not answer within its time: {error}") from None
            time.sleep(0.1)

    def unload(self, names: Iterable[str]) -> None:
        """Unload models, and remove them from the workspace in any case."""
        for name in names:
            try:
                self.control.unload(name, timeout_s=30)
            except ServingError:  # the server is ending, or never had it
                self.end_stubs(name)
            self.loaded.discard(name)
            self.workspace.remove([name])

    def lacking(self, steps: Iterable[str]) -> list[str]:
        """The loaded ones of `steps` with fewer processes than they were loaded with."""
        alive = Counter(processes.stubs(self.process.pid).values())
        return [step for step in steps if step in self.loaded and alive[step] < self.stubs[step]]

    def full(self) -> str:
        """The reason why new clients cannot connect, if the server has no file left for a connection; else empty."""
        used = processes.open_files(self.process.pid)
        if used < self.limits.open_files - SPARE_FILES:
            return ""
        return (
            f"no new client can connect: tritonserver has {used} of {self.limits.open_files} files open, one for each "
            "connection; close idle connections, or raise the hard limit of open files"
        )

    def end_stubs(self, step: str) -> None:
        """Kill the processes of a step."""
        for pid, name in processes.stubs(self.process.pid).items():
            if name == step:
                processes.kill_one(pid)


@contextmanager
def serve(
    repository: Path,
    *,
    ports: Ports = DEFAULT_PORTS,
    log: Path | None = None,
    timeout_s: float = 120.0,
    progress: Say = lambda _: None,
) -> Iterator[Server]:
    """Serve all of `repository` for the duration of the block, without a supervisor.

    Every file of the repository is checked against its manifest first. Afterwards no process, shared memory or
    temporary folder of the server is left. `log` is the file for the server's log.

    Raises:
        ServingError: there is no server, it cannot serve this lane, a port is in use, a model does not load, or there
            is no answer within `timeout_s`.
        ManifestError: a file of the repository was changed.
    """
    deadline = time.monotonic() + timeout_s
    checked = Contents.open(repository)
    with private_workspace() as workspace:
        if workspace.note:
            progress(workspace.note)
        contents = workspace.take(checked)
        with running(contents, workspace, ports=ports, log=log, deadline=deadline, say=progress) as server:
            for problem in load_all(server, deadline=deadline, say=progress).values():
                raise ServingError(problem)
            server.seconds_to_ready = timeout_s - (deadline - time.monotonic())
            yield server


@contextmanager
def running(
    contents: Contents,
    workspace: Workspace,
    *,
    ports: Ports,
    log: Path | None,
    deadline: float,
    address: str = HOST,
    say: Say = lambda _: None,
    pass_on: Say | None = None,
) -> Iterator[Server]:
    """A server that listens on `address` without models; `workspace` must have the steps of `contents`.

    `pass_on` is told each line of the log of an installed server, as in an image, if no file is named for it.

    Raises:
        ServingError: as in `serve`.
    """
    check_ports(ports, supervised=False, address=address)
    with ExitStack() as undo:  # in reverse: the server, its shared memory, its folder
        root = Path(undo.enter_context(tempfile.TemporaryDirectory(dir=workspace.root, ignore_cleanup_errors=True)))
        binary = find_tritonserver(root)
        check_servable(contents, binary)
        check_libraries(contents.origin, contents.lane)
        limits = server_limits(instances=contents.stubs())
        workspace.add(contents, contents.steps)
        say(f"tritonserver {binary.path} ({binary.reason})")
        admin_key, shm_prefix = secrets.token_urlsafe(24), processes.shared_memory_prefix()
        unseen = log is None and not binary.from_wheel  # in an image nobody reads, or empties, a file of ours
        log = log or root / "tritonserver.log"
        undo.callback(processes.remove_shared_memory, shm_prefix)
        process = processes.start(
            command(
                binary,
                workspace.models,
                lane=contents.lane,
                ports=ports,
                admin_key=admin_key,
                shm_prefix=shm_prefix,
                address=address,
                options=binary.options(),
            ),
            environment={**memory_variables(contents.lane), **binary.environment()},
            log=log,
            limits=limits,
            secret=admin_key,
        )
        if unseen and pass_on is not None:
            undo.enter_context(passed_on(log, pass_on))
        undo.callback(processes.stop, process)
        control = Control(f"{HOST}:{ports.grpc}", f"{HOST}:{ports.http}", admin_key)
        undo.callback(control.close)
        while not control.is_live():
            if process.poll() is not None:
                raise ServingError(f"tritonserver ended before it answered: {first_failure(log)}")
            if time.monotonic() > deadline:
                raise ServingError(f"tritonserver did not answer in time: {first_failure(log)}")
            time.sleep(0.02)
        yield Server(process, binary, ports, log, admin_key, control, workspace, contents, limits)


def load_all(server: Server, *, deadline: float, say: Say = lambda _: None) -> dict[str, str]:
    """Load everything that the repository serves; returns each ensemble that does not answer with the reason."""
    contents = server.contents
    broken = server.load_steps(contents.needed(), deadline=deadline, say=say)
    server.left_out = left_out(server.control, contents, (step for step in contents.needed() if step not in broken))
    problems = {
        name: "; ".join(broken[step] for step in steps if step in broken)
        for name, steps in contents.steps.items()
        if not broken.keys().isdisjoint(steps)
    }
    sound = [name for name in contents.steps if name not in problems]
    problems |= server.load_ensembles(sound, contents, without=server.left_out, deadline=deadline, say=say)
    server.tidy()
    return problems
