#!/usr/bin/env python3
"""Train a classifier from a spec, and write a checkpoint folder."""

import argparse
import json
from pathlib import Path

from slipway.contract import Spec
from slipway.contract.cli import run

EPILOG = """example:
  training/make_digits.py --out runs/digits/data
  training/train.py training/configs/digits.yaml --out runs/digits/checkpoint

The spec is one YAML file: name, data, preprocess, backbone, recipe, decision, precisions, latency. Every key is
explained in src/slipway/contract/spec.py; a wrong key is named together with the valid ones.

Several devices of one machine are `compute.devices` of the spec. Or, and for several machines:
  torchrun --nproc-per-node 2 training/train.py spec.yaml --out checkpoint"""


def main(arguments: argparse.Namespace) -> None:
    from slipway.training import train  # not at the top: --help needs no library

    spec = Spec.read(arguments.spec)
    manifest = train(spec, arguments.out)
    if manifest is None:  # one of several processes, and not the first
        return
    measured = manifest.measured
    print(f"{arguments.out}: {spec.backbone.name} trained in {measured['train_s']} s, {measured['epochs']} epochs")
    print(f"  images: {measured['images']}, best validation loss {measured['best_validation_loss']:.4f}")
    print(f"  next: training/export.py {arguments.out} --out {arguments.out.parent / 'bundle'}")
    if arguments.json:
        print(json.dumps({"checkpoint": str(arguments.out), **measured}))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("spec", type=Path, help="YAML file, see training/configs/")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder, for example runs/digits/checkpoint")
    parser.add_argument("--json", action="store_true", help="one JSON line last")
    return parser


if __name__ == "__main__":
    run(main, parser())
