#!/usr/bin/env python3
"""One HTML page of what a bundle is worth: classes, confusion, reliability, coverage, unknown, worst mistakes."""

import argparse
import json
from pathlib import Path

from slipway.contract import Bundle
from slipway.contract.cli import run

EPILOG = """example:
  training/evaluate.py runs/digits/bundle

The numbers are those that export or import measured and wrote into the bundle; no network runs here. The page holds
its images and loads nothing: send it as it is. Run this where training was run, since the mistakes are read from the
data set."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.evaluation.headline import headline  # not at the top: --help needs no library
    from slipway.report import write
    from slipway.report.evaluation import LabelsWorth, Worth, read_worth, render

    bundle = Bundle.open(arguments.bundle)
    worth = read_worth(bundle)
    out = arguments.out or arguments.bundle.parent / "evaluation.html"
    write(render(bundle, worth), out)
    ece = worth.reliability.after
    if isinstance(worth, LabelsWorth):
        first = {"map": worth.map, "exact_match": worth.exact_match}
        wrong = f"{len(worth.mistakes)} wrong labels listed"
    else:
        first, wrong = {"top1": worth.top1}, f"{worth.wrong} wrong"
    print(f"{out}: {worth.images} test images, {out.stat().st_size / 1e6:.2f} MB")
    print(f"  {headline(first)}, macro-F1 {worth.macro.f1:.4f}, {wrong}")
    print(f"  ECE {ece.ece:.4f} ({ece.ece_interval[0]:.4f} to {ece.ece_interval[1]:.4f})")
    if isinstance(worth, Worth) and worth.unknown is not None:
        print(f"  unknown: {worth.unknown.test.unknown_rate:.2%} of the test split, by {worth.unknown.score}")
    if arguments.json:
        print(json.dumps({"page": str(out), **first, "ece": ece.ece, "ece_interval": ece.ece_interval}))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder that training/export.py or build/import_bundle.py wrote")
    parser.add_argument("--out", type=Path, help="default: evaluation.html beside the bundle")
    parser.add_argument("--json", action="store_true", help="one JSON line last")
    return parser


if __name__ == "__main__":
    run(main, parser())
