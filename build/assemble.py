#!/usr/bin/env python3
"""Assemble a model repository for Triton from a bundle and its engines: the cpu lane or the gpu lane."""

import argparse
import json
from pathlib import Path

from slipway.contract import Bundle
from slipway.contract.cli import run

EPILOG = """example:
  build/assemble.py runs/digits/bundle --engines runs/digits/engines
  build/assemble.py runs/digits/bundle --engines runs/digits/engines --lane gpu
  build/assemble.py runs/digits/bundle --engine runs/digits/engines/openvino-int8 --out model_repository/cpu

With --engines, the cpu lane serves what choice.json names, the fastest engine that passed its gate (build/choose.py);
the gpu lane serves the plans of the first precision of int8, fp16 and fp32 that the spec lists and that passed.
Several --engine are plans of one graph for several GPUs; the first one's decision is served.

Every file of the bundle and the engines is checked against its manifest first. The repository appears whole or not
at all; steps are named by their content, so the same input gives the same bytes."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.repository import assemble, open_engines, pick_engines  # not at the top: --help needs no library

    bundle, lane_name = Bundle.open(arguments.bundle), arguments.lane
    if arguments.engines is not None:
        classifier = pick_engines(bundle, arguments.engines, lane=lane_name)
    else:
        classifier = open_engines(bundle, arguments.engine, lane=lane_name)
    out = arguments.out or Path("model_repository") / lane_name
    lane = assemble([classifier], out, lane=lane_name)
    print(f"{out}: {lane.lane} lane, serves " + ", ".join(f"{n} and {n}_full" for n in lane.classifiers))
    print(f"  bundle {bundle.id[:12]}")
    for engine in classifier.engines:
        print(f"  engine {engine.path.name}: {engine.settings.target} {engine.settings.precision} ({engine.verdict})")
    if classifier.choice is not None:
        print(f"  chosen: {classifier.choice.reason}")
    serve = "python -m slipway.serving" if lane_name == "cpu" else "build/container.py serve"
    print(f"  next: {serve} {out}")
    if arguments.json:
        print(json.dumps({"repository": str(out), **lane.model_dump()}))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder that training/export.py wrote")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--engines", type=Path, help="folder of engine folders, to take what the lane serves")
    source.add_argument("--engine", type=Path, action="append", help="folder that build/compile.py wrote")
    parser.add_argument("--lane", choices=("cpu", "gpu"), default="cpu", help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="default: model_repository/cpu or model_repository/gpu")
    parser.add_argument("--json", action="store_true", help="one JSON line last")
    return parser


if __name__ == "__main__":
    run(main, parser())
