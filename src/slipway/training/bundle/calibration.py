"""The calibration images of a bundle: a sample of the train split, drawn with a seed."""

import re
from itertools import groupby
from pathlib import Path

import numpy as np

from slipway.contract import DataError
from slipway.contract.bundle import CalibrationImage, CalibrationList
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.decision import Task
from slipway.contract.spec import Calibration


def write_calibration(bundle: Path, dataset: Dataset, calibration: Calibration, *, task: Task = "multiclass") -> None:
    """Copy a seeded, stratified sample of the train split; the list of its images is part of the bundle's id."""
    images: list[CalibrationImage] = []
    (bundle / "calibration").mkdir()
    for image in sample(dataset.of("train"), calibration):
        suffix = Path(image.path).suffix.lower()
        name = f"{len(images):05d}{suffix if re.fullmatch(r'[.][0-9a-z]+', suffix) else '.image'}"
        (bundle / "calibration" / name).write_bytes(dataset.load(image))
        class_id = image.class_ids if task == "multilabel" else image.class_id
        images.append(CalibrationImage(file=name, class_id=class_id, sha256=image.sha256))
    CalibrationList(images=tuple(images)).write(bundle / "calibration.json")


def check_calibration(calibration: Calibration, *, images: int, has: str = "has only") -> None:
    """Raises DataError: the train split, with so many images, has too few."""
    if images < calibration.images:
        raise DataError(
            f"calibration.images: {calibration.images} given, but the train split {has} {images} images; add images, "
            "or write a smaller number into the spec"
        )


def sample(train: list[LabelledImage], calibration: Calibration) -> list[LabelledImage]:
    """Draw `calibration.images` images of `train` with the seed, in the classes' proportions.

    Raises:
        DataError: `train` has fewer images.
    """
    check_calibration(calibration, images=len(train))
    rng = np.random.default_rng(calibration.seed)
    drawn: list[LabelledImage] = []
    ordered = sorted(train, key=lambda image: (image.class_ids, image.path))
    by_class = groupby(ordered, key=lambda image: image.class_ids)
    seen = 0
    for _, group in by_class:
        images = list(group)
        seen += len(images)
        # Cumulative rounding gives every class its share to within one image, and an exact total.
        share = round(seen * calibration.images / len(train)) - len(drawn)
        drawn += [images[i] for i in rng.permutation(len(images))[:share]]
    return sorted(drawn, key=lambda image: image.path)
