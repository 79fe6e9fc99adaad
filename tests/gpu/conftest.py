"""What the gpu tests need, and the reason with which they are skipped where it is missing.

Session fixtures, so that a test is skipped before anything is trained for it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slipway.contract import CompileError
from slipway.contract.evidence.origin import commit, versions
from slipway.engines.tensorrt_library import compute_capability, import_library, library_version
from tests.support.image_files import encode

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
Photographs = Callable[[int], list[bytes]]
WriteResult = Callable[[str, dict[str, Any]], Path]


@pytest.fixture(scope="session")
def needs_gpu() -> str:
    """The compute capability of the first GPU."""
    capability = compute_capability()
    if capability is None:
        pytest.skip("no NVIDIA GPU and driver on this machine (libcuda.so.1)")
    return capability


@pytest.fixture(scope="session")
def needs_tensorrt(needs_gpu: str) -> str:  # noqa: ARG001
    """The version of TensorRT."""
    try:
        return library_version(import_library("tensorrt"))
    except CompileError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def photographs() -> Photographs:
    """Real photographs (scikit-learn's two) as so many JPEGs: crops of mixed sizes, qualities and kinds."""
    from sklearn.datasets import load_sample_images

    scenes = [Image.fromarray(scene) for scene in load_sample_images().images]

    def make(count: int) -> list[bytes]:
        rng, encoded = np.random.default_rng(0), []
        for index in range(count):
            scene = scenes[index % len(scenes)]
            width, height = int(rng.integers(128, scene.width + 1)), int(rng.integers(128, scene.height + 1))
            left, top = int(rng.integers(scene.width - width + 1)), int(rng.integers(scene.height - height + 1))
            crop = scene.crop((left, top, left + width, top + height))
            scale = rng.uniform(0.5, 2)
            resized = crop.resize((round(scale * width), round(scale * height)), Image.Resampling.LANCZOS)
            options = {
                "quality": int(rng.integers(60, 98)),
                "subsampling": int(rng.choice([0, 2])),  # 4:4:4 or 4:2:0
                "progressive": bool(rng.integers(2)),
            }
            encoded.append(encode(resized, "JPEG", **options))
        return encoded

    return make


@pytest.fixture(scope="session")
def write_result(needs_gpu: str) -> WriteResult:
    """Write one JSON file to `benchmarks/results`, with the GPU, the versions and the commit that it was made with."""

    def write(name: str, result: dict[str, Any]) -> Path:
        import torch

        made_with = {
            "gpu": torch.cuda.get_device_name(0),
            "compute_capability": needs_gpu,
            "versions": versions(["torch", "nvidia-dali-cuda130", "openvino"]),
            "commit": commit(),
        }
        path = RESULTS / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**result, **made_with}, indent=2) + "\n", encoding="utf-8")
        return path

    return write
