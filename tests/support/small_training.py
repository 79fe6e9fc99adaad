"""Trainings of a second: three digits at 32 pixels, one thread, from a weights file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from slipway.contract import Spec
from slipway.contract.spec import Backbone
from slipway.training.learn.network import Network

DIGITS = (0, 1, 2)
BASE_SIDE = 32


def write_digits(root: Path, *, each: int = 24) -> Path:
    """`each` scans of three digits as PNG files, in class folders."""
    scans = load_digits()
    for digit in DIGITS:
        (root / str(digit)).mkdir(parents=True)
        for number in np.flatnonzero(scans.target == digit)[:each]:
            grey = Image.fromarray((255 - scans.images[number] * 15).astype(np.uint8)).resize((32, 32))
            grey.convert("RGB").save(root / str(digit) / f"{number}.png")
    return root


def write_weights(path: Path, *, classes: int = 5, seed: int = 7) -> Path:
    """A timm state dict of resnet10t with a head of `classes`."""
    torch.manual_seed(seed)
    network = Network(
        Backbone(name="resnet10t", pretrained=False), classes=classes, pretrained=False, input_size=(32, 32)
    )
    save_file(network.backbone.state_dict(), path)
    return path


def make_spec(data: Path, *, weights: Path | None = None, **recipe: Any) -> Spec:
    backbone = {"pretrained": False} if weights is None else {"weights": str(weights)}
    return Spec.parse(
        {
            "name": "three",
            "data": {"root": str(data)},
            "preprocess": {"input_height": 32, "input_width": 32, "pad_value": 255},
            "backbone": {"name": "resnet10t", **backbone},
            "tracking": {"logger": "none"},
            "recipe": {"epochs": 3, "batch_size": 8, "warmup_epochs": 1, "learning_rate": 0.003, **recipe},
        },
        source="test",
    )


def base_text(**changes: Any) -> dict[str, Any]:
    """The spec of a base of `weights.safetensors` and `images` in its folder."""
    return {
        "name": "tiny",
        "backbone": {"name": "resnet10t", "weights": "weights.safetensors"},
        "images": "images",
        "preprocess": {"input_height": BASE_SIDE, "input_width": BASE_SIDE, "pad_value": 255},
        "calibration": {"images": 30},
        "embedding": {"images": 30, "min_cosine": 0.8},
        **changes,
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """As `OMP_NUM_THREADS=1`: two threads on a busy machine wait for each other more than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and `weights.safetensors`."""
    folder = tmp_path_factory.mktemp("small")
    write_digits(folder / "data")
    write_weights(folder / "weights.safetensors")
    return folder
