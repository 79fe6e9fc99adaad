"""A run with a real bundle of the network of `colours`, and the images that it was made from."""

import json
import shutil
from pathlib import Path
from typing import Any

from slipway.contract import Bundle, Spec
from slipway.contract.evidence.build import NetworkOrigin
from slipway.training.bundle.write import write_bundle
from slipway.training.data.dataset import scan
from tests.support.colour_training import write_colours
from tests.support.colours import COLOURS

COLOUR = {"blue": (0, 0, 200), "green": (0, 160, 0), "red": (220, 0, 0)}


def coloured_run(folder: Path, *, images: int, **spec: Any) -> Bundle:
    """`folder/runs/colours/bundle`, of so many images of each class in `folder/data`; `spec` replaces keys."""
    write_colours(folder / "data", each=images, colours=COLOUR)
    text = json.loads((COLOURS / "bundle/spec.json").read_text())
    checked = Spec.parse(text | {"data": {"root": str(folder / "data")}} | spec, source="test")
    write_bundle(
        folder / "runs/colours/bundle",
        spec=checked,
        dataset=scan(checked.data),
        write_graph=_copy_graph,
        reference=None,
        inputs={},
        libraries=(),
        origin=NetworkOrigin(origin="test"),
    )
    return Bundle.open(folder / "runs/colours/bundle")


def _copy_graph(path: Path) -> None:
    shutil.copyfile(COLOURS / "bundle/model.onnx", path)
