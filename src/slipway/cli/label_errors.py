"""Find images whose label is probably wrong: cross-validated predictions of the spec, judged by cleanlab."""

import argparse
from pathlib import Path

from slipway.contract import Spec, SpecError
from slipway.system.json_line import print_json, verb_parser
from slipway.system.targets import check_folder
from slipway.system.text import shown

SHOWN = 10
EPILOG = """example:
  slipway label-errors training/configs/digits.yaml --out runs/digits/label_errors
  # look at runs/digits/label_errors/label_errors.html, edit the column action of suspects.csv, then
  slipway label-errors training/configs/digits.yaml --out runs/digits/label_errors \\
      --reviewed runs/digits/label_errors/suspects.csv --clean runs/digits/clean.csv
  # and train with data.csv: runs/digits/clean.csv in the spec

The images of all three splits are divided into folds, stratified, with groups and identical files kept together. For
each fold the spec is trained on the other folds, so this takes as long as that many trainings. A run that was killed
resumes at the next fold: predictions are kept in OUT.folds.

In suspects.csv the column action says what --clean does with a suspect:
  drop      leave the image out; the default in the train split
  relabel   take the label in the column suggested, which you may correct
  keep      leave the label as it is; the default in validation and test, since a network must not drop its own mistakes
            from the images that judge it

A suspect may be a hard image with the right label: look before you drop it. docs/label_errors.md has figures."""


def main(arguments: argparse.Namespace) -> None:
    if not arguments.reviewed:
        check_folder(arguments.out, kind="label errors")
    spec = Spec.read(arguments.spec)
    if arguments.reviewed and not arguments.clean:
        raise SpecError("--reviewed needs --clean FILE, the table to write")
    result = {} if arguments.reviewed else find(arguments, spec)
    if arguments.clean:
        result |= clean(arguments, spec)
    print_json(arguments, result)


def find(arguments: argparse.Namespace, spec: Spec) -> dict[str, object]:
    # Not at the top: --help needs no library.
    from slipway.training.search.label_errors import PAGE, check_clean, find_label_errors

    if arguments.clean:
        check_clean(spec, arguments.clean)
    found = find_label_errors(spec, arguments.out, folds=arguments.folds, seed=arguments.seed)
    share = len(found.suspects) / found.images
    print(f"{arguments.out / PAGE}: {len(found.suspects):,} of {found.images:,} labels are suspect ({share:.1%})")
    if found.top1_by_fold:
        print(f"  top-1 by fold: {', '.join(f'{top1:.2%}' for top1 in found.top1_by_fold)}")
    for suspect in found.suspects[:SHOWN]:
        given, suggested = (", ".join(labels) or "none" for labels in (suspect.given, suspect.suggested))
        told = f"{suspect.path}: given {given}, probably {suggested} (quality {suspect.quality:.3f}, {suspect.split})"
        print(f"  {shown(told)}")
    if len(found.suspects) > SHOWN:
        print(f"  … and {len(found.suspects) - SHOWN} more")
    print(f"  next: look at the page, edit the column action of {arguments.out / 'suspects.csv'}, and give --reviewed")
    return {
        "label_errors": str(arguments.out),
        "images": found.images,
        "suspects": len(found.suspects),
        "top1_by_fold": found.top1_by_fold,
    }


def clean(arguments: argparse.Namespace, spec: Spec) -> dict[str, object]:
    from slipway.training.search.label_errors import SUSPECTS, write_clean

    counts = write_clean(spec, arguments.reviewed or arguments.out / SUSPECTS, arguments.clean)
    told = ", ".join(f"{action} {count:,}" for action, count in sorted(counts.items())) or "no suspects"
    print(f"{arguments.clean}: {told}; everything else is unchanged")
    print(f"  next: data.csv: {arguments.clean} in the spec, and slipway train")
    return {"clean": str(arguments.clean), **counts}


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    add = parser.add_argument
    add("spec", type=Path, help="YAML file, see training/configs/")
    add("--out", type=Path, required=True, help="folder to write, for example runs/digits/label_errors")
    add("--folds", type=int, default=5, help="number of folds")
    add("--seed", type=int, default=0, help="seed of the folds")
    add("--clean", type=Path, metavar="FILE", help="write a table for data.csv, following the column action")
    add("--reviewed", type=Path, metavar="CSV", help="your edited suspects.csv, for --clean; nothing is trained")
    return parser
