"""The tritonserver of the nvidia-pytriton wheel on a bare machine: its files, a Python for its steps, start and end."""

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.studies.gpu_proof.folder import ProofError

HOST = "127.0.0.1"
READY_S = 120
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBRARY = f"libpython{VERSION}.so.1.0"


@dataclass(frozen=True)
class Served:
    """A server that is ready."""

    port: int
    """Its HTTP port."""
    pid: int
    """The process tritonserver, which leads the session of its Python steps."""
    log: Path
    log_start: int
    """Size of the log in bytes when the server was started: several servers write to one log."""

    def said(self) -> str:
        """Return the log since this server was started."""
        return self.log.read_bytes()[self.log_start :].decode("utf-8", "replace")

    def memory_mib(self) -> float:
        """Return the memory of the server and its steps; pages that several processes share count once in all (PSS)."""
        kib = 0
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # the process ended meanwhile
                session = int((process / "stat").read_text().rpartition(")")[2].split()[3])
                if session == self.pid:
                    found = re.search(r"^Pss: +(\d+) kB", (process / "smaps_rollup").read_text(), re.MULTILINE)
                    kib += int(found[1]) if found else 0
        return kib / 1024


@contextmanager
def serve(
    repository: Path, work: Path, *, flags: Sequence[str], log: Path, environment: Path | None
) -> Iterator[Served]:
    """Yield a server on `repository` that is ready.

    Args:
        environment: folder of a Python environment of `step_python`; None is this Python's own.

    Raises:
        ProofError: it ended, or was not ready in time; the end of its log is in the message.
    """
    package = _package()
    port, prefix = _free_port(), f"gpu_proof_{os.getpid()}_{time.monotonic_ns()}_"
    command = [
        str(package / "tritonserver/bin/tritonserver"),
        "--disable-auto-complete-config",
        f"--model-repository={repository}",
        f"--backend-directory={_backends(package / 'tritonserver', work)}",
        *(
            f"--{name}={value}"
            for name, value in (("http-address", HOST), ("http-port", port), ("allow-grpc", "false"))
        ),
        *(f"--{name}={value}" for name, value in (("allow-metrics", "false"), ("exit-timeout-secs", "3"))),
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        "--backend-config=python,shm-default-byte-size=16777216",
        *flags,
    ]
    log_start = log.stat().st_size if log.is_file() else 0
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=_variables(package, environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, port, log)
        yield Served(port, process.pid, log, log_start)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(8)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for region in Path("/dev/shm").glob(f"{prefix}*"):
            region.unlink(missing_ok=True)


def _package() -> Path:
    spec = importlib.util.find_spec("pytriton")  # found, not imported: only its files are used
    if spec is None or not spec.submodule_search_locations:
        raise ProofError("nvidia-pytriton is neither carried nor installed; run prepare server, and carry its pieces")
    return Path(next(iter(spec.submodule_search_locations)))


def _backends(wheel: Path, work: Path) -> Path:
    folder = work / "backends/python"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        stub = wheel / "python_backend_stubs" / VERSION / "triton_python_backend_stub"
        if not stub.is_file():
            raise ProofError(f"{stub}: the wheel has no stub for Python {VERSION}")
        for source in (*(wheel / "backends/python").iterdir(), stub):
            if source.is_file():
                shutil.copy(source, folder)
        (folder / stub.name).chmod(0o755)
    (wheel / "bin/tritonserver").chmod(0o755)
    return folder.parent


def _variables(package: Path, environment: Path | None) -> dict[str, str]:
    libraries = [
        str(package.parent / "nvidia_pytriton.libs"),
        *_library_folder(),
        os.environ.get("LD_LIBRARY_PATH", ""),
    ]
    first = environment / "bin" if environment else Path(sys.executable).parent
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        "PATH": os.pathsep.join((str(first), os.environ.get("PATH", os.defpath))),
    }


def _library_folder() -> list[str]:
    """Return the folder of this Python's shared library, if the loader does not find it by itself.

    Raises:
        ProofError: the library is missing.
    """
    places = [sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"]
    for place in filter(None, places):
        if (Path(place) / LIBRARY).is_file():
            return [place]
    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, errors="replace", check=False).stdout
    if LIBRARY not in known and not list(Path("/usr/lib").glob(f"*/{LIBRARY}")):
        raise ProofError(
            f"{LIBRARY}: not on this machine, and the server's Python backend loads it; install libpython{VERSION}"
        )
    return []


def step_python(folder: Path, *, first: Sequence[Path], last: Sequence[Path]) -> Path:
    """Make an environment whose packages are `first`, then those of this Python, then `last`.

    The Python backend takes its packages from the `python3` on PATH, and reads no PYTHONPATH.
    """
    packages = folder / "lib" / f"python{VERSION}" / "site-packages"
    packages.mkdir(parents=True, exist_ok=True)
    (folder / "bin").mkdir(exist_ok=True)
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    for name in ("python3", "python"):
        (folder / "bin" / name).unlink(missing_ok=True)
        (folder / "bin" / name).symlink_to(base)
    version = ".".join(map(str, sys.version_info[:3]))
    (folder / "pyvenv.cfg").write_text(
        f"home = {base.parent}\ninclude-system-site-packages = false\nversion = {version}\n", encoding="utf-8"
    )
    own = [Path(path) for path in sys.path if re.search(r"(site|dist)-packages/?$", path)]
    paths = [*first, *own, *last]
    (packages / "proof.pth").write_text("".join(f"{path}\n" for path in dict.fromkeys(paths)), encoding="utf-8")
    return folder


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise ProofError(f"tritonserver ended with {process.returncode}: {_reason(log)}")
        with suppress(urllib.error.URLError, OSError):
            if urllib.request.urlopen(f"http://{HOST}:{port}/v2/health/ready", timeout=2).status == 200:
                return
        time.sleep(0.1)
    raise ProofError(f"tritonserver was not ready within {READY_S} s: {_reason(log)}")


def _reason(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    telling = [line for line in lines if re.search(r"error|fail|Traceback|cannot open", line, re.IGNORECASE)]
    return " | ".join(line.strip()[:240] for line in (telling or lines)[-4:])
