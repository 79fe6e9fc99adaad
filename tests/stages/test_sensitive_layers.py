"""The demo's digits with two channels three hundred times too large: the same function, and plain INT8 fails on it."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from slipway.contract import Bundle, Manifest
from slipway.contract.evidence.build import SensitivitySearch
from slipway.evaluation.calibration_pixels import CalibrationSample
from slipway.steps.engine_openvino import Engine
from tests.support.scripts import refused, run_here
from tests.support.unequal_channels import copy_bundle, enlarge_channel

FACTOR = 300
RUN = Path("runs/digits")


@pytest.fixture(scope="module")
def before(digits: Path) -> Bundle:
    return Bundle.open(digits / RUN / "bundle")


@pytest.fixture(scope="module")
def suffering(before: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, set[str]]:
    """The bundle with unequal channels in the stem, and the layers that read them."""
    graph = onnx.load(before.path / "model.onnx")
    names = {node.input[1]: node.name for node in graph.graph.node if node.op_type == "Conv"}
    layers = {enlarge_channel(graph, names[f"backbone.conv1.{index}.weight"], factor=FACTOR) for index in (0, 3)}
    folder = tmp_path_factory.mktemp("unequal") / "bundle"
    return copy_bundle(before.path, folder, model=graph, spec={"calibration": {"method": "max"}}), layers


@pytest.fixture(scope="module")
def int8(digits: Path, suffering: tuple[Bundle, set[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int8") / "graph"
    run_here("quantize", suffering[0].path, "--out", out, cwd=digits)
    return out


def test_in_fp32_the_unequal_channels_change_nothing(before: Bundle, suffering: tuple[Bundle, set[str]]) -> None:
    pixels_nchw = CalibrationSample(before).stacked(images=32, what="")
    expected, found = (
        Engine(bundle.path / "model.onnx", arithmetic="f32", threads=1).run(pixels_nchw)[0]
        for bundle in (before, suffering[0])
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert before.id != suffering[0].id


def test_plain_int8_fails_on_validation_and_keeping_the_two_layers_brings_fp32s_answers_back(
    int8: Path, suffering: tuple[Bundle, set[str]]
) -> None:
    bundle, layers = suffering
    search = SensitivitySearch.read(int8 / "search.json")
    plain, *_, last = search.steps
    assert (plain.kept_fp16, plain.accepted, plain.validation.verdict) == ((), False, "fail")
    assert plain.validation.loss_points > 30
    assert set(last.kept_fp16) == layers
    assert last.accepted
    assert last.validation.loss_points <= bundle.spec.accuracy.max_loss_points
    assert [len(step.kept_fp16) for step in search.steps] == [0, 1, 2]
    measured = Manifest.open(int8, kind="graph").measured
    assert measured["int8_layers"] == plain.int8_layers - 2


def test_the_ranking_names_exactly_the_layers_that_read_an_unequal_channel_first(
    int8: Path, suffering: tuple[Bundle, set[str]]
) -> None:
    ranking = SensitivitySearch.read(int8 / "search.json").ranking
    assert {entry.layer for entry in ranking[:2]} == suffering[1]
    assert ranking[2].error < 0.01 * ranking[1].error


@pytest.mark.nightly
def test_without_enough_steps_the_script_says_what_was_tried_and_leaves_its_steps_alone(
    digits: Path, suffering: tuple[Bundle, set[str]], tmp_path: Path
) -> None:
    one = copy_bundle(suffering[0].path, tmp_path / "bundle", spec={"sensitive_layers": {"max_steps": 1, "images": 16}})
    said = refused("quantize", one.path, "--out", tmp_path / "int8", cwd=digits)
    assert "INT8 loses more than 1.5 points on the validation split, or flips more than 5 (0 in FP16: +" in said
    assert "; 1 in FP16: +" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "int8-search.json"]
    assert len(SensitivitySearch.read(tmp_path / "int8-search.json").steps) == 2


def test_quantize_prints_every_step_and_its_last_line_is_json(digits: Path, before: Bundle) -> None:
    said = (digits / "said.txt").read_text()
    assert "15 convolutions and matrix products, 14 in INT8 (93%), 1 in FP16 (7%); opset 19" in said
    assert "not INT8: " in said
    assert "validation, plain INT8: " in said
    (line,) = [line for line in said.splitlines() if line.startswith("{")]
    measured = json.loads(line)
    assert (measured["int8_layers"], measured["layers"], measured["calibration_images"]) == (14, 15, 500)
    sizes = [path.stat().st_size for path in (digits / RUN / "graphs/int8/model.onnx", before.path / "model.onnx")]
    assert sizes[0] < 0.55 * sizes[1]
