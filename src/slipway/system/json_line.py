"""`--json`: the result of a verb as one JSON line, the last on standard output."""

import argparse
import json
from collections.abc import Mapping
from typing import Any


def add_json(parser: argparse.ArgumentParser, *, help: str = "print the result as one JSON line, last") -> None:
    parser.add_argument("--json", action="store_true", help=help)


def print_json(arguments: argparse.Namespace, result: Mapping[str, Any]) -> None:
    """Print `result` if the user asked for it."""
    if arguments.json:
        print(json.dumps(result))
