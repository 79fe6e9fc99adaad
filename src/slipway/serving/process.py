"""Starts, inspects and ends one tritonserver process, with its stubs and shared memory."""

import os
import re
import secrets
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from slipway.errors import ServingError, requiring
from slipway.serving import hidden_argument
from slipway.serving.command import EXIT_TIMEOUT_S
from slipway.serving.limits import ServerLimits

with requiring("psutil", extra="serve"):
    import psutil

SHARED_MEMORY = Path("/dev/shm")
_STUB = "triton_python_backend_stub"


class LogError(ServingError):
    """The server's log cannot be written."""


def shared_memory_prefix() -> str:
    """A prefix for the shared memory of this process only: `slipway_<pid>_<random>_`."""
    return f"slipway_{os.getpid()}_{secrets.token_hex(4)}_"


def start(
    arguments: Sequence[str], *, environment: dict[str, str], log: Path, limits: ServerLimits, secret: str
) -> subprocess.Popen[bytes]:
    """Start a server that writes its output to `log`; the log of an earlier one is moved to `<log>.previous`.

    Arguments that contain `secret` are hidden from the process list, if the system allows that.

    Raises:
        LogError: the log cannot be written.
        ServingError: the log is not a file.
    """
    if log.exists() and not (log.is_file() or log.samefile(os.devnull)):
        raise ServingError(
            f"--log {log}: not a file; if the reader of a pipe or terminal stops, the server would stop too"
        )
    try:
        if log.is_file() and not log.is_symlink():
            log.replace(log.with_name(log.name + ".previous"))
        output = log.open("ab")
    except OSError as error:
        raise LogError(f"--log {log}: cannot be written: {error.strerror}") from None
    with output:
        try:
            return _run(arguments, environment, output, limits, secret=secret)
        except OSError:  # a sandbox that allows PTRACE_TRACEME only
            return _run(arguments, environment, output, limits, secret=None)


def _run(
    arguments: Sequence[str], environment: dict[str, str], output: BinaryIO, limits: ServerLimits, *, secret: str | None
) -> subprocess.Popen[bytes]:
    ours, theirs = os.pipe()
    command, variables = hidden_argument.command(arguments, theirs, limits=limits, secret=secret)
    try:
        process = subprocess.Popen(
            command,
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs],
            start_new_session=True,  # Ctrl-C reaches only us, and the whole process group can be ended
        )
    finally:
        os.close(theirs)
    try:
        hidden_argument.hand_over(process.pid, ours, variables)
    except BaseException:
        kill(process)
        raise
    finally:
        os.close(ours)
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to end; after the time-out, or a second Ctrl-C, kill its process group, stubs included."""
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(EXIT_TIMEOUT_S + 2)
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the server and every stub of its process group, orphans included."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kill_one(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def stubs(server: int) -> dict[int, str]:
    """The stubs of the process `server`: process id to the name of its step."""
    found = {}
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(server).children():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                step = _step(child.cmdline())
                if step is not None:
                    found[child.pid] = step
    return found


def open_files(process: int) -> int:
    with suppress(psutil.NoSuchProcess):
        return int(psutil.Process(process).num_fds())
    return 0


def remove_shared_memory(prefix: str) -> None:
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def remove_stale() -> list[str]:
    """Remove shared memory and stubs of launchers that were killed, and return their names."""
    removed = []
    for region in SHARED_MEMORY.glob("slipway_*_*"):
        if not _is_alive(region.name):
            region.unlink(missing_ok=True)
            removed.append(str(region))
    for process in _all_stubs():
        with suppress(psutil.NoSuchProcess):
            region_name = next((part for part in process.cmdline() if part.startswith("slipway_")), "")
            if region_name and not _is_alive(region_name):
                process.kill()
                removed.append(f"stub {process.pid}")
    return removed


def _all_stubs() -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if _step(process.cmdline()) is not None:
                yield process


def _step(arguments: Sequence[str]) -> str | None:
    """The step of a stub, whose first argument is `<workspace>/repository/<step>/1/model.py`."""
    if len(arguments) < 3 or Path(arguments[0]).name != _STUB:
        return None
    return Path(arguments[1]).parent.parent.name


def _is_alive(region: str) -> bool:
    """Whether the launcher that named `region` still runs. Foreign names count as alive, so they are left alone."""
    owner = re.match(r"slipway_(\d+)_[0-9a-f]{8}_", region)
    return owner is None or psutil.pid_exists(int(owner[1]))
