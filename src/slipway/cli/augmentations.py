"""Show on one page what the network sees in training: the originals, the served view and augmented draws."""

import argparse
from pathlib import Path

from slipway.contract import Spec
from slipway.system.json_line import print_json, verb_parser
from slipway.system.text import command

EPILOG = """example:
  slipway make-digits --out runs/digits/data
  slipway augmentations training/configs/digits.yaml --out runs/digits/augmentation.html

Each row has an image of the train split: the file, the image as it is served, and six augmented draws of it. If the
recipe mixes images, the page also has mixed batches with their targets. The page is self-contained.
docs/augmentation.md explains `recipe.augment`."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.pages import check_page, write  # not at the top: --help needs no library

    check_page(arguments.out, kind="augmentation")
    from slipway.training.data.inspection.augmentation import render  # after the check: it takes seconds

    spec = Spec.read(arguments.spec)
    page, found = render(spec)
    write(page, arguments.out, kind="augmentation")
    print(f"{arguments.out}: {found.images} images, {found.draws} draws each")
    if spec.recipe.augment.minority is not None:
        print(f"  changed by minority: {', '.join(found.minority) or 'no class'}")
    print(f"  next: {command('slipway train', arguments.spec, '--out', arguments.out.parent / 'checkpoint')}")
    print_json(arguments, {"page": str(arguments.out), **found._asdict()})


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("spec", type=Path, help="YAML file, see training/configs/")
    parser.add_argument("--out", type=Path, required=True, help="the page, for example runs/digits/augmentation.html")
    return parser
