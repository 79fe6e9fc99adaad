"""Whatever head a timm model has: its own logits, one embedding an image, in torch and in its graph."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from benchmarks.studies.timm_models import __main__ as study
from slipway.contract import ExportError, Spec, SpecError
from slipway.contract.dataset import LabelledImage
from slipway.contract.recipe import HeadRecipe
from slipway.contract.spec import Backbone
from slipway.evaluation.predict import Predictions
from slipway.steps.engine_openvino import Engine
from slipway.training.bundle.export import check_against_timm, write_onnx
from slipway.training.bundle.write import compare_outputs
from slipway.training.learn.network import Network, memory_format
from slipway.training.learn.weights import fill_backbone
from tests.support import small_training as fixtures
from tests.support.small_training import make_spec

HEADS = {  # model: input side, size of the embedding, parameters of the head
    "resnet10t": (32, 512, 2),
    "dla46x_c": (64, 256, 2),  # a convolution
    "deit_tiny_distilled_patch16_224": (32, 2 * 192, 4),  # two tokens, a classifier each
    "levit_128s": (224, 384, 8),  # two classifiers with norms on the same features
    "crossvit_9_240": (240, 128 + 256, 4),  # a list of classifiers
    "volo_d1_224": (64, 384, 4),  # an auxiliary classifier on every patch
}


single_thread = fixtures.single_thread
SIDES = {
    "dla46x_c": 64,
    "dpn48b": 64,
    "resnetv2_50": 64,
    "deit_tiny_distilled_patch16_224": 64,
    "pit_ti_distilled_224": 64,
    "swiftformer_xs": 64,
    "volo_d1_224": 64,
    "levit_128s": 224,
    "efficientformerv2_s0": 224,
    "efficientvim_m1_dist": 224,
    "crossvit_9_240": 240,
}


def make_network(name: str, side: int, head: HeadRecipe | None = None, *, kind: type[Network] = Network) -> Network:
    torch.manual_seed(0)
    backbone = Backbone(name=name, pretrained=False)
    return kind(backbone, classes=3, pretrained=False, input_size=(side, side), head=head or HeadRecipe())


def spec_of(name: str, side: int) -> Spec:
    spec = make_spec(Path("images"))
    preprocess = spec.preprocess.model_copy(update={"input_height": side, "input_width": side})
    return spec.model_copy(update={"backbone": Backbone(name=name, pretrained=False), "preprocess": preprocess})


@pytest.mark.parametrize("name", HEADS)
def test_logits_are_timm_s_own_and_a_step_trains_the_whole_head(name: str) -> None:
    side, size, parameters = HEADS[name]
    network = make_network(name, side).eval()
    resized = {"img_size": side} if name in {"deit_tiny_distilled_patch16_224", "volo_d1_224"} else {}
    own = timm.create_model(name, num_classes=3, **resized).eval()
    own.load_state_dict(network.backbone.state_dict())
    pixels_nchw = torch.randn(2, 3, side, side)
    with torch.no_grad():
        (logits_nc, embedding_nd), expected_nc = network(pixels_nchw), own(pixels_nchw)
    assert expected_nc.abs().max() > 0
    assert torch.equal(logits_nc, expected_nc)
    assert embedding_nd.shape == (2, size)
    assert len(network.head_parameters()) == parameters
    torch.nn.functional.cross_entropy(network.train()(pixels_nchw)[0], torch.tensor([0, 2])).backward()
    assert all(parameter.grad is not None for parameter in network.head_parameters())


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("resnet10t", torch.channels_last),
        ("fastvit_t8", torch.contiguous_format),
        ("lambda_resnet26t", torch.contiguous_format),
    ],
)
def test_a_step_in_the_memory_format_of_training_has_the_gradients_of_any(
    name: str, order: torch.memory_format
) -> None:
    network = make_network(name, 64).train()
    assert memory_format(network) == order
    pixels_nchw, gradients = torch.randn(2, 3, 64, 64), []
    for fmt in (order, torch.contiguous_format):
        network.to(memory_format=fmt).zero_grad()
        torch.manual_seed(0)  # drop path
        logits_nc, _ = network(pixels_nchw.contiguous(memory_format=fmt))
        torch.nn.functional.cross_entropy(logits_nc, torch.tensor([0, 2])).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert torch.allclose(*gradients, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", ["efficientvit_m0", "shvit_s1"])
def test_an_mlp_takes_the_place_of_a_head_of_which_timm_names_a_part(name: str) -> None:
    network = make_network(name, 64, HeadRecipe(kind="mlp", units=8))
    assert len(network.head_parameters()) == 4


def test_the_embedding_of_two_classifiers_gives_the_mean_of_their_logits() -> None:
    network = make_network("deit_tiny_distilled_patch16_224", 32).eval()
    with torch.no_grad():
        logits_nc, embedding_nd = network(torch.randn(2, 3, 32, 32))
        first_nd, second_nd = embedding_nd.split(192, dim=1)
        model = network.backbone
        torch.testing.assert_close((model.head(first_nd) + model.head_dist(second_nd)) / 2, logits_nc)


def test_dropout_of_the_head_reaches_every_classifier_and_not_the_embedding() -> None:
    pixels_nchw = torch.randn(2, 3, 32, 32)
    network = make_network("deit_tiny_distilled_patch16_224", 32, HeadRecipe(dropout=0.9))
    (first_nc, first_nd), (second_nc, second_nd) = network(pixels_nchw), network(pixels_nchw)
    assert torch.equal(first_nd, second_nd)
    assert not torch.equal(first_nc, second_nc)


@pytest.mark.parametrize("name", ["dla46x_c", "deit_tiny_distilled_patch16_224"])
def test_an_mlp_stands_on_the_features_of_a_model_without_classifiers(name: str) -> None:
    side = HEADS[name][0]
    network = make_network(name, side, HeadRecipe(kind="mlp", units=8)).eval()
    logits_nc, embedding_nd = network(torch.randn(2, 3, side, side))
    assert torch.equal(network.head(embedding_nd), logits_nc)
    assert len(network.head_parameters()) == 4
    check_against_timm(network, spec_of(name, side), classes=3)


class Recomputed(Network):
    """Logits from the embedding by the first classifier alone, as if there were no other."""

    def forward(self, pixels_nchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        _, embedding_nd = super().forward(pixels_nchw)
        return self.backbone.head(embedding_nd[:, :192]), embedding_nd


def test_export_refuses_a_network_that_answers_otherwise_than_timm_s_model() -> None:
    name = "deit_tiny_distilled_patch16_224"
    check_against_timm(make_network(name, 32).eval(), spec_of(name, 32), classes=3)
    wrong = make_network(name, 32, kind=Recomputed).eval()
    with pytest.raises(ExportError, match=rf"{name}: logits differ from timm's own model .* by .* \(allowed"):
        check_against_timm(wrong, spec_of(name, 32), classes=3)


def test_export_refuses_a_graph_with_another_embedding() -> None:
    images = [LabelledImage(path="0.png", class_id=0, sha256="", split="test")]
    logits_nc, embedding_nd = np.ones((1, 3), np.float32), np.ones((1, 4), np.float32)
    other = Predictions(images, logits_nc, embedding_nd + 0.1)
    with pytest.raises(ExportError, match=r"embeddings by up to 0\.1 \(allowed: 0\.01\)"):
        compare_outputs(other, Predictions(images, logits_nc, embedding_nd))


def test_small_logits_are_compared_by_their_size() -> None:
    images = [LabelledImage(path=f"{n}.png", class_id=n, sha256="", split="test") for n in (0, 1)]
    logits_nc, embedding_nd = np.array([[1e-3, 0], [0, 1e-3]], np.float32), np.ones((2, 4), np.float32)
    reference = Predictions(images, logits_nc, embedding_nd)
    assert compare_outputs(Predictions(images, logits_nc * 1.001, embedding_nd), reference) < 1e-5
    with pytest.raises(ExportError, match=r"logits by up to 0\.001 \(allowed: 0 labels, 5e-05\)"):
        compare_outputs(Predictions(images, logits_nc * 2, embedding_nd), reference)


def test_a_size_that_a_model_refuses_is_an_error_whose_remedy_works() -> None:
    with pytest.raises(SpecError, match=r"backbone crossvit_9_240 cannot .* 96x96 .*timm's own are 240 and 240"):
        make_network("crossvit_9_240", 96)
    make_network("crossvit_9_240", 240)


def test_a_model_that_cannot_be_used_in_its_own_size_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Network, "forward", lambda *_: (torch.zeros(1, 49, 3), torch.zeros(1, 5)))
    with pytest.raises(SpecError, match=r"backbone\.name: resnet10t gives logits \[1, 49, 3\] .* choose another"):
        make_network("resnet10t", 32)


@pytest.mark.parametrize("head", [HeadRecipe(), HeadRecipe(kind="mlp", units=8)], ids=["linear", "mlp"])
def test_weights_with_another_number_of_classes_fill_a_backbone_with_two_heads(
    head: HeadRecipe, tmp_path: Path
) -> None:
    given = timm.create_model("levit_128s", num_classes=7).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in given.items()}, tmp_path / "weights.safetensors")
    network = make_network("levit_128s", 224, head)
    said = fill_backbone(network, tmp_path / "weights.safetensors")
    assert said.startswith("head at random: the file's head is 7x384 and 7x384, this one ")
    body = {name: tensor for name, tensor in network.backbone.state_dict().items() if not name.startswith("head")}
    assert all(torch.equal(tensor, given[name]) for name, tensor in body.items())


def ask(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> tuple[int, dict[str, dict[str, object]], str]:
    module, out, page = study, folder / "result.json", folder / "page.md"
    arguments = [*options, "--out", str(out), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", ["timm_models", *arguments])
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        code = module.main(module.parser().parse_args(arguments))
    finally:
        torch.use_deterministic_algorithms(deterministic)
    return code, json.loads(out.read_text())["models"], page.read_text()


def test_the_study_tries_models_and_goes_on_where_it_was_stopped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, models, page = ask(monkeypatch, tmp_path, "--only", "test_[rv]*", "--sample")
    assert code == 0
    assert {"test_resnet", "test_vit"} <= models.keys()
    assert all(row["usable"] and row["mlp"] for row in models.values())
    assert f"**{len(models)} of {len(models)}** models" in page
    assert "| resnet | 1 of 1 | ResNet | 96 | yes |" in page
    result = json.loads((tmp_path / "result.json").read_text())
    broken = {**models["test_vit"], "usable": False, "reason": "SpecError: no", "refused_by_name": True}
    result["models"]["test_vit"] = broken
    (tmp_path / "result.json").write_text(json.dumps(result))
    code, models, page = ask(monkeypatch, tmp_path, "--only", "test_[rv]*", "--sample")
    assert code == 1, "what was found is not tried again, and under 99 % can be used"
    assert "- `test_vit`: SpecError: no\n" in page


@pytest.mark.nightly
def test_nearly_every_timm_model_can_be_a_backbone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, models, _ = ask(monkeypatch, tmp_path)
    assert code == 0
    assert len(models) > 600
    assert all(row["usable"] or row["refused_by_name"] for row in models.values())


@pytest.mark.nightly
@pytest.mark.parametrize("name", SIDES)
def test_the_graph_gives_what_the_network_gives_and_a_network_that_was_asked_before_gives_the_same_graph(
    name: str, tmp_path: Path
) -> None:
    side = SIDES[name]
    torch.manual_seed(0)
    network = Network(Backbone(name=name, pretrained=False), classes=3, pretrained=False, input_size=(side, side))
    write_onnx(network, tmp_path / "model.onnx", input_shape=(3, side, side))
    pixels_nchw = np.random.default_rng(0).normal(size=(3, 3, side, side)).astype(np.float32)
    expected = network.eval().run(pixels_nchw)
    found = Engine(tmp_path / "model.onnx", arithmetic="f32", threads=1).run(pixels_nchw)
    for given, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(given, wanted, atol=1e-4 * np.abs(wanted).max())
    write_onnx(network, tmp_path / "again.onnx", input_shape=(3, side, side))
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()
