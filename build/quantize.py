#!/usr/bin/env python3
"""Quantise a bundle's graph to explicit INT8 with ModelOpt, from the bundle's own calibration sample."""

import argparse
import json
from pathlib import Path

from slipway.contract import Bundle
from slipway.contract.cli import run

EPILOG = """example:
  build/quantize.py runs/digits/bundle --out runs/digits/graphs/int8

The calibration images pass through the serving preprocess. Without enough of them there is no INT8: the spec says
how many (calibration.images), the bundle holds them, and their hashes are part of its id."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.engines import quantize  # not at the top: --help needs no library

    bundle = Bundle.open(arguments.bundle)
    measured = quantize(bundle, arguments.out).measured
    print(
        f"{arguments.out}: {measured['int8_layers']} of {measured['layers']} convolutions and matrix products in INT8, "
        f"{measured['calibration_method']} calibration on {measured['calibration_images']} images"
    )
    engines = arguments.bundle.parent / "engines"
    print(f"  next: build/compile.py {arguments.bundle} --graphs {arguments.out.parent} --out {engines}")
    if arguments.json:
        print(json.dumps({"graph": str(arguments.out), **measured}))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder that training/export.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="the graph folder, for example runs/digits/graphs/int8")
    parser.add_argument("--json", action="store_true", help="one JSON line last")
    return parser


if __name__ == "__main__":
    run(main, parser())
