"""Grad-CAM beside the worst mistakes: the layer, the formula, and what the page says where there is none."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from slipway.cli import evaluate
from slipway.contract import Bundle, ManifestError
from slipway.contract.evidence.evaluation import read_bundle_evaluation
from slipway.contract.spec import Backbone
from slipway.training import export, train
from slipway.training.bundle.grad_cam import Layer, attribute, find_layer, grad_cams
from slipway.training.learn.network import Network
from tests.support.colour_training import small_spec, write_colours
from tests.support.report_builds import Page
from tests.support.scripts import run_here


def network(name: str, side: int) -> Network:
    torch.manual_seed(0)
    backbone = Backbone(name=name, pretrained=False)
    return Network(backbone, classes=3, pretrained=False, input_size=(side, side)).eval()


@pytest.mark.parametrize(
    ("name", "side", "layer"),
    [
        ("resnet10t", 64, Layer("layer3", 4, 4)),  # the last stage has 2 by 2 places
        ("resnet10t", 128, Layer("layer4", 4, 4)),
        ("resnet10t", 32, Layer("layer2", 4, 4)),
        ("mobilenetv3_small_050", 128, Layer("blocks.5", 4, 4)),
        ("convnext_atto", 128, Layer("stages.3", 4, 4)),
        ("test_vit", 160, None),
    ],
)
def test_the_last_stage_with_enough_places_is_looked_at(name: str, side: int, layer: Layer | None) -> None:
    assert find_layer(network(name, side), input_size=(side, side)) == layer


def test_the_heat_is_that_of_the_paper() -> None:
    net, layer = network("resnet10t", 64), Layer("layer3", 4, 4)
    pixels_nchw = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    heats = [attribute(net, layer, pixels_nchw, target=target) for target in range(3)]
    kept: list[torch.Tensor] = []
    net.backbone.layer3.register_forward_hook(lambda _, __, output: kept.append(output) or output.retain_grad())
    bright = 0
    for target, heat_hw in enumerate(heats):
        net(torch.from_numpy(pixels_nchw).requires_grad_())[0][0, target].backward()
        maps = kept.pop()
        assert maps.grad is not None
        weighted = (maps.grad.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True).relu()
        expected = torch.nn.functional.interpolate(weighted, (64, 64), mode="bilinear")[0, 0].detach().numpy()
        most = expected.max()
        np.testing.assert_allclose(heat_hw, expected / most if most > 0 else 0 * expected, atol=1e-4)
        bright += bool(most > 0)
    assert bright


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`checkpoint` and `bundle` of data whose labels say nothing of the colours, so that any network makes mistakes."""
    folder = tmp_path_factory.mktemp("exported")
    data = write_colours(folder / "data")
    for blue in sorted((data / "blue").iterdir())[::2]:
        red = data / "red" / blue.name
        blue.rename(data / "kept")
        red.rename(blue)
        (data / "kept").rename(red)
    changes = {"recipe": {"epochs": 1}, "calibration": {"images": 8}}
    spec = small_spec(data, tracking={"logger": "none"}, **changes)
    train(spec, folder / "checkpoint")
    export(folder / "checkpoint", folder / "bundle")
    return folder


def test_the_page_shows_where_the_network_looked_for_the_answer_and_for_the_truth(exported: Path) -> None:
    done = run_here("evaluate", exported / "bundle", "--out", exported / "page.html", cwd=exported)
    assert "Grad-CAM at the stage layer2 (4 by 4 places)" in done.stdout
    page = Page((exported / "page.html").read_text(encoding="utf-8"))
    mistakes = json.loads((exported / "bundle/evaluation.json").read_text())["mistakes"]
    assert mistakes
    shown = [str(image["alt"]) for image in page.all("img")]
    assert shown == [
        text
        for m in mistakes
        for text in (m["image"], f"Grad-CAM of {m['label']}, the answer", f"Grad-CAM of {m['truth']}, the truth")
    ]
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in page.all("img"))


def test_another_checkpoint_is_refused_and_a_missing_one_is_said(exported: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(exported / "bundle")
    evaluation, looked = read_bundle_evaluation(bundle.path, task=bundle.decision.task), evaluate.looked
    spec = small_spec(exported / "data", recipe={"epochs": 1, "seed": 5}, tracking={"logger": "none"})
    train(spec, tmp_path / "other")
    with pytest.raises(ManifestError, match=r"not the checkpoint .* was exported from; give that one"):
        looked(bundle, evaluation, tmp_path / "other")
    with pytest.raises(ManifestError, match=r"none: no manifest.json here"):
        looked(bundle, evaluation, tmp_path / "none")
    (exported / "checkpoint").rename(exported / "elsewhere")
    try:
        assert "give the bundle's checkpoint with --checkpoint" in looked(bundle, evaluation, None).explained
        found = looked(bundle, evaluation, exported / "elsewhere")
        assert "by Grad-CAM at the stage layer2" in found.explained
        assert found.pictures
        (tmp_path / "other").rename(exported / "checkpoint")
        assert "not the checkpoint " in looked(bundle, evaluation, None).explained
        (exported / "checkpoint").rename(tmp_path / "other")
    finally:
        (exported / "elsewhere").rename(exported / "checkpoint")


def test_images_that_are_gone_are_left_out(exported: Path) -> None:
    found = grad_cams(Bundle.open(exported / "bundle"), exported / "checkpoint", [("no/such.png", ["red"])])
    assert found.layer is not None
    assert not found.pictures
