"""An import asks for what is missing by name, and resolves preprocess as timm does."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import PretrainedCfg

from slipway.contract import Spec, SpecError
from slipway.contract.spec import Backbone
from slipway.training import complete_spec
from slipway.training.bundle.importing import preprocess_of
from slipway.training.learn.network import Network
from tests.support.imports import BACKBONE, spec, write_images, written


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


def test_everything_that_is_missing_is_asked_for_at_once_and_by_name(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        complete_spec(written(tmp_path, "decision: {top_k: 3}"), onnx=None, labels_given=False)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/spec.yaml: an import also needs:")
    assert [line.split(":")[0].strip() for line in message.splitlines()[1:]] == [
        "labels",
        "name",
        "data.root",
        "backbone.name",
        "preprocess",
    ]
    for remedy in ("--labels FILE", "--labels-from-folders", "--preprocess-from-timm MODEL"):
        assert remedy in message


@pytest.mark.parametrize(
    ("changes", "labels_given", "onnx", "missing"),
    [
        ({}, False, None, ["labels"]),
        ({"name": None}, True, None, ["name"]),
        ({"data": None}, True, None, ["data.root"]),
        ({"data": {"seed": 1}}, True, None, ["data.root"]),
        ({"backbone": None}, True, None, ["backbone.name"]),
        ({"backbone": None, "preprocess": None}, True, Path("team.onnx"), ["preprocess"]),
        ({"backbone": {"name": "ours"}, "preprocess": None}, True, Path("team.onnx"), ["preprocess"]),
        ({"backbone": None, "preprocess": None}, False, None, ["labels", "backbone.name", "preprocess"]),
    ],
)
def test_what_is_missing_is_asked_for_by_name(
    changes: dict[str, Any], labels_given: bool, onnx: Path | None, missing: list[str], tmp_path: Path
) -> None:
    path = written(tmp_path, spec(tmp_path, **changes))
    with pytest.raises(SpecError) as error:
        complete_spec(path, onnx=onnx, labels_given=labels_given)
    assert [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]] == missing


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({"backbone": {"name": "resnet999"}}, {}, "backbone.name: timm has no 'resnet999'; similar names: "),
        ({"backbone": {"name": "resnet50.nobody"}}, {}, "resnet50.nobody: Invalid .* Write resnet50 alone, or one"),
        ({"recipes": {}}, {}, "recipes: unknown key; the valid keys here are accuracy, backbone"),
        ({"preprocess": {"input_width": 32}}, {}, "preprocess.input_height: required"),
        ({"data": 5}, {}, "data: keys with values are needed; given 5"),
        ({"task": "multilabel"}, {}, "task: multilabel cannot be evaluated on class folders; .* here is multiclass"),
        (
            {"preprocess": {"input_height": 32, "input_width": 32, "decoder": "mixed"}},
            {},
            "preprocess.decoder: mixed belongs to the gpu lane",
        ),
        ({}, {"preprocess_from": "resnet50"}, "both preprocess and --preprocess-from-timm are given; leave one out"),
        ({"preprocess": None}, {"preprocess_from": "resnet999"}, "timm has no 'resnet999'"),
        ("name: [pets\n", {}, "spec.yaml: not valid YAML"),
        ("", {}, "spec.yaml: .the whole file."),
    ],
)
def test_what_is_wrong_is_named(values: Any, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = written(tmp_path, values if isinstance(values, str) else spec(tmp_path, **values))
    with pytest.raises(SpecError, match=message):
        complete_spec(path, onnx=None, labels_given=True, **options)


def test_a_given_preprocess_is_kept_and_an_onnx_file_needs_no_backbone(tmp_path: Path) -> None:
    path = written(tmp_path, spec(tmp_path, backbone=None))
    found, origin = complete_spec(path, onnx=Path("models/team.onnx"), labels_given=True)
    assert origin is None
    assert found == Spec.parse(spec(tmp_path, backbone={"name": "team.onnx", "pretrained": False}), source="test")


@pytest.mark.parametrize("onnx", [None, Path("team.onnx")])
def test_a_preprocess_that_is_left_out_is_that_of_the_timm_backbone(onnx: Path | None, tmp_path: Path) -> None:
    path = written(tmp_path, spec(tmp_path, preprocess=None, backbone={"name": "vit_tiny_patch16_224"}))
    found, origin = complete_spec(path, onnx=onnx, labels_given=True)
    assert origin == "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    given = found.preprocess
    assert (given.input_height, given.input_width, given.resize, given.interpolation) == (224, 224, "crop", "cubic")
    assert given.mean == given.std == (0.5, 0.5, 0.5)
    assert 224 / given.crop_fraction == pytest.approx(248), "timm resizes to floor(224 / 0.9), not to 249"


def test_an_onnx_file_can_take_the_preprocess_of_any_timm_model(tmp_path: Path) -> None:
    path = written(tmp_path, spec(tmp_path, preprocess=None, backbone=None))
    found, origin = complete_spec(path, onnx=Path("x.onnx"), labels_given=True, preprocess_from="test_resnet")
    assert origin == "test_resnet.r160_in1k"
    assert (found.preprocess.input_height, found.preprocess.interpolation) == (160, "linear")
    assert found.backbone.name == "x.onnx"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"crop_mode": "squash"}, "trained with crop_mode squash, which distorts images; .* crop or pad"),
        ({"crop_mode": "border", "crop_pct": 0.9}, "crop_mode border with a crop"),
        ({"crop_mode": "border", "crop_pct": 1.0}, "a border that is not grey"),
        ({"interpolation": "lanczos"}, "interpolation lanczos; preprocess.interpolation is linear or cubic"),
        ({"crop_pct": 1.15}, "pretrained_cfg of .*: crop_fraction: Input should be less than or equal to 1"),
    ],
)
def test_a_preparation_that_preprocess_cannot_express_is_refused(
    config: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: PretrainedCfg(architecture=name, **config))
    with pytest.raises(SpecError, match=message):
        preprocess_of("resnet50")


def test_timm_s_border_becomes_a_pad_in_the_mean_s_grey(monkeypatch: pytest.MonkeyPatch) -> None:
    config = PretrainedCfg(architecture="x", crop_mode="border", crop_pct=1.0, mean=(0.5, 0.5, 0.5))
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda _: config)
    found, name = preprocess_of("resnet50")
    assert (found.resize, found.pad_value, found.crop_fraction, name) == ("pad", 128, 1.0, "x")


@pytest.mark.parametrize("name", [BACKBONE, "swin_s3_tiny_224"])
def test_a_backbone_of_a_fixed_input_is_built_for_the_size_of_the_spec(name: str) -> None:
    backbone = Backbone(name=name, pretrained=False)
    network = Network(backbone, classes=3, pretrained=False, input_size=(64, 32)).eval()
    with torch.inference_mode():
        logits_nc, embedding_nd = network(torch.zeros(2, 3, 64, 32))
    assert logits_nc.shape == (2, 3)
    assert embedding_nd.ndim == 2


def test_a_size_that_a_backbone_cannot_have_is_an_error_that_names_it() -> None:
    with pytest.raises(SpecError, match=r"preprocess: backbone nest_tiny cannot be built for 33x33 pixels .*change"):
        Network(Backbone(name="nest_tiny", pretrained=False), classes=3, pretrained=False, input_size=(33, 33))


def test_a_spec_that_leaves_the_network_to_training_is_imported_with_the_network_that_is_given(tmp_path: Path) -> None:
    path = written(tmp_path, spec(tmp_path, backbone="auto", recipe="auto"))
    found, _ = complete_spec(path, onnx=Path("models/team.onnx"), labels_given=True)
    assert (found.backbone.name, found.recipe.preset) == ("team.onnx", None)
