"""A plan's kernels for single images pass the accuracy gate too, or the plan does not. A stand-in runs the networks."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slipway.contract import Bundle, BundleEngine, CompileError
from slipway.engines import build_engine, compile, evaluate
from slipway.engines.plan import PlanRunner
from slipway.engines.tensorrt import BuiltPlan
from slipway.evaluation.predict import Float, Pixels, ServedNetwork, behind_normalisation
from slipway.steps import engine_openvino
from tests.support.cards import PLAN_ON_H100
from tests.support.coloured_runs import coloured_run

LIMITS = {"max_loss_points": 50, "max_flip_points": 50, "prove_classes": False, "confidence": 0.5}
Change = Callable[[Float], Float]
WHOLE: Change = np.asarray
Compile = Callable[[Change, Change], BundleEngine]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return coloured_run(tmp_path_factory.mktemp("run"), images=30, precisions=["fp32"], accuracy=LIMITS)


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> BundleEngine:
    engines = bundle.path.parent / "engines"
    return build_engine(bundle, engines, engines, target="openvino", precision="fp32", reference=None)


def network_of(bundle: Bundle, *, single: Change, batches: Change) -> ServedNetwork:
    """The bundle's own network, whose logits `single` changes for one image and `batches` for several."""
    engine = engine_openvino.Engine(bundle.path / "model.onnx", arithmetic="f32", threads=1)
    network = behind_normalisation(engine.run, bundle.preprocess)

    def run(pixels_nhwc_u8: Pixels) -> tuple[Float, Float]:
        logits_nc, embedding_nd = network(pixels_nhwc_u8)
        return (single if len(pixels_nhwc_u8) == 1 else batches)(logits_nc), embedding_nd

    return run


@pytest.fixture
def compiled(bundle: Bundle, reference: BundleEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compile:
    """Builds a plan of `network_of` for a GPU that is played: its images are decoded on the CPU."""
    plan = BuiltPlan(
        data=b"", settings=PLAN_ON_H100, timing_cache=None, layers=None, layers_reason="played", warnings=0, seconds=0
    )
    on_cpu = evaluate.run_split
    monkeypatch.setattr(compile, "build_plan", lambda *_, **__: plan)
    monkeypatch.setattr(compile, "compute_capability", lambda: "9.0")
    monkeypatch.setattr(evaluate, "run_split", lambda *args, **options: on_cpu(*args, **options | {"decoder": "cpu"}))

    def build(single: Change, batches: Change) -> BundleEngine:
        network = network_of(bundle, single=single, batches=batches)
        monkeypatch.setattr(PlanRunner, "__init__", lambda *_, **__: None)
        monkeypatch.setattr(PlanRunner, "run", staticmethod(network))
        return build_engine(bundle, tmp_path, tmp_path, target="tensorrt", precision="fp32", reference=reference)

    return build


@pytest.mark.parametrize(
    ("single", "batches", "verdict", "profile"),
    [
        (WHOLE, WHOLE, "pass", "batches"),
        (np.negative, WHOLE, "fail", "single images"),
        (WHOLE, np.negative, "fail", "batches"),
    ],
)
def test_the_worse_verdict_of_both_profiles_is_that_of_the_plan(
    single: Change, batches: Change, verdict: str, profile: str, compiled: Compile
) -> None:
    engine = compiled(single, batches)
    evaluation = json.loads((engine.path / "evaluation.json").read_text())
    assert engine.verdict == evaluation["gate"]["verdict"] == verdict
    assert evaluation["profile"] == profile
    assert bool(evaluation["flips"]) == (verdict == "fail"), "all figures are of that profile"


def test_single_images_without_a_finite_answer_are_refused(compiled: Compile) -> None:
    with pytest.raises(CompileError, match=r"fp32: logits of (\d+) of \1 test images are not finite"):
        compiled(lambda logits_nc: logits_nc * np.float32(np.nan), WHOLE)
