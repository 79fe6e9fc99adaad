"""Finds a tritonserver, and prepares its Python backend for this interpreter's environment."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slipway.errors import ServingError
from slipway.system.home import user_folder
from slipway.system.process import output_of

INSTALLED = Path("/opt/tritonserver/bin/tritonserver")
"""The server in NVIDIA's images."""
HELP_TIMEOUT_S = 30
_OPTION = re.compile(r"--([a-z][a-z-]+)")


@dataclass(frozen=True)
class TritonBinary:
    """A tritonserver, and the reason why it was chosen."""

    path: Path
    reason: str
    backend_directory: Path | None
    """Folder of the backends; None is the server's own default."""
    library_path: str
    """`LD_LIBRARY_PATH` for the server and its stubs."""
    from_wheel: bool = False
    """The server is 2.51 from the nvidia-pytriton wheel."""

    def options(self) -> frozenset[str]:
        """The options that this server knows and 2.51 may not, by its own `--help`; none for the wheel's.

        Raises:
            ServingError: the server does not start.
        """
        return frozenset() if self.from_wheel else self.every_option()

    def every_option(self) -> frozenset[str]:
        """The options in this server's `--help`.

        Raises:
            ServingError: the server does not start.
        """
        try:
            done = output_of([self.path, "--help"], env=self.environment(), timeout_s=HELP_TIMEOUT_S)
            said = done.stdout + done.stderr
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
        found = frozenset(_OPTION.findall(said))
        if "model-repository" not in found:
            raise ServingError(f"{self.path} does not start: {said.strip().partition(chr(10))[0] or 'it says nothing'}")
        return found

    def environment(self) -> dict[str, str]:
        """This environment, with the server's libraries, and the running Python first on PATH.

        The stub embeds Python in isolated mode: it takes its packages from the `python3` on PATH, and ignores
        PYTHONPATH and PYTHONDONTWRITEBYTECODE. `SLIPWAY_CACHE` is the folder in which engines cache compiled models;
        its files may be deleted at any time, and an empty value turns the cache off.
        """
        inherited = os.environ.get("LD_LIBRARY_PATH", "")
        left_out = ignored_variables()
        return {
            "SLIPWAY_CACHE": str(user_folder("XDG_CACHE_HOME", ".cache") / "slipway"),
            **{name: value for name, value in os.environ.items() if name not in left_out},
            "LD_LIBRARY_PATH": os.pathsep.join(part for part in (self.library_path, inherited) if part),
            # An instance computes in the threads of its configuration. OpenBLAS would take all cores for a small
            # product, and its threads wait by spinning.
            "OPENBLAS_NUM_THREADS": "1",
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH") or os.defpath)),
        }


def ignored_variables() -> list[str]:
    """Variables of this environment that would change how launcher, server and users reach each other.

    `GRPC_POLL_STRATEGY=none` ends each process that makes a gRPC call. `AIP_MODE=PREDICTION`, which Vertex AI sets,
    opens one more port, on every address; `AIP_HTTP_PORT=x` ends tritonserver. `PROMETHEUS_MULTIPROC_DIR` mixes the
    launcher's counters with those of a web server. gRPC's variables for TLS are kept, since loopback does not use it.
    """
    return sorted(
        name
        for name in os.environ
        if (name.startswith(("GRPC_", "AIP_")) and "_SSL_" not in name)
        or name.lower() == "prometheus_multiproc_dir"  # both spellings are read
    )


def installed_server() -> Path | None:
    """The tritonserver on PATH, else that of NVIDIA's image; None if this machine has neither."""
    on_path = shutil.which("tritonserver")
    if on_path:
        return Path(on_path)
    return INSTALLED if os.access(INSTALLED, os.X_OK) else None


def find_tritonserver(workspace: Path) -> TritonBinary:
    """The installed tritonserver, else the one of the nvidia-pytriton wheel with a backend folder in `workspace`.

    Raises:
        ServingError: neither is installed, or the wheel has no stub for this Python.
    """
    installed = installed_server()
    if installed is not None:
        root = installed.parents[1]
        backends, libraries = root / "backends", root / "lib"
        return TritonBinary(
            installed,
            f"installed in {root}",
            backend_directory=backends if backends.is_dir() else None,
            library_path=str(libraries) if libraries.is_dir() else "",
        )
    spec = importlib.util.find_spec("pytriton")  # found, not imported: only its files are used
    if spec is None or not spec.submodule_search_locations:
        raise ServingError("no tritonserver is installed, nor nvidia-pytriton: pip install 'slipway[serve]'")
    from importlib import metadata  # not at the top: `slipway reload` does without, in half of the time

    if int(metadata.version("numpy").partition(".")[0]) >= 2:
        raise ServingError(
            f"numpy {metadata.version('numpy')} is installed: the wheel's Python backend misreads every BYTES tensor "
            "with numpy 2 and crashes: pip install 'numpy<2'"
        )
    package = Path(next(iter(spec.submodule_search_locations)))
    wheel = package / "tritonserver"
    return TritonBinary(
        wheel / "bin" / "tritonserver",
        "from the nvidia-pytriton wheel, since no other is installed",
        backend_directory=_prepare_backends(wheel, workspace),
        library_path=str(package.parent / "nvidia_pytriton.libs"),
        from_wheel=True,
    )


def _prepare_backends(wheel: Path, workspace: Path) -> Path:
    """A backend folder that holds the Python backend and the stub for the running Python."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stubs = wheel / "python_backend_stubs"
    stub = stubs / version / "triton_python_backend_stub"
    if not stub.is_file():
        available = ", ".join(sorted(path.name for path in stubs.iterdir())) if stubs.is_dir() else "none"
        raise ServingError(
            f"{stub}: the Python backend has no stub for Python {version}; it has stubs for {available}: "
            "run Slipway with one of those, or install nvidia-pytriton again"
        )
    backend = workspace / "backends" / "python"
    backend.mkdir(parents=True)
    for source in (*(wheel / "backends" / "python").iterdir(), stub):
        if source.is_file():
            (backend / source.name).symlink_to(source)
    _make_executable(stub, backend / stub.name)
    return backend.parent


def _make_executable(stub: Path, link: Path) -> None:
    """Make the wheel's stub executable. Triton would do so for its owner only; any other user gets a copy."""
    if stub.stat().st_mode & 0o555 != 0o555:
        with suppress(OSError):
            stub.chmod(0o755)
    if os.access(stub, os.X_OK):
        return
    link.unlink()
    try:
        shutil.copyfile(stub, link)
    except OSError as error:
        raise ServingError(
            f"{stub}: cannot be run or copied by this user: {error.strerror}; its owner can fix this: chmod a+rx {stub}"
        ) from None
    link.chmod(0o755)
