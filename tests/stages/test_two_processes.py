"""Two processes of torchrun end where one ends with the same batches."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file

from slipway.contract import Spec
from slipway.training import train
from tests.support.image_files import encode

ROOT = Path(__file__).parents[2]
SPEC: dict[str, Any] = {
    "name": "stripes",
    "data": {"root": "images", "validation_fraction": 0.2, "test_fraction": 0.2},
    "preprocess": {"input_height": 32, "input_width": 32},
    "backbone": {"name": "test_convnext", "pretrained": False},  # without BatchNorm, whose figures are each process's
    "recipe": {
        "epochs": 2,
        "batch_size": 12,
        "learning_rate": 0.01,
        "warmup_epochs": 0,
        "augment": {"resize": "serving", "horizontal_flip": False},  # draws differ from process to process
    },
    "compute": {"accelerator": "cpu"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 40 images: 48 to train on, 16 and 16 held out; what one process makes of them in `one`."""
    folder = tmp_path_factory.mktemp("two")
    rng = np.random.default_rng(0)
    for label in ("across", "down"):
        (folder / "images" / label).mkdir(parents=True)
        for number in range(40):
            stripes = np.tile(np.sin(np.arange(32) * rng.uniform(0.5, 1.5)) * 60, (32, 1))
            pixels = (stripes if label == "down" else stripes.T) + rng.normal(128, 20, (32, 32))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB")
            (folder / "images" / label / f"{number}.png").write_bytes(encode(image, "PNG"))
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    before = Path.cwd()
    os.chdir(folder)
    try:
        train(Spec.read(folder / "spec.yaml"), folder / "one")
    finally:
        os.chdir(before)
    return folder


def history(checkpoint: Path) -> list[dict[str, float]]:
    return json.loads((checkpoint / "history.json").read_text())


@pytest.mark.nightly
def test_two_processes_end_with_the_loss_and_the_weights_of_one(folder: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, str(ROOT / "training/train.py"), "spec.yaml", "--out", "two"]
    options = {"cwd": folder, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    done = subprocess.run(command, **options, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for said in (" trained in ", ": training all"):
        assert done.stdout.count(said) == 1, "the first process alone reports"

    one, two = history(folder / "one"), history(folder / "two")
    assert len(one) == len(two) == 2
    for alone, shared in zip(one, two, strict=True):
        for name in ("train_loss", "val_loss", "val_top1", "val_macro_f1"):
            assert shared[name] == pytest.approx(alone[name], abs=2e-4), name
    weights = load_file(folder / "one/model.safetensors")
    for name, tensor in load_file(folder / "two/model.safetensors").items():
        np.testing.assert_allclose(tensor, weights[name], atol=2e-3, err_msg=name)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")], "nothing half-written is left"


def test_torchrun_with_another_number_than_the_spec_says_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    with pytest.raises(Exception, match=r"compute\.devices: 2 given, but torchrun started 3"):
        train(Spec.parse({**SPEC, "compute": {"devices": 2}}, source="test"), folder / "three")
    assert not (folder / "three").exists()
