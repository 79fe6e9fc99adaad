"""Hides arguments from the process list, since tritonserver takes its key only as an argument.

Everybody may read the memory between the first and the last argument of a process (/proc/<pid>/cmdline), but only its
own user may read its environment. So the text of the argument goes into the environment. The process is stopped as the
new program begins, and the pointer to the argument, which the program reads, is set to that text.
"""

import ctypes
import os
import signal
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from slipway.serving.limits import ServerLimits

_VARIABLE = "SLIPWAY_ARGUMENT_"
_DETACH = 17  # of ptrace
_START_OF_STACK = 28  # field of /proc/<pid>/stat, counted from 1
_WORD = struct.calcsize("P")
# The kernel kills the server when whoever started it is gone, even by SIGKILL; the stubs end when they miss it.
# Then PTRACE_TRACEME, and a byte to the parent when it was allowed; without, the arguments are put in at once.
_PROGRAM = f"""
import ctypes, os, resource, signal, sys
libc, (pipe, files, stack, parent), arguments = ctypes.CDLL(None), map(int, sys.argv[1:5]), sys.argv[5:]
for which, soft in (resource.RLIMIT_NOFILE, files), (resource.RLIMIT_STACK, stack):
    resource.setrlimit(which, (soft, resource.getrlimit(which)[1]))
os.set_inheritable(pipe, False)
libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != parent:  # gone before that, and nobody would let this process continue
    sys.exit(1)
if any(name.startswith("{_VARIABLE}") for name in os.environ) and libc.ptrace(0, 0, 0, 0) == 0:
    os.write(pipe, b"1")
else:
    arguments = [os.environ.get(f"{_VARIABLE}{{i}}", argument) for i, argument in enumerate(arguments)]
os.execve(arguments[0], arguments, os.environ)
"""


def command(
    arguments: Sequence[str], pipe: int, *, limits: ServerLimits, secret: str | None
) -> tuple[list[str], dict[str, str]]:
    """The command line for `arguments`, and variables for its environment; only the latter contain `secret`."""
    hidden, shown = {}, list(arguments)
    for i, argument in enumerate(arguments):
        if secret is not None and secret in argument:
            hidden[f"{_VARIABLE}{i}"], shown[i] = argument, argument.replace(secret, "hidden")
    return [
        sys.executable,
        "-I",
        "-S",
        "-c",
        _PROGRAM,
        *map(str, (pipe, limits.open_files, limits.stack_bytes, os.getpid())),
        *shown,
    ], hidden


def hand_over(pid: int, pipe: int, hidden: Mapping[str, str]) -> None:
    """Give the process its hidden arguments and let it continue. Call this in the thread that started it.

    Raises:
        OSError: the arguments could not be written.
    """
    if not os.read(pipe, 1):  # ptrace is not allowed here: it continued by itself
        return
    state = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    if state is None or state.si_code != os.CLD_TRAPPED or state.si_status != signal.SIGTRAP:
        raise OSError(f"process {pid} did not stop")
    stack = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_START_OF_STACK - 3])
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        # At the start of the stack: argc, argv[0], …, NULL, envp[0], …, NULL.
        variables = stack + (_read_word(memory.fileno(), stack) + 2) * _WORD
        while address := _read_word(memory.fileno(), variables):
            name, equals, _ = os.pread(memory.fileno(), 64, address).partition(b"=")
            if equals and name.decode(errors="replace") in hidden:
                argument = int(name.decode().removeprefix(_VARIABLE))
                text = struct.pack("P", address + len(name) + 1)
                os.pwrite(memory.fileno(), text, stack + (1 + argument) * _WORD)
            variables += _WORD
    if ctypes.CDLL(None, use_errno=True).ptrace(_DETACH, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def is_shown(pid: int, secret: str) -> bool:
    """Whether every user of this machine can read `secret` in the process list."""
    with suppress(OSError):  # it has ended
        return secret.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _read_word(memory: int, address: int) -> int:
    word: int = struct.unpack("P", os.pread(memory, _WORD, address))[0]
    return word
