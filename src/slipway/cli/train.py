"""Train a classifier from a spec, and write a checkpoint folder."""

import argparse
import json
from pathlib import Path

from slipway.contract import Spec
from slipway.contract.evidence.build import CheckpointMeasured
from slipway.system.text import command

EPILOG = """examples:
  slipway make-digits --out runs/digits/data
  slipway train training/configs/digits.yaml --out runs/digits/checkpoint

  slipway make-parity runs/digits/checkpoint --out runs/parity/data.csv     a new task, few images
  slipway train training/configs/parity.yaml --out runs/parity/checkpoint   fine-tuned from the digits

The spec is one YAML file: name, data, preprocess, backbone, recipe, decision, precisions, latency. Every key is
explained in src/slipway/contract/spec.py and recipe.py; a wrong key is named together with the valid ones.

how it is trained (docs/recipe.md):
  recipe: auto                         chosen by the number of images; prints what, and why
  recipe: {preset: auto, epochs: 10}   the same, with a field of your own
  recipe: {freeze_epochs: 5}           or field by field
  backbone: auto                       chosen by the number of images, too
  backbone: {name: resnet50, weights: file.safetensors}   in the place of timm's weights

What was chosen is written into the checkpoint's spec.json, which trains the same network again.

on several devices: several devices of one machine are `compute.devices` of the spec. Or, and for several machines:
  torchrun --nproc-per-node 2 -m slipway train spec.yaml --out checkpoint

when it is interrupted:
  The folder OUT.resume has the last whole epoch. The same command with --resume goes on from there and ends in the
  same weights as a run that was never stopped; it may be given from the start. Another spec or other images are an
  error that says what differs. When training ends the folder is removed.

what is written: model.safetensors (of the best epoch), spec.json, dataset.json (the split), history.json (a row an
epoch: phase, learning rates, losses, top-1, macro-F1) and manifest.json."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.training import train  # not at the top: --help needs no library

    spec = Spec.read(arguments.spec)
    manifest = train(spec, arguments.out, resume=arguments.resume)
    if manifest is None:  # one of several processes, and not the first
        return
    measured = manifest.read_measured(CheckpointMeasured)
    resumed = ", resumed" if measured.resumed else ""
    print(f"{arguments.out}: {spec.name} trained in {measured.train_s} s, {measured.epochs} epochs{resumed}")
    print(
        f"  images: {measured.images}, best epoch {measured.best_epoch}: validation loss "
        f"{measured.best_validation_loss:.4f}, macro-F1 {measured.best_validation_macro_f1:.4f}"
    )
    print(f"  next: {command('slipway export', arguments.out, '--out', arguments.out.parent / 'bundle')}")
    if arguments.json:
        print(json.dumps({"checkpoint": str(arguments.out), **manifest.measured}))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("spec", type=Path, help="YAML file, see training/configs/")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder, for example runs/digits/checkpoint")
    parser.add_argument("--resume", action="store_true", help="go on with what an interrupted run left beside --out")
    parser.add_argument("--json", action="store_true", help="one JSON line last")
    return parser
