"""Parts of every verb: its parser, and `--json`, which prints the result as one JSON line, the last on standard
output."""

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any

from slipway.system.arguments import Parser, add_action


def add_json(parser: argparse.ArgumentParser, *, help: str = "print the result as one JSON line, last") -> None:
    parser.add_argument("--json", action="store_true", help=help)


def verb_parser(doc: str | None, epilog: str | None = None, *, with_json: bool = True) -> argparse.ArgumentParser:
    """The parser of a verb: `doc` and `epilog` are printed as they are written, and `--json` is among its options,
    unless it has actions, or no result."""
    parser = Parser(description=doc, epilog=epilog, formatter_class=argparse.RawTextHelpFormatter)
    if with_json:
        add_json(parser)
    return parser


def add_actions(
    parser: argparse.ArgumentParser,
    verb: str,
    known: Mapping[str, tuple[Callable[..., object], str]],
    *shared: argparse.ArgumentParser,
) -> dict[str, argparse.ArgumentParser]:
    """Add the actions of a verb, with the arguments of `shared` and `--json`; returns the parser of each.

    Args:
        known: the function of each action, which becomes `run`, and its line in the help.
    """
    actions = parser.add_subparsers(prog=f"slipway {verb}", required=True, dest="action", metavar=" | ".join(known))
    made = {name: add_action(actions, name, line, parents=shared) for name, (_, line) in known.items()}
    for name, one in made.items():
        one.set_defaults(run=known[name][0])
        add_json(one)
    return made


def print_json(arguments: argparse.Namespace, result: Mapping[str, Any]) -> None:
    """Print `result` if the user asked for it."""
    if arguments.json:
        print(json.dumps(result))
