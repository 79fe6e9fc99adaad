"""Where the weights of a base come from: the model hub, or a checkpoint that was trained here."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml
from huggingface_hub import constants as hub
from openvino import Core
from safetensors.torch import load_file

from slipway.contract.base_bundle import Base, BaseEngine, BaseSpec
from slipway.system.files import sha256_file
from slipway.training import export, train
from slipway.training.bundle.base import write_base
from tests.support import small_training as fixtures
from tests.support.scripts import refused, run_here
from tests.support.small_training import base_text, make_spec, write_digits, write_weights

single_thread = fixtures.single_thread
FROM_HUB = {"name": "resnet10t", "pretrained": True}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder, with `images` and `weights.safetensors`."""
    monkeypatch.chdir(tmp_path)
    write_digits(tmp_path / "images")
    write_weights(tmp_path / "weights.safetensors")
    return tmp_path


def test_pretrained_weights_are_those_that_timm_gives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights file plays the hub, so the base is that of the file."""
    of_file = write_base(BaseSpec.parse(base_text(), source="test"), folder / "of_file")
    create = timm.create_model

    def pretrained_model(name: str, *, pretrained: bool, num_classes: int) -> Any:
        assert pretrained
        model = create(name, pretrained=False, num_classes=num_classes)
        weights = {key: tensor for key, tensor in load_file("weights.safetensors").items() if not key.startswith("fc.")}
        assert set(model.load_state_dict(weights, strict=False).missing_keys) == {"fc.weight", "fc.bias"}
        return model

    monkeypatch.setattr("slipway.training.learn.network._check_hub", lambda *_: None)
    monkeypatch.setattr(timm, "create_model", pretrained_model)
    manifest = write_base(BaseSpec.parse(base_text(backbone=FROM_HUB), source="test"), folder / "of_hub")
    assert manifest.bundle == of_file.bundle
    assert manifest.measured["origin"] == "timm's own"
    assert manifest.inputs == {}


def test_without_the_model_hub_no_base_is_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    Path("tiny.yaml").write_text(yaml.safe_dump(base_text(backbone=FROM_HUB)))
    said = refused("base", "tiny.yaml", cwd=folder)
    assert "backbone.pretrained: the weights of resnet10t cannot be loaded: " in said
    assert "name the safetensors file as backbone.weights" in said
    assert not Path("runs").exists()


def test_a_base_of_a_trained_checkpoint_in_bf16_takes_the_classifier_s_head(folder: Path) -> None:
    whole, weights = Path("runs/three"), Path("runs/three/checkpoint/model.safetensors")
    spec = make_spec(Path("images"), weights=Path("weights.safetensors"), epochs=2)
    calibration = spec.calibration.model_copy(update={"images": 20})
    train(spec.model_copy(update={"calibration": calibration}), whole / "checkpoint")
    export(whole / "checkpoint", whole / "bundle")
    backbone = {"name": "resnet10t", "weights": str(weights)}
    Path("tiny.yaml").write_text(yaml.safe_dump(base_text(backbone=backbone, precisions=["bf16", "fp32"])))
    done = run_here("base", "tiny.yaml", "--json", cwd=folder)
    base = Base.open(Path("runs/tiny/base"))
    assert base.manifest.inputs == {"weights": sha256_file(weights)}
    engines = json.loads(done.stdout.splitlines()[-1])["engines"]
    if "BF16" in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert engines["bf16"]["verdict"] == "pass"
        assert 0.99 < engines["bf16"]["mean_cosine"] < 1
        assert BaseEngine.open(Path("runs/tiny/engines/openvino-bf16"), base=base).settings.arithmetic == "bf16"
    else:
        assert set(engines) == {"fp32"}
        assert "leave bf16 out of the spec's precisions" in done.stdout
    head = run_here("head", whole, "--base", "runs/tiny", "--out", "heads/three", cwd=folder, check=False)
    assert "against the whole classifier: same labels" in head.stdout  # its gate has too few images to tell
