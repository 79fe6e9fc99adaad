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
from slipway.engines.calibration_pixels import CalibrationSample
from slipway.engines.graph_checks import check_quantised, quantised_layers
from slipway.engines.quantize import open_source
from slipway.engines.sensitivity import keep_in_fp16
from tests.support import quantizable as fixtures
from tests.support.cards import H100
from tests.support.quantizable import SIZE

bundle = fixtures.bundle
PLAYED = """#!/bin/sh
echo "$@" >> "{calls}"
for argument in "$@"; do case "$argument" in --onnx=*) graph=${{argument#--onnx=}} ;; esac; done
nodes=$(grep -ao QuantizeLinear "$graph" | wc -l)
{time}
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
    assert (found.card, found.plans) == (H100, len(timed))
    quantised = quantised_layers(graph, "int8")
    assert measured.int8_layers == len(quantised) > 0
    assert {*quantised, *measured.not_quantised} == {"first", "second", "third", "linear"}
    largest = bundle.spec.serving.gpu.max_batch_size
    sizes = {"min": 1, "opt": largest, "max": largest}
    shapes = [f"--{name}Shapes=pixels_nchw:{size}x3x{SIZE}x{SIZE}" for name, size in sizes.items()]
    assert all(set(shapes).issubset(line.split()) and "--noDataTransfers" in line for line in timed)
    assert f"at batch {largest} on {H100.name}; {len(timed)} plans timed" in capsys.readouterr().out


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
