"""Look at what the network will see in training: originals, serving's view and augmented draws, on one page."""

import argparse
import json
from pathlib import Path

from slipway.contract import Spec
from slipway.system.text import command

EPILOG = """example:
  slipway make-digits --out runs/digits/data
  slipway augmentations training/configs/digits.yaml --out runs/digits/augmentation.html

Some images of each class of the train split in a row: the file, what serving makes of it, and six draws of what
training makes of it. Where the recipe mixes, some pictures of mixed batches with their targets. The page loads nothing.
docs/augmentation.md explains `recipe.augment`."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.pages import check_page, write  # not at the top: --help needs no library
    from slipway.training.data.inspection.augmentation import render

    check_page(arguments.out, kind="augmentation")
    spec = Spec.read(arguments.spec)
    page, found = render(spec)
    write(page, arguments.out, kind="augmentation")
    print(f"{arguments.out}: {found['images']} images, {found['draws']} draws each; look at it")
    if spec.recipe.augment.minority is not None:
        print(f"  changed by minority: {', '.join(found['minority']) or 'no class'}")
    print(f"  next: {command('slipway train', arguments.spec, '--out', arguments.out.parent / 'checkpoint')}")
    if arguments.json:
        print(json.dumps({"page": str(arguments.out), **found}))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("spec", type=Path, help="YAML file, see training/configs/")
    parser.add_argument("--out", type=Path, required=True, help="page, for example runs/digits/augmentation.html")
    parser.add_argument("--json", action="store_true", help="one JSON line last")
    return parser
