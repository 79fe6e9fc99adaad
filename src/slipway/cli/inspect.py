"""Inspect a data set before any training: its content, its problems, and how to fix them."""

import argparse
from pathlib import Path

from slipway.contract import Spec
from slipway.system.json_line import print_json, verb_parser
from slipway.system.targets import MANIFEST, check_folder
from slipway.system.text import command, shown

EPILOG = """example:
  slipway make-digits --out runs/digits/data
  slipway inspect training/configs/digits.yaml --out runs/digits/inspection

The part `data` of the spec says where the images are:

  class folders      root/cat/1.jpg: one sub-folder per class; the splits are drawn with a seed
  split folders      root/train/cat/1.jpg: all three of train, validation and test, each with a sub-folder per class
  a CSV file         data.csv with the columns path and label; for task multilabel path and labels ("cat|dog");
                     with a column split (train, validation or test) the splits are given;
                     data.group_column names the column of groups that must stay together: a patient, a camera

inspection.json gets counts, imbalance, sizes, files that serving would refuse, and exact and near duplicates within and
across splits. inspection.html shows the same with a contact sheet per class, and is self-contained. docs/data.md
explains every problem.

exit status: 0 without errors (warnings allowed); 1 with an error that would also stop training"""


def main(arguments: argparse.Namespace) -> int:
    check_folder(arguments.out, kind="inspection")

    from slipway.training.data.inspection import PAGE, RESULT, inspect  # after the check: it takes seconds

    found = inspect(Spec.read(arguments.spec), arguments.out)
    print(f"{arguments.out / PAGE}: {found.images:,} images in {len(found.classes):,} classes")
    if found.images_by_split:
        counts = ", ".join(f"{split} {count:,}" for split, count in found.images_by_split.items())
        print(f"  splits {found.splits}: {counts}")
    for problem in found.problems:
        print(f"  {problem.severity}: {shown(problem.what)}")
        for example in problem.examples:
            print(f"    {shown(example)}")
        print(f"    {shown(problem.remedy)}")
    print(f"  {len(found.errors)} errors, {len(found.warnings)} warnings; details in {arguments.out / RESULT}")
    if not found.errors and not (arguments.spec.parent / MANIFEST).is_file():  # the spec of a bundle is trained
        print(f"  next: {command('slipway train', arguments.spec, '--out', arguments.out.parent / 'checkpoint')}")
    left_out = {"unreadable", "exact_duplicates", "near_duplicates"}  # lists as long as the data set's faults
    short = {**found.model_dump(mode="json", exclude=left_out)}
    short |= {name: len(getattr(found, name)) for name in sorted(left_out)}
    print_json(arguments, {"inspection": str(arguments.out), **short})
    return 1 if found.errors else 0


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("spec", type=Path, help="YAML file, see training/configs/")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, for example runs/digits/inspection")
    return parser
