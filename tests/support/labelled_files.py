"""Small data sets for tests: tiny images that differ, in folders or in a table."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from slipway.contract.spec import Data
from tests.support.image_files import encode

PNG = encode(Image.new("RGB", (2, 2)), "PNG")


def unique(number: int) -> bytes:
    """A small image like no other: what follows a PNG's end is passed over."""
    return PNG + number.to_bytes(4, "big")


def write_images(root: Path, count: int) -> list[str]:
    """`root/0000.png` and so on; returns the paths below `root`."""
    root.mkdir(parents=True)
    names = [f"{number:04d}.png" for number in range(count)]
    for number, name in enumerate(names):
        (root / name).write_bytes(unique(number))
    return names


def write_table(path: Path, rows: Iterable[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def data(root: Path, **options: Any) -> Data:
    return Data.parse({"root": str(root), **options}, source="test")
