"""Start a tritonserver on a repository, wait until every ensemble answers an image, and stop without a trace."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from slipway.contract import Lane, Manifest, ServingError
from slipway.lint.chain import broken_links
from slipway.lint.models import read_models
from slipway.serving.binary import TritonBinary, find_tritonserver
from slipway.serving.probe import probe

HOST = "127.0.0.1"  # the wheel's server has known CVEs: loopback only, see docs/adr/0001
EXIT_TIMEOUT_S = 3  # for requests in flight; an idle keep-alive connection makes Triton use it up


@dataclass(frozen=True)
class Ports:
    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002

    @classmethod
    def free(cls) -> Self:
        """Three ports that nobody listens on now."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(3)]
            return cls(*(s.getsockname()[1] for s in sockets))


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    process: subprocess.Popen[bytes]
    ports: Ports
    lane: Lane
    log: Path
    admin_key: str
    """Opens the restricted APIs, as header `slipway-admin` (HTTP) or `triton-grpc-protocol-slipway-admin` (gRPC)."""
    seconds_to_ready: float

    @property
    def grpc_url(self) -> str:
        return f"{HOST}:{self.ports.grpc}"

    @property
    def http_url(self) -> str:
        return f"{HOST}:{self.ports.http}"


@contextmanager
def serve(
    repository: Path,
    *,
    ports: Ports = Ports(),
    log: Path | None = None,
    timeout_s: float = 120.0,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Server]:
    """Serve `repository` for the duration of the block.

    Every file of the repository is checked against its manifest first. Afterwards no process, no shared memory
    and no temporary folder of the server is left. `log` keeps the server's own log.

    Raises:
        ServingError: no server, one that cannot serve this lane, a port in use, a model that does not load, or no
            answer within `timeout_s`.
        ManifestError: a file of the repository was changed.
    """
    manifest = Manifest.open(repository, kind="repository")
    lane = Lane.read(repository / "lane.json")
    for model, problem in broken_links(lane, read_models(repository), manifest.outputs):
        raise ServingError(f"{repository / model}: {problem}; assemble the repository again")
    _check_ports(ports)
    started = time.monotonic()
    with ExitStack() as undo:  # in reverse: the server, its shared memory, its folder
        workspace = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="slipway-serving-")))
        # Links to the checked files: the stubs write __pycache__ beside them, and a repository stays as it is.
        linked = shutil.copytree(repository.resolve(), workspace / "repository", copy_function=os.symlink)
        binary = find_tritonserver(workspace)
        if lane.lane == "gpu" and binary.backend_directory is not None:
            raise ServingError(
                f"{repository}: a gpu lane, and the server of the nvidia-pytriton wheel has neither TensorRT nor "
                f"NVIDIA's DALI backend; serve it in NVIDIA's image: build/container.py serve {repository} --run"
            )
        progress(f"tritonserver {binary.path} ({binary.reason})")
        admin_key, shm_prefix = secrets.token_urlsafe(24), f"slipway_{os.getpid()}_{secrets.token_hex(4)}_"
        log = log or workspace / "tritonserver.log"
        undo.callback(_remove_shared_memory, shm_prefix)
        process = _start(
            command(binary, linked, lane=lane, ports=ports, admin_key=admin_key, shm_prefix=shm_prefix),
            environment=binary.environment(),
            log=log,
        )
        undo.callback(_stop, process)
        _wait_until_it_answers(process, lane=lane, ports=ports, log=log, timeout_s=timeout_s, progress=progress)
        yield Server(process, ports, lane, log, admin_key, seconds_to_ready=time.monotonic() - started)


def command(
    binary: TritonBinary, repository: Path, *, lane: Lane, ports: Ports, admin_key: str, shm_prefix: str
) -> list[str]:
    """The server's command line, hardened: loopback, no model control, administrative APIs behind a key."""
    restricted = "shared-memory,model-repository,logging,trace"
    flags = {
        "model-repository": str(repository),
        "model-control-mode": "none",
        "exit-timeout-secs": str(EXIT_TIMEOUT_S),
        "http-address": HOST,
        "grpc-address": HOST,
        "metrics-address": HOST,
        "http-port": str(ports.http),
        "grpc-port": str(ports.grpc),
        "metrics-port": str(ports.metrics),
        "http-restricted-api": f"{restricted}:slipway-admin={admin_key}",
        "grpc-restricted-protocol": f"{restricted}:slipway-admin={admin_key}",
    }
    if binary.backend_directory is not None:
        flags["backend-directory"] = str(binary.backend_directory)
    backend_config = {
        "shm-region-prefix-name": shm_prefix,
        "shm-default-byte-size": str(lane.shm_default_bytes),
    }
    tensorrt = ["--backend-config=tensorrt,version-compatible=true"] if lane.tensorrt_version_compatible else []
    return [
        str(binary.path),
        "--disable-auto-complete-config",  # what is served is what is written
        *(f"--{flag}={value}" for flag, value in flags.items()),
        *(f"--backend-config=python,{name}={value}" for name, value in backend_config.items()),
        *tensorrt,
    ]


def _check_ports(ports: Ports) -> None:
    given = {"http": ports.http, "grpc": ports.grpc, "metrics": ports.metrics}
    if len(set(given.values())) < len(given):
        raise ServingError(f"ports {given}: each must be another; see --http-port, --grpc-port and --metrics-port")
    for name, port in given.items():
        try:
            socket.create_server((HOST, port)).close()
        except (OSError, OverflowError) as error:
            raise ServingError(
                f"port {port} ({name}) on {HOST} cannot be used: {getattr(error, 'strerror', error)}; end what listens "
                f"there, or choose another with --{name}-port"
            ) from None


def _start(arguments: list[str], *, environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    try:
        output = log.open("wb")
    except OSError as error:
        raise ServingError(f"--log {log}: cannot be written: {error.strerror}") from None
    with output:
        return subprocess.Popen(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone, and its process group can be ended whole
        )


def _wait_until_it_answers(
    process: subprocess.Popen[bytes],
    *,
    lane: Lane,
    ports: Ports,
    log: Path,
    timeout_s: float,
    progress: Callable[[str], None],
) -> None:
    deadline = time.monotonic() + timeout_s
    waiting = [name + suffix for name in lane.classifiers for suffix in ("", "_full")]
    while waiting:
        problem = probe(f"{HOST}:{ports.grpc}", waiting[0])
        if problem is None:
            progress(f"{waiting.pop(0)} answers")
        elif process.poll() is not None:
            raise ServingError(f"tritonserver ended before it answered: {_first_failure(log)}")
        elif time.monotonic() > deadline:
            raise ServingError(f"{waiting[0]} did not answer within {timeout_s:g} s: {_still_loading(log) or problem}")
        else:
            time.sleep(0.1)


def _first_failure(log: Path) -> str:
    """The server's own words on what went wrong first, without their stack trace."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if not lines:
        return "its log is empty"
    # Errors of CUDA and NVML are harmless without a GPU.
    errors = [line for line in lines if re.match(r"E\d{4} ", line) and "CUDA" not in line and "Cuda" not in line]
    failures = [line for line in lines if re.search(r"failed to load|Invalid argument|error: ", line)]
    first = [*failures, *errors, lines[-1]][0]
    return re.sub(r"^[EIW]\d{4} .*?\] ", "", first).strip('"').partition(r"\n")[0]


def _still_loading(log: Path) -> str:
    """The models that the log says are loading and does not say are loaded; empty if there are none."""
    text = log.read_text(encoding="utf-8", errors="replace")
    loaded = re.findall(r"successfully loaded '([^']+)'", text)
    loading = sorted(set(re.findall(r"loading: (\S+?):\d", text)) - set(loaded))
    return f"still loading {', '.join(loading)}" if loading else ""


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to end; after its time-out, or a second Ctrl-C, end its process group, stubs included."""
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(EXIT_TIMEOUT_S + 2)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _remove_shared_memory(prefix: str) -> None:
    for region in Path("/dev/shm").glob(f"{prefix}*"):
        region.unlink(missing_ok=True)
