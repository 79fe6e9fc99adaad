"""The matrix: its first third for real, and the page that is made of a result."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.studies.backbones.page import render
from tests.support.scripts import ROOT, run_study

BACKBONES = ("mobilenetv3_large_100", "efficientnet_b0", "resnet50")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("backbones")
    run_study("backbones", "--fast", "--work", folder, "--out", folder / "result.json", cwd=ROOT)
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.nightly
def test_a_backbone_goes_through_every_compiler(result: dict[str, Any], name: str) -> None:
    cells = result["compiled"][name]
    assert "ended" not in cells
    assert all("reason" not in cells[key] for key in ("fp16", "int8", "plan_fp32", "plan_fp16", "plan_int8"))
    assert cells["int8"]["int8_layers"] >= 0.95 * cells["int8"]["layers"]
    assert cells["plan_fp16"]["bytes"] < 0.6 * cells["plan_fp32"]["bytes"]
    assert cells["plan_int8"]["bytes"] < cells["plan_fp32"]["bytes"]
    assert cells["openvino"]["fp16"]["cosine"] > 0.999
    assert cells["openvino"]["int8"]["cosine"] > 0.5


@pytest.mark.nightly
def test_an_int8_plan_of_plain_convolutions_is_at_most_two_fifths_of_fp32(result: dict[str, Any]) -> None:
    cells = result["compiled"]["resnet50"]
    assert cells["plan_int8"]["bytes"] <= 0.4 * cells["plan_fp32"]["bytes"]


@pytest.mark.nightly
def test_parameters_and_operations_are_those_of_the_papers(result: dict[str, Any]) -> None:
    resnet50 = result["compiled"]["resnet50"]
    assert resnet50["parameters"] == 25_557_032
    assert resnet50["gflops"] == pytest.approx(4.1, abs=0.1)


def test_a_cell_that_could_not_be_made_points_to_its_reason() -> None:
    broken = {"input": 224, "parameters": 1e6, "gflops": 0.1, "int8": {"reason": "no | such layer"}, "ended": "boom"}
    text = render(
        {
            "compiled": {"net": broken},
            "trained": {},
            "machine": {"processor": "cpu", "cores": 2},
            "versions": {"torch": "1"},
        },
        source="x.json",
    )
    (row,) = [line for line in text.splitlines() if line.startswith("| net | 224 |")]
    assert row.split(" | ")[4] == "[1]"
    assert "1. net: no / such layer" in text
    assert "2. net: boom" in text


def test_the_published_page_is_made_from_the_published_result() -> None:
    published = json.loads((ROOT / "benchmarks/results/backbones.json").read_text())
    assert Path(ROOT / "docs/backbones.md").read_text() == render(published, source="backbones.json")
