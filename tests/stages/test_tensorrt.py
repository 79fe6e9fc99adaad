"""Real plans by TensorRT-RTX, which compiles without a GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slipway.contract import SpecError
from slipway.contract.spec import TensorRT
from slipway.engines import tensorrt as building
from slipway.engines import tensorrt_library
from slipway.engines.child import run_in_child
from slipway.engines.compile import timing_cache_of
from slipway.engines.graph import served_graph
from slipway.engines.tensorrt import BuiltPlan
from slipway.onnx_graph import save
from slipway.steps.engine_openvino import Engine
from tests.support.typed_graphs import CHANNELS, PRECISIONS, PREPROCESS, SIDE, compile_rtx, network


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("graphs")
    for precision in PRECISIONS:
        save(network(precision), folder / f"{precision}.onnx")
    return {precision: folder / f"{precision}.onnx" for precision in PRECISIONS}


@pytest.fixture(scope="module")
def plans(graphs: dict[str, Path]) -> dict[str, BuiltPlan]:
    return {precision: compile_rtx(graph) for precision, graph in graphs.items()}


def test_the_three_graphs_are_one_network(graphs: dict[str, Path]) -> None:
    """Or their plans' sizes would compare nothing."""
    pixels_nchw = np.random.default_rng(1).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
    answers = {
        precision: Engine(graph, arithmetic="f32", threads=1).run(pixels_nchw)[0] for precision, graph in graphs.items()
    }
    for precision in ("fp16", "int8"):
        assert np.abs(answers[precision] - answers["fp32"]).max() < 0.1 * np.abs(answers["fp32"]).max()


def test_plans_shrink_with_the_types_of_their_graphs(plans: dict[str, BuiltPlan]) -> None:
    sizes = {precision: len(plan.data) for precision, plan in plans.items()}
    weights = 9 * CHANNELS * (3 + CHANNELS + CHANNELS)
    assert 4 * weights < sizes["fp32"] < 4 * weights + 2_000_000
    assert sizes["fp16"] < 0.65 * sizes["fp32"]
    assert sizes["int8"] < 0.5 * sizes["fp32"]


def test_a_plan_says_what_it_was_built_with(graphs: dict[str, Path]) -> None:
    plan = compile_rtx(graphs["fp32"], max_batch_size=4, optimal_batch_size=2, optimization_level=1)
    assert plan.settings.version.startswith("1.")
    assert plan.settings.batch_sizes == (1, 2, 4)
    assert plan.settings.optimization_level == 1
    assert plan.settings.compute_capability is None
    assert plan.timing_cache is None
    assert plan.warnings == 0
    assert 0 < plan.seconds < 60


def test_the_profile_is_part_of_the_plan(graphs: dict[str, Path], plans: dict[str, BuiltPlan]) -> None:
    assert plans["fp32"].settings.batch_sizes == (1, 8, 8)
    assert compile_rtx(graphs["fp32"], max_batch_size=1).data != plans["fp32"].data


def test_the_settings_reach_the_builder(graphs: dict[str, Path], plans: dict[str, BuiltPlan]) -> None:
    trt = tensorrt_library.import_library("tensorrt_rtx")
    log = tensorrt_library.fresh_log(trt)
    builder = trt.Builder(log)
    network = builder.create_network()
    parser = trt.OnnxParser(network, log)
    assert parser.parse(served_graph(graphs["fp32"], PREPROCESS))
    plain = plans["fp32"].settings
    flags = {"optimization_level": 5, "version_compatible": True, "hardware_compatibility": "ampere_plus"}
    for changed in ({}, flags, {"single_image_profile": True}):
        settings = plain.model_copy(update=changed)
        tensorrt_library.fresh_log(trt)
        config = building._configure(trt, builder, network, settings)
        assert config.builder_optimization_level == settings.optimization_level
        assert config.get_flag(trt.BuilderFlag.VERSION_COMPATIBLE) is settings.version_compatible
        assert not config.get_flag(trt.BuilderFlag.TF32)
        assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
        assert config.num_optimization_profiles == (2 if settings.single_image_profile else 1)
        assert log.warnings == (settings.hardware_compatibility != "none"), "TensorRT-RTX warns of what it ignores"


@pytest.mark.parametrize(
    ("target", "largest", "second"), [("tensorrt", 8, True), ("tensorrt", 1, False), ("tensorrt_rtx", 8, False)]
)
def test_a_plan_that_is_served_has_a_profile_for_single_images(target: Any, largest: int, second: bool) -> None:
    assert building.has_single_image_profile(target, largest) is second


def test_a_plan_compiles_with_the_profile_for_single_images(
    graphs: dict[str, Path], plans: dict[str, BuiltPlan]
) -> None:
    """By TensorRT-RTX, whose builder is of the same kind; a GPU alone can run it."""
    settings = plans["int8"].settings.model_copy(update={"single_image_profile": True})
    build = {"graph": graphs["int8"], "target": "tensorrt_rtx", "settings": settings, "timing_cache": None}
    build["data"] = served_graph(graphs["int8"], PREPROCESS)
    plan = run_in_child(building._build, what="two profiles", **build)
    assert plan.settings.single_image_profile
    assert plan.warnings == 0
    assert plan.data != plans["int8"].data


def test_the_timings_of_a_gpu_stay_beside_the_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipway.engines.compile.compute_capability", lambda: "9.0")
    assert timing_cache_of(tmp_path, "tensorrt") == tmp_path / "timing-sm90.cache"
    for target in ("tensorrt_rtx", "openvino"):
        assert timing_cache_of(tmp_path, target) is None


@pytest.mark.parametrize("options", [{"hardware_compatibility": "ampere_plus"}, {"version_compatible": True}], ids=str)
def test_what_tensorrt_rtx_does_not_have_is_recorded_as_not_applied(
    options: dict[str, Any], graphs: dict[str, Path]
) -> None:
    plan = compile_rtx(graphs["fp32"], **options)
    assert plan.settings.hardware_compatibility == "none"
    assert not plan.settings.version_compatible
    assert plan.warnings == 0


@pytest.mark.skipif(tensorrt_library.compute_capability() is not None, reason="there is a GPU, which may read it back")
def test_without_a_gpu_the_layers_are_unknown_and_the_plan_says_why(plans: dict[str, BuiltPlan]) -> None:
    for plan in plans.values():
        assert plan.layers is None
        assert "this machine shows none" in plan.layers_reason


@pytest.mark.parametrize(
    "options",
    [{"optimization_level": 6}, {"hardware_compatibility": "ampere"}, {"optimal_batch_size": 0}, {"workspace": 1}],
    ids=str,
)
def test_options_that_tensorrt_does_not_have_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(options))):
        TensorRT.parse(options, source="test")
