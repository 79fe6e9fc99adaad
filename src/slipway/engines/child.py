"""Runs a function in its own process, so that a compiler that crashes or is stopped takes nothing else with it."""

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from slipway.contract import CompileError, SlipwayError

Result = TypeVar("Result")
ENDS_BY_ITSELF_S = 10
"""Time for a process that has answered to end: one that is killed leaves semaphores, of which Python warns at exit."""


def run_in_child(function: Callable[..., Result], *, what: str, **arguments: Any) -> Result:
    """Return or raise what `function(**arguments)` does. Function, arguments and result must be picklable.

    Ctrl-C ends the process at once, even in the middle of C++ code.

    Raises:
        CompileError: the process ended without an answer; `what` begins the message.
    """
    context = multiprocessing.get_context("spawn")
    answer, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        outcome: Result | SlipwayError = answer.recv()
        process.join(ENDS_BY_ITSELF_S)
    except EOFError:
        process.join()
        raise CompileError(f"{what}: its process ended without an answer, {_how(process.exitcode)}") from None
    finally:
        process.kill()
        process.join()
        answer.close()
    if isinstance(outcome, SlipwayError):
        raise outcome
    return outcome


def _answer(sender: Connection, function: Callable[..., object], arguments: dict[str, Any]) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        sender.send(function(**arguments))
    except SlipwayError as error:
        sender.send(error)


def _how(exit_code: int | None) -> str:
    assert exit_code is not None
    return f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
