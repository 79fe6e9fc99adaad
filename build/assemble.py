#!/usr/bin/env python3
"""Assemble a model repository for Triton from a bundle and one of its engines."""

import argparse
import json
from pathlib import Path

from slipway.contract import Bundle, Engine
from slipway.contract.cli import run

EPILOG = """example:
  build/assemble.py runs/digits/bundle --engine runs/digits/engines/openvino-int8 --out model_repository/cpu

Every file of the bundle and the engine is checked against its manifest first. The repository appears whole or not
at all; steps are named by their content, so the same input gives the same bytes."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.repository import Classifier, assemble  # not at the top: --help needs no library

    bundle = Bundle.open(arguments.bundle)
    engine = Engine.open(arguments.engine, bundle=bundle)
    lane = assemble([Classifier(bundle, engine)], arguments.out)
    print(f"{arguments.out}: {lane.lane} lane, serves " + ", ".join(f"{n} and {n}_full" for n in lane.classifiers))
    print(f"  bundle {bundle.id[:12]}, engine {engine.settings.target} {engine.settings.precision} ({engine.verdict})")
    print(f"  next: python -m slipway.serving {arguments.out}")
    if arguments.json:
        print(json.dumps({"repository": str(arguments.out), **lane.model_dump()}))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder that training/export.py wrote")
    parser.add_argument("--engine", type=Path, required=True, help="folder that build/compile.py wrote")
    parser.add_argument("--out", type=Path, default=Path("model_repository/cpu"), help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one JSON line last")
    return parser


if __name__ == "__main__":
    run(main, parser())
