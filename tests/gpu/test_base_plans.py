"""A base with real plans on a GPU, a head that is fitted to one, and how near its typed graph on a CPU comes to it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from slipway.contract import Bundle, BundleEngine, Choice
from slipway.contract.base_bundle import Base, BaseEngine
from slipway.contract.evidence.build import BaseEngineMeasured, EmbeddingLoss
from slipway.lint import lint
from tests.support.scripts import run_here

PRECISIONS = ("fp16", "int8")


@dataclass(frozen=True)
class Made:
    """A folder with the run of a base, `base`, its plans, and the run of a head, `head`."""

    folder: Path
    base: Base

    def plan(self, precision: str, capability: str) -> BaseEngine:
        name = f"tensorrt-{precision}-sm{capability.replace('.', '')}"
        return BaseEngine.open(self.folder / "runs/base/engines" / name, base=self.base)


@pytest.fixture(scope="session")
def made(needs_tensorrt: str, tmp_path_factory: pytest.TempPathFactory) -> Made:  # noqa: ARG001
    from tests.support.small_training import base_text, write_digits, write_weights

    folder = tmp_path_factory.mktemp("base")
    write_digits(folder / "images")
    write_weights(folder / "weights.safetensors")
    size = {"input_height": 64, "input_width": 64}
    spec = base_text(name="base", preprocess=size, embedding={"images": 30}, precisions=list(PRECISIONS))
    limits = {"max_loss_points": 60, "max_class_loss_points": 100, "max_flip_points": 60, "prove_classes": False}
    head = {"name": "head", "data": {"root": "images"}, "accuracy": limits}
    for name, text in (("base", spec), ("head", head)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(text))
    where = ("runs/base/base", "--graphs", "runs/base/graphs", "--out", "runs/base/engines")
    run_here("base", "base.yaml", cwd=folder)
    run_here("compile", *where, "--target", "tensorrt", cwd=folder)
    run_here("head", "head.yaml", "--base", "runs/base", cwd=folder, check=False)  # few images may not suffice
    return Made(folder, Base.open(folder / "runs/base/base"))


def test_plans_of_a_base_pass_the_gate_on_embeddings_and_one_is_chosen(made: Made, needs_gpu: str) -> None:
    for precision in PRECISIONS:
        gate = made.plan(precision, needs_gpu).manifest.read_measured(BaseEngineMeasured).gate
        assert isinstance(gate, EmbeddingLoss)
        assert gate.verdict == "pass", gate
        assert gate.profile is not None, "both profiles were compared"
    choice = Choice.read(made.folder / f"runs/base/engines/choice-sm{needs_gpu.replace('.', '')}.json")
    assert choice.card is not None
    assert choice.chosen in {made.plan(precision, needs_gpu).path.name for precision in PRECISIONS}


def test_a_head_is_fitted_to_the_plan_itself_and_assembled(made: Made, needs_gpu: str) -> None:
    bundle = Bundle.open(made.folder / "runs/head/bundle")
    for precision in PRECISIONS:
        form = BundleEngine.open(
            made.folder / "runs/head/engines" / made.plan(precision, needs_gpu).path.name, bundle=bundle
        )
        assert form.settings.provider is None
        assert form.settings.decoder == "mixed"
        assert json.loads((form.path / "evaluation.json").read_text())["profile"] in ("batches", "single images")
    fleet = {"lane": "gpu", "bases": {"base": {"base": "runs/base", "heads": {"head": "runs/head"}}}}
    (made.folder / "fleet.yaml").write_text(yaml.safe_dump(fleet))
    done = run_here("assemble", "fleet.yaml", cwd=made.folder, check=False)
    if done.returncode == 0:
        assert lint(made.folder / "model_repository/gpu") == []
    else:
        assert "the accuracy gate says" in done.stderr, "12 test images prove little"


def test_the_typed_graph_on_a_cpu_embeds_nearly_as_the_plan(
    made: Made,
    needs_gpu: str,
    write_result: Callable[[str, dict[str, Any]], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from slipway.engines import embedders
    from slipway.engines.base_engines import judge

    monkeypatch.chdir(made.folder)
    pixels_nhwc_u8 = np.random.default_rng(0).integers(0, 256, (32, 64, 64, 3), np.uint8)
    found = {}
    for precision in PRECISIONS:
        plan = made.plan(precision, needs_gpu)
        here = embedders.embedder_of(made.base, plan, Path("runs/base/graphs"))
        with monkeypatch.context() as patch:
            patch.setattr(embedders, "why_not_here", lambda _: "asked to stand in")
            instead = embedders.embedder_of(made.base, plan, Path("runs/base/graphs"))
        assert (here.stands_in, instead.stands_in) == ("", "asked to stand in")
        by_plan, by_graph = (each.open()(pixels_nhwc_u8)[1] for each in (here, instead))
        found[precision] = judge(by_plan, by_graph, min_cosine=0.99)
    write_result("gpu-base-stand-in", {"base": made.base.id, **{name: loss.plain() for name, loss in found.items()}})
    assert all(loss.verdict == "pass" for loss in found.values()), found
