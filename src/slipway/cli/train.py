"""Train a classifier from a spec, and write a checkpoint folder."""

import argparse
from pathlib import Path

from slipway.contract import DataError, Spec, SpecError
from slipway.contract.dataset import SPLITS, Dataset
from slipway.contract.evidence.build import CheckpointMeasured
from slipway.system.json_line import print_json, verb_parser
from slipway.system.targets import check_folder
from slipway.system.text import command

EPILOG = """examples:
  slipway make-digits --out runs/digits/data
  slipway train training/configs/digits.yaml --out runs/digits/checkpoint

  slipway make-parity runs/digits/checkpoint --out runs/parity/data.csv     a new task, few images
  slipway train training/configs/parity.yaml --out runs/parity/checkpoint   fine-tuned from the digits

The spec is one YAML file: name, data, preprocess, backbone, recipe, decision, precisions, latency. The
documentation's page slipway.contract explains every key; an error about a key lists the valid ones.

the recipe (docs/recipe.md):
  recipe: auto                         chosen by the number of images; the choice is printed with its reason
  recipe: {preset: auto, epochs: 10}   the same, with one field of your own
  recipe: {freeze_epochs: 5}           or field by field
  backbone: auto                       also chosen by the number of images
  backbone: {name: resnet50, weights: file.safetensors}   instead of timm's weights

The choices are written into the checkpoint's spec.json, which trains the same network again.

on several devices: set `compute.devices` of the spec, or, also for several machines:
  torchrun --nproc-per-node 2 -m slipway train spec.yaml --out checkpoint

after an interruption:
  The folder OUT.resume has the last complete epoch. The same command with --resume continues from there, and ends with
  the same weights as a run that was never stopped; you may give --resume from the start. If the spec or the images
  differ, an error says how. The folder is removed when training ends.

files in OUT: model.safetensors (of the best epoch), spec.json, dataset.json (the split), history.json (a row per
epoch: phase, learning rates, losses, top-1, macro-F1) and manifest.json."""


def main(arguments: argparse.Namespace) -> None:
    check_folder(arguments.out, kind="checkpoint")
    spec = Spec.read(arguments.spec)
    if arguments.check:
        print(f"{arguments.spec}: checking images and weights", flush=True)

    from slipway.training import train  # after the checks: it takes seconds

    if arguments.check:
        check(spec, arguments.out, resume=arguments.resume)
        print_json(arguments, {"spec": str(arguments.spec)})
        return
    manifest = train(spec, arguments.out, resume=arguments.resume)
    if manifest is None:  # not the first of several processes
        return
    measured = manifest.read_measured(CheckpointMeasured)
    resumed = ", resumed" if measured.resumed else ""
    print(f"{arguments.out}: {spec.name} trained in {measured.train_s} s, {measured.epochs} epochs{resumed}")
    images = ", ".join(f"{split} {number:,}" for split, number in measured.images.items())
    print(
        f"  images: {images}; best epoch {measured.best_epoch}: validation loss "
        f"{measured.best_validation_loss:.4f}, macro-F1 {measured.best_validation_macro_f1:.4f}"
    )
    print(f"  next: {command('slipway export', arguments.out, '--out', arguments.out.parent / 'bundle')}")
    print_json(arguments, {"checkpoint": str(arguments.out), **manifest.measured})


def check(spec: Spec, out: Path, *, resume: bool) -> None:
    """Check what training, and what export and the engines after it, need of the spec and its images: to learn it from
    those stages would cost a training.

    Raises:
        DataError, SpecError: as `get_ready`; the calibration sample is too small; or the test images are too few for
            everything that the spec lists.
    """
    from slipway.evaluation.gate import REMEDY, too_few
    from slipway.training import get_ready

    try:
        ready = get_ready(spec, out, resume=resume)
    except DataError as error:
        raise DataError(f"{error}\nslipway inspect SPEC --out FOLDER shows every fault of the images") from None
    counts = ", ".join(f"{len(ready.dataset.of(split)):,} {split}" for split in SPLITS)
    print(f"{counts} images, weights: {ready.origin}")
    _check_calibration(spec, ready.dataset)
    text = too_few([image.class_ids for image in ready.dataset.of("test")], ready.dataset.labels, spec)
    if text is None:
        return
    if "fp32" not in spec.precisions:
        raise SpecError(f"{text}\nthe spec lists nothing else to serve: {REMEDY}, or list fp32 too")
    print(f"{text}\nso fp32 would be served: {REMEDY}, or list fp32 alone (precisions: [fp32])")


def _check_calibration(spec: Spec, dataset: Dataset) -> None:
    from slipway.training.bundle.calibration import sample

    train, given = dataset.of("train"), spec.calibration.images
    several = len({image.class_ids for image in train}) > 1

    def of_one_class(images: int) -> bool:
        drawn = sample(train, spec.calibration.model_copy(update={"images": images}))
        return len({image.class_ids for image in drawn}) == 1

    if of_one_class(given) and several and {"int8", "fp8"} & {*spec.precisions}:
        enough = next(images for images in range(given + 1, len(train) + 1) if not of_one_class(images))
        raise DataError(
            f"calibration.images: {given} given, and all of one class; {enough} or more are of several classes"
        )


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("spec", type=Path, help="YAML file, see training/configs/")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder, for example runs/digits/checkpoint")
    parser.add_argument(
        "--check", action="store_true", help="train nothing: check spec, images and weights, for later stages too"
    )
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run from OUT.resume")
    return parser
