"""Writes the demo's images: scikit-learn's 1,797 scanned digits as JPEG and PNG files of mixed sizes, alone or on
pages."""

import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

from slipway.contract import DataError, Manifest
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.system.files import complete_folder
from slipway.system.targets import MARKERS, check_file, write_file

SIDES_PX = (48, 512)
HEADER = ("path", "label", "split")
MINORITY = (1, 3, 5, 7, 9)
"""Digits that become rare in an imbalanced data set."""
PAGE_SIDES_PX = (96, 256)
MOST_DIGITS = 3
Rng = np.random.Generator
Ink = npt.NDArray[np.float64]


def write_digits(out: Path, *, seed: int) -> int:
    """Write the digits to `out/<digit>/`, each once, as RGB; returns the number of images.

    Sides are 48 to 512 px, a third of the images are not square (the scan is then padded, not stretched), paper and
    ink vary a little in tone, and two thirds are JPEG.
    """
    digits = load_digits()
    rows = [(index, str(digit)) for index, digit in enumerate(digits.target)]
    return _write(out, rows, digits.images, seed=seed)


def write_imbalanced_digits(out: Path, *, imbalance: int, seed: int) -> int:
    """Write `out/<split>/<digit>/` so that in train the digits of `MINORITY` have 1/`imbalance` of the others' images.

    Test gets 30 % and validation 20 % of every digit, so the evaluation stays balanced. Train keeps the first images
    of a `MINORITY` digit in a seeded order, at least one; the others are left out.
    """
    return _write(out, imbalanced_rows(imbalance=imbalance, seed=seed), load_digits().images, seed=seed)


def imbalanced_rows(*, imbalance: int, seed: int) -> list[tuple[int, str]]:
    """Return the index of each scan that is kept, with its folder `<split>/<digit>`."""
    digits = load_digits()
    rows = np.arange(len(digits.target))
    held: dict[str, npt.NDArray[np.int64]] = {}
    rest, held["test"] = train_test_split(rows, test_size=0.3, stratify=digits.target, random_state=seed)
    train, held["validation"] = train_test_split(
        rest, test_size=0.2 / 0.7, stratify=digits.target[rest], random_state=seed
    )
    few = max(round(float(np.bincount(digits.target[train]).max()) / imbalance), 1)
    seen = Counter[int]()
    kept = []
    for row in train.tolist():
        digit = int(digits.target[row])
        seen[digit] += 1
        if digit not in MINORITY or seen[digit] <= few:
            kept.append(row)
    held["train"] = np.array(kept)
    return [
        (row, f"{split}/{digits.target[row]}") for split, members in held.items() for row in sorted(members.tolist())
    ]


def _write(out: Path, rows: list[tuple[int, str]], scans: Ink, *, seed: int) -> int:
    """Write each pair of a scan's index and its folder as a file below `out`."""
    rng = np.random.default_rng(seed)
    with complete_folder(out, kind="digits") as staging:
        (staging / MARKERS["digits"]).touch()
        for index, name in tqdm(rows, desc="writing digits", unit="image", leave=False, disable=None):
            folder = staging / name
            folder.mkdir(parents=True, exist_ok=True)
            _save(_render(scans[index] / 16.0, rng), folder / f"{index:04d}", index, rng)
    return len(rows)


def write_parity(checkpoint: Path, out: Path, *, images_per_digit: int, seed: int) -> dict[str, int]:
    """Write a CSV file of the digits of `checkpoint` with the labels `even` and `odd`; returns the rows of each split.

    The splits are the checkpoint's, so its backbone has seen no image of the new test split. `images_per_digit` images
    of each digit are drawn from the train split.

    Raises:
        ManifestError: `checkpoint` is not a complete checkpoint.
        DataError: the checkpoint's labels are not digits, or a digit has too few train images.
    """
    check_file(out, mark=",".join(HEADER), what="a table with these columns")
    Manifest.open(checkpoint, kind="checkpoint")
    dataset = Dataset.read(checkpoint / DATASET)
    if not all(label.isdecimal() for label in dataset.labels):
        raise DataError(f"{checkpoint}: the labels are {', '.join(dataset.labels[:5])} …; give the digits' checkpoint")
    rng, train, few = np.random.default_rng(seed), dataset.of("train"), set()
    for class_id, label in enumerate(dataset.labels):
        paths = sorted(image.path for image in train if image.class_id == class_id)
        if len(paths) < images_per_digit:
            raise DataError(f"{checkpoint}: {len(paths)} train images of {label}, but {images_per_digit} asked for")
        few.update(rng.choice(paths, images_per_digit, replace=False).tolist())
    rows = [
        (image.path, ("even", "odd")[int(dataset.labels[image.class_id]) % 2], image.split)
        for image in dataset.images
        if image.split != "train" or image.path in few
    ]
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([HEADER, *rows])
    write_file(out, table.getvalue())
    return {split: sum(row[2] == split for row in rows) for split in ("train", "validation", "test")}


def _save(image: Image.Image, path: Path, index: int, rng: Rng) -> Path:
    """Save two thirds of the images as JPEG, the others as PNG."""
    if index % 3:
        image.save(path.with_suffix(".jpg"), quality=int(rng.integers(75, 96)))
        return path.with_suffix(".jpg")
    image.save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def _render(ink_hw: Ink, rng: Rng) -> Image.Image:
    side = int(np.exp(rng.uniform(*np.log(SIDES_PX))))
    paper, pen = _tones(rng)
    mask = _mask(ink_hw, side)
    width, height = side, side
    if rng.random() < 1 / 3:
        width, height = (min(int(s * rng.uniform(1.0, 1.6)), SIDES_PX[1]) for s in (side, side))
    canvas = Image.new("RGB", (width, height), paper)
    ink = Image.new("RGB", (side, side), pen)
    canvas.paste(ink, ((width - side) // 2, (height - side) // 2), mask)
    return canvas


def _tones(rng: Rng) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draw the tones of paper and pen."""
    paper, pen = rng.integers(200, 256, 3), rng.integers(0, 80, 3)
    return tuple(int(v) for v in paper), tuple(int(v) for v in pen)


def _mask(ink_hw: Ink, side: int) -> Image.Image:
    return Image.fromarray((ink_hw * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)


def write_pages(out: Path, *, pages: int, seed: int) -> int:
    """Write square pages of one to three digits to `out/images/`, and `out/pages.csv` with the labels; returns `pages`.

    A digit takes one of the four quarters of its page, each at most once, with some play in size and place. The table
    gives the splits, and no scan is on pages of two splits: 60 % of the scans make the train pages, 15 % the validation
    pages and 25 % the test pages.
    """
    digits = load_digits()
    rng = np.random.default_rng(seed)
    scans = rng.permutation(len(digits.target))
    cuts = np.array([0.6, 0.75, 1.0])
    splits = ("train", "validation", "test")
    pools = dict(zip(splits, np.split(scans, (cuts[:-1] * len(scans)).astype(int)), strict=True))
    with complete_folder(out, kind="pages") as staging:
        (staging / MARKERS["pages"]).touch()
        (staging / "images").mkdir()
        table = [("path", "labels", "split")]
        for index in tqdm(range(pages), desc="writing pages", unit="image", leave=False, disable=None):
            split = splits[int(np.searchsorted(cuts, (index + 0.5) / pages))]
            chosen = rng.choice(pools[split], int(rng.integers(1, MOST_DIGITS + 1)), replace=False)
            page = _page([digits.images[row] / 16.0 for row in chosen], rng)
            path = _save(page, staging / "images" / f"{index:04d}", index, rng)
            labels = sorted({str(digits.target[row]) for row in chosen})
            table.append((f"images/{path.name}", "|".join(labels), split))
        with (staging / "pages.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(table)
    return pages


def _page(inks: list[Ink], rng: Rng) -> Image.Image:
    side = int(rng.integers(*PAGE_SIDES_PX))
    paper, pen = _tones(rng)
    canvas = Image.new("RGB", (side, side), paper)
    for quarter, ink_hw in zip(rng.permutation(4), inks, strict=False):
        height = int(side * rng.uniform(0.36, 0.48))
        x, y = (int(rng.integers(0, side // 2 - height + 1)) for _ in range(2))
        corner = (x + side // 2 * (int(quarter) % 2), y + side // 2 * (int(quarter) // 2))
        canvas.paste(Image.new("RGB", (height, height), pen), corner, _mask(ink_hw, height))
    return canvas
