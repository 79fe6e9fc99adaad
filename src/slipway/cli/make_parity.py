"""Write a new task for the digits' backbone: odd or even, from few images, as a CSV file."""

import argparse
from pathlib import Path

from slipway.system.json_line import print_json, verb_parser

EPILOG = """example:
  slipway make-parity runs/digits/checkpoint --out runs/parity/data.csv
  slipway train training/configs/parity.yaml --out runs/parity/checkpoint

The splits are those of the checkpoint, so its backbone has not seen any image of the new test split."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.training.data.demo_data import write_parity  # not at the top: --help needs no library

    options = {"images_per_digit": arguments.images_per_digit, "seed": arguments.seed}
    images = write_parity(arguments.checkpoint, arguments.out, **options)
    print(f"{arguments.out}: {images}")
    print_json(arguments, {"csv": str(arguments.out), "images": images})


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    add = parser.add_argument
    add("checkpoint", type=Path, help="checkpoint of training/configs/digits.yaml")
    add("--out", type=Path, default=Path("runs/parity/data.csv"), help="table to write")
    add("--images-per-digit", type=int, default=6, help="training images per digit")
    add("--seed", type=int, default=0, help="seed of the choice of images")
    return parser
