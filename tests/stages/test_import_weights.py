"""An import takes the right weights alone, and opens no pickle."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from slipway.contract import Bundle, SpecError
from slipway.contract.bundle import CalibrationList
from slipway.system.files import sha256_file
from slipway.training import complete_spec, import_timm
from tests.support.damage import Payload
from tests.support.imports import BACKBONE, script, spec, write_images, written


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state dict of `BACKBONE` for 32 px and three classes, at random."""
    torch.manual_seed(0)
    model = timm.create_model(BACKBONE, num_classes=3, img_size=(32, 32))
    path = tmp_path_factory.mktemp("weights") / "team.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    return script(monkeypatch, tmp_path)


def test_timm_weights_become_a_bundle_and_labels_give_the_order(images: Path, weights: Path, tmp_path: Path) -> None:
    checked, _ = complete_spec(written(tmp_path, spec(images)), onnx=None, labels_given=True)
    manifest = import_timm(checked, weights, tmp_path / "bundle", labels=("red", "green", "blue"))
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.labels == ("red", "green", "blue")
    assert bundle.spec == checked
    assert len(CalibrationList.load(bundle.path)) == 12
    assert manifest.inputs == {"team.safetensors": sha256_file(weights)}
    assert manifest.measured["origin"] == "import timm"
    assert manifest.measured["max_logit_difference"] < 1e-3
    dataset = json.loads((bundle.path / "dataset.json").read_text())
    assert {image["path"].split("/")[0]: image["class_ids"] for image in dataset["images"]} == {
        "red": [0],
        "green": [1],
        "blue": [2],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("norm.weight"), r"\n  missing: norm.weight\n"),
        (lambda state: state.update({"teacher.x": torch.zeros(1)}), r"\n  unexpected: teacher.x\n"),
        (
            lambda state: state.update({"head.weight": torch.zeros(1000, 64)}),
            r"\n  of another shape: head.weight \[1000, 64\] instead of \[3, 64\]\n",
        ),
        (
            lambda state: [state.update({f"model.{name}": state.pop(name)}) for name in list(state)],
            r"missing: .*, \d+ more\n  unexpected: model\..*, \d+ more\n.* without a prefix",
        ),
        (
            lambda state: state["norm.weight"].fill_(float("nan")),
            r"team.safetensors: NaN or infinity in norm.weight; give a checkpoint",
        ),
    ],
    ids=["missing", "unexpected", "shape", "prefix", "NaN"],
)
def test_weights_that_do_not_fit_are_named(
    change: Callable[[dict[str, torch.Tensor]], object], message: str, images: Path, tmp_path: Path
) -> None:
    state = dict(timm.create_model(BACKBONE, num_classes=3, img_size=(32, 32)).state_dict())
    change(state)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "team.safetensors")
    checked, _ = complete_spec(written(tmp_path, spec(images)), onnx=None, labels_given=True)
    with pytest.raises(SpecError, match=message):
        import_timm(checked, tmp_path / "team.safetensors", tmp_path / "bundle", labels=None)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", ["team.pt", "team.pth", "team.bin", "team.ckpt", "team.safetensors"])
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_is_refused_with_the_remedy_and_never_opened(
    name: str, how: str, images: Path, call: Callable[..., Any], tmp_path: Path
) -> None:
    payload = {"weight": torch.zeros(1), "hidden": Payload(tmp_path / "trace")}
    if how == "torch":
        torch.save(payload, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(payload))
    written(tmp_path, spec(images))
    message = call("spec.yaml", "--weights", name, "--labels-from-folders", "--out", "bundle")
    assert f"{name}: a pickle, which can run code when opened; convert it to safetensors" in message
    assert "weights_only=True" in message
    assert sorted(os.listdir(tmp_path)) == ["spec.yaml", name]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"", "not a safetensors file, or a truncated one"),
        (b"text", "not a safetensors file, or a truncated one"),
        (0.5, "not a safetensors file, or a truncated one"),
        (0.999, "not a safetensors file, or a truncated one"),
    ],
)
def test_a_file_that_is_no_whole_safetensors_is_refused(
    data: bytes | float | None, message: str, images: Path, weights: Path, tmp_path: Path
) -> None:
    if isinstance(data, float):
        data = weights.read_bytes()[: int(data * weights.stat().st_size)]
    if data is not None:
        (tmp_path / "cut.safetensors").write_bytes(data)
    checked, _ = complete_spec(written(tmp_path, spec(images)), onnx=None, labels_given=True)
    with pytest.raises(SpecError, match=rf"cut\.safetensors: {message}"):
        import_timm(checked, tmp_path / "cut.safetensors", tmp_path / "bundle", labels=None)
