"""ModelOpt's real autotune around a played trtexec, which says how fast a plan is: its arguments, and the graph.

What no CPU can show is whether the times of a GPU lead to a faster plan.
"""

from pathlib import Path

import onnx
import pytest

from slipway.cli import quantize as verb
from slipway.contract import Bundle, Manifest, QuantizeError
from slipway.contract.evidence.build import GraphMeasured
from slipway.engines import autotune, quantize
from slipway.engines.graph_checks import check_quantised, quantised_layers
from slipway.engines.quantize import open_source
from slipway.engines.sensitivity import keep_in_fp16
from slipway.evaluation.calibration_pixels import CalibrationSample
from tests.support import quantizable as fixtures
from tests.support.cards import H100
from tests.support.quantizable import SIZE

bundle = fixtures.bundle
PLAYED = """#!/bin/sh
echo "$@" >> "{calls}"
for argument in "$@"; do case "$argument" in --onnx=*) graph=${{argument#--onnx=}} ;; esac; done
nodes=$(grep -ao QuantizeLinear "$graph" | wc -l)
{time}
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v110100] [b1] # trtexec $@"
echo "[11/30/2026-08:00:00] [I] Latency: min = 1 ms, max = 9 ms, mean = 5 ms, median = $median ms, and more"
"""
FASTER, SLOWER = (f'median=$(awk "BEGIN {{ print {time} }}")' for time in ("9 / (10 + $nodes)", "(10 + $nodes) / 100"))


def play(monkeypatch: pytest.MonkeyPatch, folder: Path, time: str) -> Path:
    """Put a trtexec on PATH; returns the file with the arguments of each call."""
    calls = folder / "calls.txt"
    (folder / "trtexec").write_text(PLAYED.format(calls=calls, time=time))
    (folder / "trtexec").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr(autotune, "require_card", lambda _: H100)
    return calls


def test_a_graph_is_placed_by_times_at_the_batch_sizes_of_the_plan(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = play(monkeypatch, tmp_path, FASTER)
    out = tmp_path / "int8"
    verb.main(verb.parser().parse_args([str(bundle.path), "--out", str(out), "--autotune"]))
    graph, measured = onnx.load(out / "model.onnx"), Manifest.open(out, kind="graph").read_measured(GraphMeasured)
    timed = calls.read_text().splitlines()
    found = measured.autotune
    assert found is not None
    assert found.with_ms < found.without_ms == 0.9
    assert (found.card, found.plans, found.version) == (H100, len(timed), "TensorRT v110100")
    quantised = quantised_layers(graph, "int8")
    assert measured.int8_layers == len(quantised) > 0
    assert {*quantised, *measured.not_quantised} == {"first", "second", "third", "linear"}
    largest = bundle.spec.serving.gpu.max_batch_size
    sizes = {"min": 1, "opt": largest, "max": largest}
    shapes = [f"--{name}Shapes=pixels_nchw:{size}x3x{SIZE}x{SIZE}" for name, size in sizes.items()]
    assert all(set(shapes).issubset(line.split()) and "--noDataTransfers" in line for line in timed)
    assert f"at batch {largest} on {H100.name} by TensorRT v110100; {len(timed)} plans timed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("time", "said"),
    [
        (SLOWER, "INT8 was requested, but none of 4 layers is quantised; use FP16 or FP32"),
        ("echo no GPU; exit 1", "finite positive latency"),
    ],
    ids=("slower", "failing"),
)
def test_no_place_that_is_faster_and_a_failing_trtexec_are_errors(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, time: str, said: str
) -> None:
    play(monkeypatch, tmp_path, time)
    with pytest.raises(QuantizeError, match=said):
        quantize(bundle, tmp_path / "int8", autotune=True)
    assert not (tmp_path / "int8").exists()


def test_a_time_is_found_as_modelopt_finds_it_and_a_log_without_one_loses_no_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/calibrated_candidate.log").write_text("[i] Latency: min=1ms, Median=0.8ms, and more")
    found = autotune.Autotune(tmp_path, "", 4, H100).measured()
    assert (found.with_ms, found.without_ms, found.version) == (0.8, None, None)
    (tmp_path / "logs/calibrated_baseline.log").write_bytes(b"\xff [TensorRT v110100] no time")
    assert autotune.Autotune(tmp_path, "", 4, H100).measured().without_ms is None
    verb.show_layers(tmp_path, GraphMeasured(layers=1, int8_layers=1, fp8_layers=0, fp16_layers=0, autotune=found))
    said = (
        "0.8 ms with Q/DQ nodes, a time that no log tells without, at batch 4 on NVIDIA H100 by a TensorRT of unknown"
    )
    assert said in capsys.readouterr().out


def test_without_trtexec_or_with_fp16_the_message_says_what_to_change(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(QuantizeError, match=r"trtexec, which is not on PATH; run it in NVIDIA's TensorRT image"):
        quantize(bundle, tmp_path / "int8", autotune=True)
    with pytest.raises(QuantizeError, match="FP16 has none; give --precision int8 or fp8"):
        quantize(bundle, tmp_path / "fp16", precision="fp16", autotune=True)


def test_a_layer_that_autotune_left_has_that_reason(bundle: Bundle, tmp_path: Path) -> None:
    quantize(bundle, tmp_path / "int8")
    source, graph = open_source(bundle.path / "model.onnx"), onnx.load(tmp_path / "int8/model.onnx")
    pixels_nchw = next(CalibrationSample(bundle).pixels(images=1))
    plain = check_quantised(source, graph, "int8", pixels_nchw=pixels_nchw)
    some = keep_in_fp16(graph, {"second"})
    with pytest.raises(QuantizeError, match="1 of 4 layers should be INT8 but are not: second"):
        check_quantised(source, some, "int8", pixels_nchw=pixels_nchw)
    reasons = check_quantised(source, some, "int8", pixels_nchw=pixels_nchw, otherwise=autotune.LEFT)
    assert reasons == plain | {"second": autotune.LEFT}
