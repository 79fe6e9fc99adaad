"""Write the demo data: scikit-learn's scanned digits as image files of mixed sizes in class folders."""

import argparse
from pathlib import Path

from slipway.system.json_line import print_json, verb_parser


def main(arguments: argparse.Namespace) -> None:
    # not at the top: --help needs no library
    from slipway.training.data.demo_data import MINORITY, write_digits, write_imbalanced_digits

    if arguments.imbalance is None:
        images = write_digits(arguments.out, seed=arguments.seed)
        print(f"{arguments.out}: {images} images in 10 class folders")
    else:
        images = write_imbalanced_digits(arguments.out, imbalance=arguments.imbalance, seed=arguments.seed)
        few = ", ".join(map(str, MINORITY))
        print(f"{arguments.out}: {images} images in 10 class folders a split; in train few of {few}")
    print_json(arguments, {"data": str(arguments.out), "images": images})


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/digits/data"), help="folder to write")
    add(
        "--imbalance",
        type=int,
        metavar="N",
        help="write split folders; in train, the digits 1, 3, 5, 7 and 9 get 1/N of the images of the others",
    )
    add("--seed", type=int, default=0, help="seed of sizes, tones and qualities")
    return parser
