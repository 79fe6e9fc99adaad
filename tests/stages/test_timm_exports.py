"""A graph of each kind of timm head gives the logits and the embedding of its network."""

from pathlib import Path

import numpy as np
import pytest
import torch

from slipway.contract.spec import Backbone
from slipway.steps.engine_openvino import Engine
from slipway.training.bundle.export import write_onnx
from slipway.training.learn.network import Network

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
