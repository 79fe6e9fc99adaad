"""What imports are tried on: images in class folders, and the spec of a team."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from slipway.cli import import_bundle
from slipway.system.process import run
from tests.support.image_files import encode

ROOT = Path(__file__).parents[2]
COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}
BACKBONE = "test_vit"  # timm's own smallest transformer; its input is fixed at 160 px


def write_images(root: Path) -> Path:
    """20 images of one colour each in three class folders below `root`."""
    for label, colour in COLOURS.items():
        (root / label).mkdir()
        for number in range(20):
            shade = tuple(c + number for c in colour)
            (root / label / f"{number}.png").write_bytes(encode(Image.new("RGB", (20, 18 + number), shade), "PNG"))
    return root


def spec(images: Path, **changes: Any) -> dict[str, Any]:
    """A spec of 32 px; a change to None leaves the key out."""
    values = {
        "name": "colours",
        "data": {"root": str(images)},
        "preprocess": {"input_height": 32, "input_width": 32},
        "backbone": {"name": BACKBONE},
        "calibration": {"images": 12},
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


def written(folder: Path, values: Any) -> Path:
    (folder / "spec.yaml").write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return folder / "spec.yaml"


def script(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Callable[..., Any]:
    """`call("spec.yaml", …)` runs the script in `folder` and returns its exit code, or its last message."""
    monkeypatch.chdir(folder)

    def call(*arguments: Path | str) -> Any:
        monkeypatch.setattr(sys, "argv", ["import_bundle.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run(import_bundle.main, import_bundle.parser())
        return ended.value.code

    return call
