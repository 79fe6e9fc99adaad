"""Real TensorRT plans of the demo's digits: built, read back, run, and put through the accuracy gate."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slipway.contract import Bundle, CompileError
from slipway.engines.tensorrt import BuiltPlan, build_plan

# The largest difference of a logit from OpenVINO's FP32, as a share of the largest logit.
TOLERANCE = {"fp32": 1e-3, "fp16": 0.02, "int8": 0.15}
COMPUTES_IN = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}


@dataclass(frozen=True)
class Run:
    """The digits' bundle, and one plan of it."""

    bundle: Bundle
    plan: BuiltPlan


def graph_of(folder: Path, precision: str) -> Path:
    if precision == "fp32":
        return folder / "bundle/model.onnx"
    graph = folder / "graphs" / precision / "model.onnx"
    if not graph.is_file():
        pytest.skip(f"the demo makes no {precision} graph")
    return graph


@pytest.fixture(scope="session")
def runs(needs_tensorrt: str, digits: Path) -> Callable[[str], Run]:  # noqa: ARG001
    bundle, built = Bundle.open(digits / "runs/digits/bundle"), {}

    def run(precision: str) -> Run:
        if precision not in built:
            plan = build_plan(
                graph_of(digits / "runs/digits", precision),
                preprocess=bundle.preprocess,
                target="tensorrt",
                max_batch_size=bundle.spec.serving.gpu.max_batch_size,
                options=bundle.spec.tensorrt,
            )
            built[precision] = Run(bundle, plan)
        return built[precision]

    return run


@pytest.mark.parametrize("precision", list(TOLERANCE))
def test_a_plan_answers_like_openvino_in_fp32_and_does_not_fail_the_gate(
    precision: str,
    runs: Callable[[str], Run],
    digits: Path,
    write_result: Callable[[str, dict[str, Any]], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from slipway.contract.dataset import Dataset
    from slipway.contract.evidence.gate import FAIL
    from slipway.engines.plan import PlanRunner, layer_precisions
    from slipway.evaluation.gate import compare
    from slipway.evaluation.predict import behind_normalisation, predict_served
    from slipway.steps.engine_openvino import Engine

    monkeypatch.chdir(digits)  # the data set's root is relative
    run = runs(precision)
    bundle, plan = run.bundle, run.plan
    dataset = Dataset.read(bundle.path / "dataset.json")
    fp32 = Engine(bundle.path / "model.onnx", arithmetic="f32", threads=2)
    networks = {
        "openvino": behind_normalisation(fp32.run, bundle.preprocess),
        "tensorrt": PlanRunner(plan.data, settings=plan.settings).run,
    }
    answers = {
        name: predict_served(
            network,
            dataset,
            dataset.of("test"),
            preprocess=bundle.preprocess,
            batch_size=bundle.spec.serving.max_batch_size,
            what=name,
        )
        for name, network in networks.items()
    }
    expected, found = answers["openvino"], answers["tensorrt"]
    difference = float(np.abs(found.logits_nc - expected.logits_nc).max() / np.abs(expected.logits_nc).max())
    class_ids = {name: answer.logits_nc.argmax(axis=1) for name, answer in answers.items()}
    gate = compare(expected.truth_n, class_ids["openvino"], class_ids["tensorrt"], bundle.labels, bundle.spec.accuracy)
    write_result(
        f"gpu-plan-{precision}",
        {
            "bundle": bundle.id,
            "plan": plan.settings.model_dump(),
            "plan_bytes": len(plan.data),
            "build_s": plan.seconds,
            "layer_precisions": None if plan.layers is None else layer_precisions(plan.layers),
            "largest_logit_difference": difference,
            "gate": gate.plain(),
        },
    )
    assert difference < TOLERANCE[precision]
    assert gate.verdict != FAIL, gate


@pytest.mark.parametrize("precision", list(TOLERANCE))
def test_a_plan_is_read_back_in_the_precision_of_its_graph(
    precision: str, runs: Callable[[str], Run], needs_gpu: str
) -> None:
    from slipway.engines.plan import layer_precisions

    plan = runs(precision).plan
    assert plan.settings.compute_capability == needs_gpu
    assert plan.layers is not None, plan.layers_reason
    precisions = layer_precisions(plan.layers)
    assert COMPUTES_IN[precision] in precisions, precisions
    if precision == "fp32":
        assert not precisions.keys() & {"FP16", "BF16", "INT8"}, precisions


def test_a_single_image_is_answered_alike_under_both_profiles(runs: Callable[[str], Run]) -> None:
    from slipway.engines.plan import PlanRunner

    plan, preprocess = runs("fp16").plan, runs("fp16").bundle.preprocess
    assert plan.settings.single_image_profile
    assert plan.settings.card is not None
    runner = PlanRunner(plan.data, settings=plan.settings)
    shape = (runner.max_batch_size, preprocess.input_height, preprocess.input_width, 3)
    pixels_nhwc_u8 = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    alone, together = runner.run(pixels_nhwc_u8[:1])[0], runner.run(pixels_nhwc_u8)[0][:1]
    assert np.abs(alone - together).max() < 0.02 * np.abs(together).max()


def test_a_second_build_takes_the_timing_cache_of_the_first(runs: Callable[[str], Run], digits: Path) -> None:
    first = runs("fp32").plan
    assert first.timing_cache
    options: dict[str, Any] = {"max_batch_size": first.settings.batch_sizes[2]}
    bundle = runs("fp32").bundle
    options |= {"target": "tensorrt", "options": bundle.spec.tensorrt, "preprocess": bundle.preprocess}
    graph = graph_of(digits / "runs/digits", "fp32")
    again = build_plan(graph, timing_cache=first.timing_cache, **options)
    assert again.seconds < first.seconds
    # One that TensorRT refuses is left aside.
    assert build_plan(graph, timing_cache=b"not a timing cache", **options).timing_cache


def test_a_batch_outside_the_profile_is_refused(runs: Callable[[str], Run]) -> None:
    from slipway.engines.plan import PlanRunner

    plan, preprocess = runs("fp32").plan, runs("fp32").bundle.preprocess
    runner = PlanRunner(plan.data, settings=plan.settings)
    shape = (preprocess.input_height, preprocess.input_width, 3)
    for batch in (0, runner.max_batch_size + 1):
        with pytest.raises(ValueError, match=f"a batch of {batch}; this plan takes 1 to {runner.max_batch_size}"):
            runner.run(np.zeros((batch, *shape), np.uint8))
    with pytest.raises(ValueError, match="does not fit this plan"):
        runner.run(np.zeros((1, 8, 8, 3), np.uint8))
    assert np.isfinite(runner.run(np.zeros((1, *shape), np.uint8))[0]).all(), "the next batch is fine"


@pytest.mark.parametrize("damage", [b"", b"not a plan"], ids=["cut", "text"])
def test_a_plan_that_cannot_be_loaded_names_what_it_was_built_by(damage: bytes, runs: Callable[[str], Run]) -> None:
    from slipway.engines.plan import PlanRunner

    plan = runs("fp32").plan
    data = damage or plan.data[: len(plan.data) // 2]
    with pytest.raises(CompileError, match=rf"built by tensorrt {plan.settings.version} .*; compile it again here"):
        PlanRunner(data, settings=plan.settings)
