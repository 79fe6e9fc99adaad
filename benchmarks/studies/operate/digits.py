"""Divides the images: some train the first classifier, and clients send others before and after the change."""

import csv
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from slipway.contract import SpecError

KNOWN, NEW = "012345678", "9"
"""Digits of the first data set, and the one that appears later."""
LEARNT, LIVE = 0.6, 0.5
"""Share of the known scans that are learnt from, and of the others that clients send before the turn."""
_DEGREES, _QUALITY = 8.0, (80, 95)


@dataclass(frozen=True)
class Scans:
    """Files of scanned digits by digit. No scan is in two of them."""

    learnt: dict[str, list[Path]]
    before: dict[str, list[Path]]
    """Scans that clients send until the new classifier is promoted."""
    after: dict[str, list[Path]]
    """Scans that clients send from then on. None of them is labelled or learnt."""


def divide(digits: Path, *, seed: int) -> Scans:
    """Divide the class folders that `slipway make-digits` wrote.

    Raises:
        SpecError: the folders are not there.
    """
    draw = random.Random(seed)
    scans = Scans({}, {}, {})
    for digit in KNOWN + NEW:
        paths = sorted((digits / digit).glob("*"))
        if not paths:
            raise SpecError(f"{digits / digit}: no images; remove {digits}, and run this again")
        draw.shuffle(paths)
        learnt = round(LEARNT * len(paths)) if digit in KNOWN else 0
        before = learnt + round(LIVE * (len(paths) - learnt))
        scans.learnt[digit], scans.before[digit], scans.after[digit] = (
            paths[:learnt],
            paths[learnt:before],
            paths[before:],
        )
    return scans


def photographed(path: Path, draw: random.Random) -> bytes:
    """Photograph a scan as a client would: turned by up to 8 degrees, and encoded as JPEG of quality 80 to 95."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
        corner = picture.getpixel((0, 0))
        picture = picture.rotate(draw.uniform(-_DEGREES, _DEGREES), Image.Resampling.BILINEAR, fillcolor=corner)
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=draw.randint(*_QUALITY))
    return encoded.getvalue()


def write_data(scans: Scans, folder: Path, *, seed: int) -> int:
    """Write class folders of the scans to learn from, photographed as clients do; returns the number of images."""
    draw = random.Random(seed)
    written = 0
    for digit, paths in scans.learnt.items():
        if paths:
            (folder / digit).mkdir(parents=True)
        for path in paths:
            (folder / digit / f"{path.stem}.jpg").write_bytes(photographed(path, draw))
            written += 1
    return written


def spoil_data(good: Path, table: Path) -> None:
    """Write the table of `good` with labels that a mistake has moved: each digit has the name of the next one."""
    labels = (good / "labels.txt").read_text(encoding="utf-8").split()
    moved = dict(zip(labels, labels[1:] + labels[:1], strict=True))
    with (good / "data.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows({**row, "label": moved[row["label"]]} for row in rows)


def shuffled(paths: dict[str, list[Path]], *, new_share: float, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield digits and images without end: the new digit with probability `new_share`, else a known one."""
    draw = random.Random(seed)
    while True:
        digit = NEW if draw.random() < new_share else draw.choice(KNOWN)
        yield digit, photographed(draw.choice(paths[digit]), draw)
