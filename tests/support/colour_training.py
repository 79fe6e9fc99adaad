"""A data set and a spec that train in seconds: two colours that any network tells apart."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from slipway.contract import Spec
from tests.support.image_files import encode

EACH = 20
Colours = dict[str, tuple[int, int, int]]
COLOURS: Colours = {"blue": (30, 60, 200), "red": (200, 40, 30)}


def write_colours(root: Path, *, each: int = EACH, seed: int = 0, colours: Colours = COLOURS) -> Path:
    """`root/blue` and `root/red`, or a folder for each of `colours`, with noise, so that no two files are equal."""
    rng = np.random.default_rng(seed)
    for label, colour in colours.items():
        (root / label).mkdir(parents=True)
        for number in range(each):
            pixels = np.clip(rng.normal(colour, 12, (24, 24, 3)), 0, 255).astype(np.uint8)
            (root / label / f"{number:02d}.png").write_bytes(encode(Image.fromarray(pixels), "PNG"))
    return root


def small_spec(root: Path, **changes: Any) -> Spec:
    values: dict[str, Any] = {
        "name": "colours",
        "data": {"root": str(root)},
        "preprocess": {"input_height": 32, "input_width": 32},
        "backbone": {"name": "resnet10t", "pretrained": False},
        "recipe": {"epochs": 2, "batch_size": 8, "warmup_epochs": 0, "learning_rate": 0.003},
    }
    for name, change in changes.items():
        values[name] = {**values.get(name, {}), **change} if isinstance(change, dict) else change
    return Spec.parse(values, source="test")
