"""Check what of a model repository would load on this machine, what would not, and why."""

import argparse
import io
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slipway.system.arguments import seconds
from slipway.system.json_line import print_json, verb_parser

EPILOG = """example:
  slipway doctor model_repository/example

Every step is started as the server would start it, but alone; nothing is written to the repository. Marks:
  ✓  works               ✗  would not be served, with the reason and the remedy
  –  not applicable, or impossible to check on this machine
A broken head of a base prevents its own ensembles alone, as on the server.
The exit code is 0 if everything would be served, and 1 otherwise."""  # noqa: RUF001  the dash is a mark


def main(arguments: argparse.Namespace) -> int:
    from slipway.serving.doctor.examine import examine  # not at the top: --help needs no library

    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(errors="replace")  # a terminal without the marks still gets the words
    parts: list[str] = []

    def show(check: Any) -> None:
        if parts[-1:] != [check.part]:
            parts.append(check.part)
            print(check.part if check.part in ("repository", "machine") else f"{check.part}s")
        print(f"  {check}", flush=True)

    diagnosis = examine(arguments.repository, report=show, timeout_s=arguments.timeout_s)
    print(diagnosis.verdict)
    print_json(arguments, {"repository": str(arguments.repository), **asdict(diagnosis)})
    return 0 if diagnosis.verdict.good else 1


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("repository", type=Path, help="folder that slipway assemble wrote")
    parser.add_argument("--timeout-s", type=seconds, default=120.0, help="seconds for a step to load")
    return parser
