"""Look at a folder of images and write a spec for it, with every choice explained."""

import argparse
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from textwrap import indent
from typing import TYPE_CHECKING

from slipway.contract import DataError, Spec, SpecError
from slipway.contract.spec import AccuracyGate, Calibration, Data
from slipway.steps import guard
from slipway.system.json_line import print_json, verb_parser
from slipway.system.targets import write_file
from slipway.system.text import command
from slipway.system.yaml_json import parse_yaml

if TYPE_CHECKING:
    from slipway.training.data.sources import ImageSource

EPILOG = """examples:
  slipway init photographs                          class folders: photographs/cat/1.jpg
  slipway init photographs --csv labels.csv         a table with path and label, or labels for several per image
  slipway init scans --from-scratch                 a small network from random weights, without a model hub
  slipway up photographs.yaml                       then this makes a classifier that can be served

The images are listed, and a sample of them is opened. Only the spec is written; an existing file is never replaced."""
SAMPLE = 200
LARGEST_PX, SMALLEST_PX, STEP_PX = 224, 32, 32
FRACTIONS = (0.15, 0.2, 0.25, 0.3)
"""Shares of the validation and of the test split: the first that leaves each split an image of the smallest class."""
GENERIC = {"data", "dataset", "image", "images", "img", "index", "label", "labels", "metadata", "train"}
"""Names of tables and folders that say nothing about their content."""


@dataclass(frozen=True)
class ImageSurvey:
    """Facts about the images that decide the spec."""

    images: int
    images_of_class: Counter[str]
    several_labels: bool
    split: bool
    """The images are in splits already."""
    sides_px: Sequence[int]
    """The shorter side of each sampled image, in pixels."""
    source: "ImageSource"

    @property
    def input_px(self) -> int:
        """The median shorter side, rounded down to a multiple of 32, from 32 to 224."""
        side_px = int(median(self.sides_px)) // STEP_PX * STEP_PX
        return min(max(side_px, SMALLEST_PX), LARGEST_PX)

    @property
    def fraction(self) -> float | None:
        """Share of the validation and of the test split; None if some class has too few images for any."""
        fewest = min(self.images_of_class.values())
        fitting = (fraction for fraction in FRACTIONS if _least_images(fraction) <= fewest)
        return FRACTIONS[0] if self.several_labels or self.split else next(fitting, None)

    def test_split(self, arguments: argparse.Namespace) -> list[tuple[int, ...]]:
        """The class ids of each test image, as training will split the images if no two are equal."""
        from slipway.training.data.splits import assign  # not at the top: --help needs no library

        data = _data(arguments, self.fraction or FRACTIONS[0])
        entries, labels = sorted(self.source.entries, key=lambda entry: sorted(entry.labels)), self.source.labels
        splits = assign(entries, list(map(str, range(len(entries)))), labels=labels, data=data)
        numbers = {label: class_id for class_id, label in enumerate(labels)}
        pairs = zip(entries, splits, strict=True)
        return [tuple(numbers[label] for label in entry.labels) for entry, split in pairs if split == "test"]


def _data(arguments: argparse.Namespace, fraction: float) -> Data:
    csv = None if arguments.csv is None else str(arguments.csv)
    return Data(root=str(arguments.folder), csv=csv, validation_fraction=fraction, test_fraction=fraction)


def _least_images(fraction: float) -> int:
    return Data(root=".", validation_fraction=fraction, test_fraction=fraction).least_images


def main(arguments: argparse.Namespace) -> None:
    from slipway.evaluation.gate import REMEDY, too_few  # not at the top: --help needs no library

    out = arguments.out or Path(f"{_name(arguments)}.yaml")
    if out.exists():
        raise SpecError(f"{out}: exists already; give another name with --out, or remove it")
    seen = look(arguments.folder, arguments.csv)
    if seen.fraction is None:
        label, images = min(seen.images_of_class.items(), key=lambda item: item[1])
        needed = _least_images(FRACTIONS[-1])
        raise DataError(
            f"{arguments.folder}: class {label!r} has {images} images, and a class needs at least {needed} to be in "
            "each split: add images, or remove the class"
        )
    test = seen.test_split(arguments)
    spec = Spec.parse(parse_yaml(written(arguments, out, seen, test), source=str(out)), source=str(out))
    few = too_few(test, seen.source.labels, spec)
    write_file(out, written(arguments, out, seen, test, few=few or ""))
    least, most = min(seen.images_of_class.values()), max(seen.images_of_class.values())
    shares = f"{least:,} images each" if least == most else f"{least:,} to {most:,} images each"
    print(f"{out}: {seen.images:,} images in {len(seen.images_of_class):,} classes ({shares}), {seen.source.origin}")
    if few:
        print(indent(f"{few}\nso fp32 would be served: {REMEDY}, or list fp32 alone (precisions: [fp32])", "  "))
    print(f"  next: {command('slipway up', out)}")
    print_json(arguments, {"spec": str(out), "images": seen.images, "classes": len(seen.images_of_class)})


def look(folder: Path, csv: Path | None) -> ImageSurvey:
    """List the images and open a sample of them.

    Raises:
        DataError: the folder or table holds no images, or cannot be used; the message says what is needed.
    """
    from slipway.training.data.sources import find  # not at the top: --help needs no library

    header = csv.read_text(encoding="utf-8-sig").partition("\n")[0].split(",") if csv else []
    several = "labels" in [name.strip() for name in header]
    data = Data(root=str(folder), csv=None if csv is None else str(csv))
    source = find(data, task="multilabel" if several else "multiclass")
    step = max(len(source.entries) // SAMPLE, 1)
    sides = [side for entry in source.entries[::step] if (side := _shorter_side_px(folder / entry.path)) is not None]
    if not sides:
        raise SpecError(f"{folder}: none of the images can be read; slipway inspect says why")
    of_class = Counter(dict.fromkeys(source.labels, 0))
    of_class.update(label for entry in source.entries for label in entry.labels)
    split = any(entry.split is not None for entry in source.entries)
    return ImageSurvey(len(source.entries), of_class, several, split, sides, source)


def _shorter_side_px(path: Path) -> int | None:
    from PIL import Image

    encoded = path.read_bytes()
    if guard.inspect(encoded) != guard.OK:
        return None
    with Image.open(path) as image:
        return min(image.size)


def _name(arguments: argparse.Namespace) -> str:
    """The classifier's name: that of the table or of the folder, whichever first says more than `labels` does."""
    given = [*([arguments.csv.stem] if arguments.csv else []), arguments.folder.resolve().name]
    stems = [re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") for text in given]
    name = next((stem for stem in stems if stem not in GENERIC), stems[-1])
    return name if name[:1].isalpha() else f"images_{name}".rstrip("_")


def written(
    arguments: argparse.Namespace, out: Path, seen: ImageSurvey, test: Sequence[tuple[int, ...]], *, few: str = ""
) -> str:
    """The spec as YAML, with a comment for each choice; `test` has the class ids of each test image."""
    from slipway.evaluation.intervals import images_to_prove  # not at the top: --help needs no library

    side_px, classes = int(median(seen.sides_px)), len(seen.images_of_class)
    gate, usual = AccuracyGate(), Calibration().images
    needed = images_to_prove(gate.max_class_loss_points, error=(1 - gate.confidence) / 2 / classes)
    smallest = min(Counter(class_id for ids in test for class_id in ids).values())
    lines = [
        f"# {seen.images:,} images in {len(seen.images_of_class):,} classes, {seen.source.origin}.",
        f"# Next: {command('slipway up', out)}",
        "# An error about a key lists the valid ones; the documentation's page slipway.contract explains each.",
        f"name: {_name(arguments)}",
        f"task: {'multilabel' if seen.several_labels else 'multiclass'}",
        "data:",
        f"  root: {json.dumps(str(arguments.folder), ensure_ascii=False)}",
        *([f"  csv: {json.dumps(str(arguments.csv), ensure_ascii=False)}"] if arguments.csv else []),
        f"  validation_fraction: {seen.fraction:<7} # fits temperature and thresholds",
        f"  test_fraction: {seen.fraction:<13} # judges every engine, once",
        "preprocess:",
        f"  input_height: {seen.input_px}            # the median shorter side is {side_px} px",
        f"  input_width: {seen.input_px}",
        "  resize: crop                 # or pad, if the edges of the image matter",
        *_backbone(from_scratch=arguments.from_scratch),
        "recipe: auto                   # by the number of images: printed, and recorded in the checkpoint",
        "calibration:",
        f"  images: {min(usual, seen.images // 2)}                  # of the train split; {usual} are better for INT8",
        "precisions: [int8, bf16, fp32] # the fastest that passes its gate is served",
        *(f"# {line}" for line in few.splitlines()),
        "accuracy:",
        "  max_loss_points: 1.0         # top-1 points that a precision may lose against FP32",
    ]
    if smallest < needed:
        lines += [
            f"  # The smallest class has {smallest:,} test images; {needed:,} would prove its limit.",
            "  prove_classes: false",
        ]
    return "\n".join([*lines, "latency:", "  p99_ms: 50", "  rate_per_s: 20", ""])


def _backbone(*, from_scratch: bool) -> list[str]:
    if from_scratch:
        return [
            "backbone:",
            "  name: resnet10t",
            "  pretrained: false            # starts at random; asks no model hub",
        ]
    return ["backbone: auto                 # by the number of images; its weights come from a model hub"]


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument(
        "folder", type=Path, help="class folders, split folders, or the folder that the paths of --csv start from"
    )
    parser.add_argument("--csv", type=Path, help="table with the columns path and label, or path and labels")
    parser.add_argument("--from-scratch", action="store_true", help="take a small network with random weights")
    parser.add_argument("--out", type=Path, help="the spec to write; default: NAME.yaml here, with the folder's NAME")
    return parser
