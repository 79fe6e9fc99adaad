"""The demo's images: scikit-learn's 1,797 scanned digits as JPEG and PNG files of mixed sizes in class folders."""

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits
from tqdm import tqdm

from slipway.contract import DataError, Manifest
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.files import complete_folder

SIDES_PX = (48, 512)
MARKER = ".slipway-digits"  # says that this folder is ours to replace


def write_digits(out: Path, *, seed: int) -> int:
    """Write the digits to `out/<digit>/`, each once, as RGB; returns the number of images.

    Sides are 48 to 512 px, a third of the images are not square (the scan is then padded, not stretched), paper and
    ink vary a little in tone, and two thirds are JPEG.
    """
    scans = load_digits()
    rng = np.random.default_rng(seed)
    with complete_folder(out, marker=MARKER) as staging:
        (staging / MARKER).touch()
        progress = tqdm(scans.images, desc="writing digits", unit="image", leave=False, disable=None)
        for index, (scan, digit) in enumerate(zip(progress, scans.target, strict=True)):
            folder = staging / str(digit)
            folder.mkdir(exist_ok=True)
            image = _render(scan / 16.0, rng)
            if index % 3:
                image.save(folder / f"{index:04d}.jpg", quality=int(rng.integers(75, 96)))
            else:
                image.save(folder / f"{index:04d}.png")
    return len(scans.images)


def write_parity(checkpoint: Path, out: Path, *, images_per_digit: int, seed: int) -> dict[str, int]:
    """Write a CSV file of the digits of `checkpoint` with the labels `even` and `odd`; returns the rows of each split.

    The splits are the checkpoint's, so that its backbone has seen no image of the new test split; of the train split
    so many images of each digit are drawn.

    Raises:
        ManifestError: no complete checkpoint.
        DataError: its labels are not digits, or a digit has too few train images.
    """
    Manifest.open(checkpoint, kind="checkpoint")
    dataset = Dataset.read(checkpoint / DATASET)
    if not all(label.isdecimal() for label in dataset.labels):
        raise DataError(f"{checkpoint}: the labels are {', '.join(dataset.labels[:5])} …; give the digits' checkpoint")
    rng, train, few = np.random.default_rng(seed), dataset.of("train"), set()
    for class_id, label in enumerate(dataset.labels):
        paths = sorted(image.path for image in train if image.class_id == class_id)
        if len(paths) < images_per_digit:
            raise DataError(f"{checkpoint}: {len(paths)} train images of {label}, and {images_per_digit} asked for")
        few.update(rng.choice(paths, images_per_digit, replace=False).tolist())
    rows = [
        (image.path, ("even", "odd")[int(dataset.labels[image.class_id]) % 2], image.split)
        for image in dataset.images
        if image.split != "train" or image.path in few
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "label", "split"), *rows])
    return {split: sum(row[2] == split for row in rows) for split in ("train", "validation", "test")}


def _render(ink_hw: npt.NDArray[np.float64], rng: np.random.Generator) -> Image.Image:
    side = int(np.exp(rng.uniform(*np.log(SIDES_PX))))
    paper, pen = rng.integers(200, 256, 3), rng.integers(0, 80, 3)
    mask = Image.fromarray((ink_hw * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    width, height = side, side
    if rng.random() < 1 / 3:
        width, height = (min(int(s * rng.uniform(1.0, 1.6)), SIDES_PX[1]) for s in (side, side))
    canvas = Image.new("RGB", (width, height), tuple(int(v) for v in paper))
    ink = Image.new("RGB", (side, side), tuple(int(v) for v in pen))
    canvas.paste(ink, ((width - side) // 2, (height - side) // 2), mask)
    return canvas
