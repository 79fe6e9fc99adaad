"""The seeds' own case on a real Triton: EfficientNet-B4 at 380 px, 100 requests/s, P99 under 50 ms."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADDRESS, MODEL = "SLIPWAY_GPU_TRITON", "SLIPWAY_GPU_MODEL"
HOW = (
    f"{ADDRESS} is not set. Serve the gpu lane of an efficientnet_b4 at 380 px (build/container.py serve), then: "
    f"{ADDRESS}=host:8001 {MODEL}=efficientnet_b4 python -m pytest tests/gpu/test_latency.py"
)
RESULT = ROOT / "benchmarks/results/gpu-efficientnet_b4-380.json"


@pytest.fixture(scope="session")
def needs_triton() -> str:
    """Triton's gRPC address; it may be on another machine."""
    address = os.environ.get(ADDRESS)
    if not address:
        pytest.skip(HOW)
    return address


def test_efficientnet_b4_answers_100_requests_a_second_within_50_ms(
    needs_triton: str, photographs: Callable[[int], list[bytes]], tmp_path: Path
) -> None:
    images, output = tmp_path / "images", tmp_path / "result.json"
    images.mkdir()
    for index, encoded in enumerate(photographs(256)):
        (images / f"{index:03d}.jpg").write_bytes(encoded)
    command = [sys.executable, str(ROOT / "benchmarks/gate.py"), os.environ.get(MODEL, "efficientnet_b4")]
    command += ["--url", needs_triton, "--images", str(images), "--rate", "100", "--limit-ms", "50"]
    command += ["--requests-per-block", "3000", "--out", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert output.is_file(), done.stderr[-2000:]
    shutil.copyfile(output, RESULT)
    result = json.loads(output.read_text())
    assert result["verdict"] == "pass", result["reason"]
