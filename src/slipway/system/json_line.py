"""Parts of every verb: its parser, and `--json`, which prints the result as one JSON line, the last on standard
output."""

import argparse
import json
from collections.abc import Mapping
from typing import Any


def add_json(parser: argparse.ArgumentParser, *, help: str = "print the result as one JSON line, last") -> None:
    parser.add_argument("--json", action="store_true", help=help)


def verb_parser(doc: str | None, epilog: str | None = None) -> argparse.ArgumentParser:
    """The parser of a verb: `doc` and `epilog` are printed as they are written, and `--json` is among its options."""
    parser = argparse.ArgumentParser(description=doc, epilog=epilog, formatter_class=argparse.RawTextHelpFormatter)
    add_json(parser)
    return parser


def print_json(arguments: argparse.Namespace, result: Mapping[str, Any]) -> None:
    """Print `result` if the user asked for it."""
    if arguments.json:
        print(json.dumps(result))
