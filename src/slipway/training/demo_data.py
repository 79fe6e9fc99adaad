"""The demo's images: scikit-learn's 1,797 scanned digits as JPEG and PNG files of mixed sizes in class folders."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits
from tqdm import tqdm

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
