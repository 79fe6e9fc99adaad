"""Gpu lanes of a base and its heads, around stand-ins for the plans, and forms of heads for them."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slipway.contract import Choice, EngineSettings
from slipway.contract.base_bundle import Base, BaseEngine
from slipway.contract.card import Card
from slipway.contract.engine import engine_name, plan_name
from slipway.contract.serving import Serving
from slipway.repository import BaseHeads
from slipway.repository.fleet import open_base
from slipway.system.files import sha256_file
from tests.support.cards import card_of
from tests.support.heads import ENGINE, seal
from tests.support.plans import NOT_A_PLAN, UNCHANGED, plan_settings

PROVIDER = "CPUExecutionProvider"


def base_plan(
    run: Path,
    *,
    capability: str = "9.0",
    precision: str = "fp32",
    verdict: str = "pass",
    plan: Mapping[str, Any] = UNCHANGED,
    choose: bool = True,
    **settings: Any,
) -> BaseEngine:
    """Write a stand-in for a plan of the base of `run`, which says that it was compiled from the base's FP32 graph, and
    the choice that names it."""
    base = Base.open(run / "base")
    folder = run / "engines" / engine_name("tensorrt", precision, capability)  # type: ignore[arg-type]
    folder.mkdir()
    (folder / plan_name(capability)).write_bytes(NOT_A_PLAN)
    text = json.loads((run / "engines" / ENGINE / "engine.json").read_text())
    text |= {"target": "tensorrt", "precision": precision, "arithmetic": "typed", "decoder": "mixed"}
    text["plan"] = plan_settings(capability) | {**plan}
    EngineSettings.parse(text | settings, source="test").write(folder / "engine.json")
    seal(folder, kind="engine", name=base.spec.name, bundle=base.id, measured={"gate": {"verdict": verdict}})
    if choose:
        _choose(run, folder, card_of(capability))
    return BaseEngine.open(folder, base=base)


def base_fallback(run: Path) -> BaseEngine:
    """Write an engine of ONNX Runtime with the base's FP32 graph, and a verdict that nothing was evaluated for."""
    base = Base.open(run / "base")
    folder = shutil.copytree(run / "engines" / ENGINE, run / "engines/onnxruntime-fp32")
    text = json.loads((folder / "engine.json").read_text())
    text |= {"target": "onnxruntime", "arithmetic": "typed", "provider": PROVIDER}
    EngineSettings.parse(text, source="test").write(folder / "engine.json")
    (folder / "manifest.json").unlink()
    seal(folder, kind="engine", name=base.spec.name, bundle=base.id, measured={"gate": {"verdict": "pass"}})
    return BaseEngine.open(folder, base=base)


def _choose(run: Path, folder: Path, card: Card) -> None:
    choice = Choice.read(run / "engines/choice.json")
    (candidate,) = choice.candidates
    measured = candidate.model_copy(
        update={"engine": folder.name, "manifest_sha256": sha256_file(folder / "manifest.json")}
    )
    changes = {"chosen": folder.name, "candidates": (measured,), "card": card}
    suffix = folder.name.rpartition("-")[2]
    choice.model_copy(update=changes).write(run / f"engines/choice-{suffix}.json")


def head_form(head: Path, engine: BaseEngine, *, provider: str | None = None, **settings: Any) -> Path:
    """Write the form of a head for an engine of its base, with the weights of its FP32 form.

    Args:
        provider: of the typed graph that gave the embeddings; None if the plan did.
    """
    folder = shutil.copytree(head / "engines" / ENGINE, head / "engines" / engine.path.name)
    own = json.loads((folder / "engine.json").read_text())
    kept = {name: own[name] for name in ("classes", "input", "graph_sha256", "calibration_sha256")}
    text = {**engine.settings.plain(), **kept, "base_engine_sha256": sha256_file(engine.path / "manifest.json")}
    if provider is not None:
        text |= {"provider": provider, "decoder": "cpu"}
    EngineSettings.parse(text | settings, source="test").write(folder / "engine.json")
    manifest = json.loads((head / "bundle/manifest.json").read_text())
    (folder / "manifest.json").unlink()
    seal(
        folder, kind="engine", name=manifest["name"], bundle=manifest["bundle"], measured={"gate": {"verdict": "pass"}}
    )
    return folder


def gpu_heads(run: Path, heads: list[Path], **gpu: Any) -> list[BaseHeads]:
    """The base with its heads, ready for `assemble` on the gpu lane; `gpu` changes `serving.gpu`."""
    served = open_base(run, lane="gpu", serving=[Serving.parse({"gpu": gpu}, source="test")])
    return [BaseHeads.named(served, heads)]
