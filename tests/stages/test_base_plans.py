"""Engines of a base for the gpu lane, by TensorRT-RTX, by ONNX Runtime and with a GPU that is played, and the forms of
heads for them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from slipway.contract import Bundle, BundleEngine
from slipway.contract.base_bundle import Base, BaseEngine
from slipway.contract.evidence.build import BaseEngineMeasured, EmbeddingLoss
from slipway.engines import build_engine, choose_plan, compile, evaluate
from slipway.engines.base_engines import run_of
from slipway.engines.plan import PlanRunner
from slipway.engines.tensorrt import BuiltPlan
from slipway.evaluation.predict import Float, Pixels, predict_served
from slipway.lint import lint
from slipway.repository import BaseHeads, assemble
from slipway.repository.fleet import open_base
from tests.support.cards import H100, PLAN_ON_H100
from tests.support.gpu_bases import base_plan
from tests.support.heads import ENGINE
from tests.support.scripts import run_here
from tests.support.shades import base_with_int8, write_colours
from tests.support.small_training import base_text, one_thread, write_digits, write_weights

SPEC = base_text(precisions=["fp16"], serving={"gpu": {"fallback": "onnxruntime"}})
WHERE = ("runs/tiny/base", "--graphs", "runs/tiny/graphs", "--out", "runs/tiny/engines")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/tiny`, a base of the gpu lane alone, its proofs, and ONNX Runtime's engine."""
    folder = tmp_path_factory.mktemp("base")
    write_digits(folder / "images")
    write_weights(folder / "weights.safetensors")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(SPEC))
    with one_thread():
        said = [
            run_here("base", "tiny.yaml", cwd=folder).stdout,
            run_here("compile", *WHERE, "--target", "tensorrt_rtx", cwd=folder).stdout,
            run_here("compile", *WHERE, "--target", "onnxruntime", cwd=folder).stdout,
        ]
    (folder / "said.txt").write_text("".join(said))
    return folder


@pytest.fixture
def base(made: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    monkeypatch.chdir(made)
    return Base.open(Path("runs/tiny/base"))


def test_the_verb_makes_the_graph_of_a_precision_that_no_cpu_serves_and_names_the_next_commands(made: Path) -> None:
    said = (made / "said.txt").read_text()
    assert "the spec lists no precision of the cpu lane, and FP32 is there to compare with" in said
    assert "for the gpu lane, on its GPU: slipway container compile runs/tiny/base --graphs runs/tiny/graphs" in said
    assert (made / "runs/tiny/graphs/fp16/model.onnx").is_file()
    assert not (made / "runs/tiny/engines/choice.json").exists()


def test_tensorrt_rtx_proves_without_a_gpu_that_the_graphs_of_a_base_compile(base: Base) -> None:
    for precision in ("fp32", "fp16"):
        engine = BaseEngine.open(Path("runs/tiny/engines") / f"tensorrt_rtx-{precision}", base=base)
        assert (engine.verdict, engine.may_be_served) == ("proof only", False)
        measured = engine.manifest.read_measured(BaseEngineMeasured)
        assert (measured.plan_bytes or 0) > 1_000_000
        assert not measured.latency


def test_onnx_runtime_s_engine_is_gated_by_its_embeddings_on_a_cpu(base: Base) -> None:
    engine = BaseEngine.open(Path("runs/tiny/engines/onnxruntime-fp16"), base=base)
    gate = engine.manifest.read_measured(BaseEngineMeasured).gate
    assert isinstance(gate, EmbeddingLoss)
    assert 0.99 < gate.mean_cosine < 1
    assert engine.settings.provider == "CPUExecutionProvider"
    assert engine.may_be_served
    served = open_base(Path("runs/tiny"), lane="gpu")
    assert served.falls_back
    assert served.engine.path.name == "onnxruntime-fp16"


Build = Callable[[Callable[[Float], Float]], BaseEngine]


@pytest.fixture
def compiled(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Builds a plan of FP32 for a GPU that is played: OpenVINO runs it, `single` changes the embedding of one image
    alone, and the CPU decodes."""
    plan = BuiltPlan(
        data=b"", settings=PLAN_ON_H100, timing_cache=None, layers=None, layers_reason="", warnings=0, seconds=0
    )
    reference = BaseEngine.open(Path("runs/tiny/engines/openvino-fp32"), base=base)
    fp32 = run_of(reference, threads=1)
    monkeypatch.setattr(compile, "build_plan", lambda *_, **__: plan)
    monkeypatch.setattr(compile, "compute_capability", lambda: "9.0")
    monkeypatch.setattr(
        evaluate,
        "predict_served",
        lambda *given, **options: predict_served(*given, **options | {"preprocess": base.preprocess}),
    )

    def build(single: Callable[[Float], Float]) -> BaseEngine:
        def run(pixels_nhwc_u8: Pixels) -> tuple[Float, Float]:
            logits_nc, embedding_nd = fp32(pixels_nhwc_u8)
            return logits_nc, single(embedding_nd) if len(pixels_nhwc_u8) == 1 else embedding_nd

        monkeypatch.setattr(PlanRunner, "__init__", lambda *_, **__: None)
        monkeypatch.setattr(PlanRunner, "run", staticmethod(run))
        return build_engine(
            base, Path("runs/tiny/graphs"), tmp_path, target="tensorrt", precision="fp16", reference=reference
        )

    return build


@pytest.mark.parametrize(("single", "verdict"), [(np.asarray, "pass"), (np.negative, "fail")])
def test_a_plan_of_a_base_is_gated_in_batches_and_image_by_image(
    single: Callable[[Float], Float], verdict: str, compiled: Build
) -> None:
    engine = compiled(single)
    assert engine.path.name == "tensorrt-fp16-sm90"
    assert (engine.settings.decoder, engine.settings.classes, engine.settings.embedding_size) == ("mixed", 0, 512)
    gate = engine.manifest.read_measured(BaseEngineMeasured).gate
    assert isinstance(gate, EmbeddingLoss)
    assert gate.verdict == engine.verdict == verdict
    assert gate.profile == ("single images" if verdict == "fail" else "batches")


def test_plans_of_a_base_are_measured_against_each_other(base: Base, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(base.path, run / "base")
    shutil.copytree("runs/tiny/engines/openvino-fp32", run / "engines" / ENGINE)
    (run / "engines/choice.json").write_text(json.dumps(CHOICE | {"bundle": base.id}))
    for precision in ("fp32", "fp16"):
        base_plan(run, precision=precision, plan={"card": H100}, choose=False)

    def network_of(_: BaseEngine) -> Any:
        return lambda pixels: (np.zeros((len(pixels), 0), np.float32), np.zeros((len(pixels), 512), np.float32))

    opened = Base.open(run / "base")
    choice = choose_plan(opened, run / "engines", rounds=2, calls_per_round=2, card=H100, network_of=network_of)
    assert choice.chosen == "tensorrt-fp16-sm90", "the only one that the spec lists"
    assert open_base(run, lane="gpu").engine.path.name == "tensorrt-fp16-sm90"


CHOICE: dict[str, Any] = {
    "chosen": ENGINE,
    "reason": "the only one",
    "candidates": [{"engine": ENGINE, "manifest_sha256": "0" * 64, "precision": "fp32", "verdict": "reference"}],
    "versions": {},
    "rounds": 1,
    "images_per_round": 1,
    "threads": 1,
    "machine": "test",
}


# The heads


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """A folder with `base`, which has a stand-in for a plan of its FP32 graph, `data`, and `shades.yaml`."""
    base_with_int8(tmp_path / "base")
    base_plan(tmp_path / "base", plan={"single_image_profile": True})
    write_colours(tmp_path / "data")
    limits = {"max_loss_points": 40, "max_class_loss_points": 100, "max_flip_points": 60, "prove_classes": False}
    (tmp_path / "shades.yaml").write_text(
        yaml.safe_dump({"name": "shades", "data": {"root": "data"}, "accuracy": limits})
    )
    return tmp_path


def fit(folder: Path) -> str:
    return run_here("head", "shades.yaml", "--base", "base", cwd=folder).stdout


def form_of(folder: Path, name: str = "tensorrt-fp32-sm90") -> BundleEngine:
    bundle = Bundle.open(folder / "runs/shades/bundle")
    return BundleEngine.open(folder / "runs/shades/engines" / name, bundle=bundle)


def test_without_its_gpu_a_plan_s_typed_graph_stands_in_for_it_and_the_form_says_so(shades: Path) -> None:
    said = fit(shades)
    assert "base/engines/tensorrt-fp32-sm90: its typed graph stands in for it, on the CPU, since this machine" in said
    form = form_of(shades)
    assert (form.settings.target, form.settings.provider) == ("tensorrt", "CPUExecutionProvider")
    assert form.settings.decoder == "cpu"
    assert form.may_be_served
    assert "onnxruntime" in form.manifest.versions
    ours, theirs = (np.load(form_of(shades, name).path / "head.npz") for name in (form.path.name, ENGINE))
    np.testing.assert_allclose(ours["weight_0"], theirs["weight_0"], atol=0.05, err_msg="the same graph")
    assert "current" in fit(shades)
    heads = BaseHeads(open_base(shades / "base", lane="gpu"), {"shades": shades / "runs/shades"})
    assert assemble([], shades / "out", bases=[heads], lane="gpu").bases["tiny"].stand_ins == ("shades",)
    assert lint(shades / "out") == []


def test_where_the_plan_runs_the_form_is_fitted_to_it_and_gated_in_both_of_its_ways(
    shades: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(shades / "base/engines/tensorrt-fp32-sm90")
    base_plan(shades / "base", plan={"single_image_profile": True}, decoder="cpu")  # no nvJPEG is here
    fit(shades)
    before = written(shades)
    fp32 = run_of(BaseEngine.open(shades / f"base/engines/{ENGINE}", base=Base.open(shades / "base/base")), threads=1)
    sizes = set[int]()

    def plan_network(_: BaseEngine) -> Any:
        def run(pixels_nhwc_u8: Pixels) -> tuple[Float, Float]:
            sizes.add(len(pixels_nhwc_u8))
            return fp32(pixels_nhwc_u8)

        return run

    with monkeypatch.context() as patch:
        patch.setattr("slipway.engines.embedders.why_not_here", lambda _: "")
        patch.setattr("slipway.engines.embedders.plan_network", plan_network)
        said = fit(shades)
    assert "was fitted to the typed graph, and base/engines/tensorrt-fp32-sm90 can be run here" in said
    assert {name for name, time in written(shades).items() if before[name] != time} == {"tensorrt-fp32-sm90"}
    form = form_of(shades)
    assert form.settings.provider is None
    assert json.loads((form.path / "evaluation.json").read_text())["profile"] in ("batches", "single images")
    assert {1, 8} <= sizes
    assert "current" in fit(shades), "it stays where the GPU is missing again"


def written(folder: Path) -> dict[str, int]:
    """When the bundle and each form were written."""
    manifests = (folder / "runs/shades").glob("**/manifest.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in manifests}


def test_nothing_stands_in_for_fp8_and_the_other_forms_are_made(shades: Path) -> None:
    base_plan(shades / "base", precision="fp8", choose=False)
    said = fit(shades)
    assert "no form for tensorrt-fp8-sm90: " in said
    assert "and nothing stands in for FP8: fit the head where the plan runs" in said
    assert {path.name for path in (shades / "runs/shades/engines").iterdir()} == {
        ENGINE,
        "openvino-int8",
        "tensorrt-fp32-sm90",
    }
