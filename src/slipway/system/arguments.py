"""The parser of every command, and the types of options that several verbs share, whose errors name the given value
and the allowed ones."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from slipway.errors import SlipwayError

T = TypeVar("T")
Actions: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Result of `ArgumentParser.add_subparsers`."""

MOST = 2**63 - 1


class Parser(argparse.ArgumentParser):
    """A parser whose help has one form: positionals are in capitals, and each default is named last."""

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        action = super().add_argument(*names, **options)
        if not action.option_strings and action.metavar is None and action.choices is None:
            action.metavar = action.dest.upper()
        default = action.default
        told = isinstance(default, int | float | str | Path) and not isinstance(default, bool)
        if told and default != argparse.SUPPRESS and action.help and "default:" not in action.help:
            action.help += "; default: %(default)" + ("g" if isinstance(default, float) else "s")
        return action


def add_action(
    actions: Actions, name: str, line: str, *, parents: Sequence[argparse.ArgumentParser] = ()
) -> argparse.ArgumentParser:
    """The parser of one action of a verb: its line in the verb's help describes it in its own."""
    return actions.add_parser(name, help=line, description=f"{line[:1].upper()}{line[1:]}.", parents=parents)


def port(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"invalid port {text!r}; use 1 to 65535")
    return int(text)


def seconds(text: str) -> float:
    return above_zero(text, f"invalid time {text!r}; use seconds above 0")


def rate(text: str) -> float:
    return above_zero(text, f"invalid rate {text!r}; use a number a second above 0")


def count(text: str) -> int:
    """At most the largest whole number that SQLite takes."""
    if not (text.isdecimal() and len(text) < 20 and 1 <= int(text) <= MOST):
        raise argparse.ArgumentTypeError(f"invalid count {text!r}; use 1 to {MOST}")
    return int(text)


def percent(text: str) -> int:
    if not text.isdecimal() or int(text) > 100:
        raise argparse.ArgumentTypeError(f"invalid percentage {text!r}; use a whole number from 0 to 100")
    return int(text)


def positive(text: str) -> float:
    return above_zero(text, f"invalid number {text!r}; use one above 0")


def parsed(parse: Callable[[str], T]) -> Callable[[str], T]:
    """The type of an option that `parse` reads; its SlipwayError becomes the parser's."""

    @wraps(parse)
    def read(text: str) -> T:
        try:
            return parse(text)
        except SlipwayError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def above_zero(text: str, said: str, *, most: float = sys.float_info.max) -> float:
    """A number above 0 and up to `most`; `said` is the error of any other text."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= most:
        raise argparse.ArgumentTypeError(said)
    return value
