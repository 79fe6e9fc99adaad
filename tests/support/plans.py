"""Sealed engine folders of TensorRT around bytes that are openly no plan, to assemble gpu lanes of in tests."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slipway.contract import Bundle, BundleEngine, EngineSettings, Manifest
from slipway.contract.engine import INPUT, plan_name
from slipway.contract.installed import Installed
from slipway.system.files import sha256_bytes, sha256_file
from tests.support.cards import card_of

NOT_A_PLAN = b"These bytes are no TensorRT plan. They stand in for one in tests, and no runtime loads them.\n"
UNCHANGED: Mapping[str, Any] = {}
HERE = Installed.here()
PLAN_SETTINGS: Mapping[str, Any] = {
    "version": "10.16.1.11",
    "batch_sizes": [1, 32, 32],
    "optimization_level": 3,
    "hardware_compatibility": "none",
    "version_compatible": False,
    "dali": HERE.dali,
    "nvimgcodec": HERE.nvimgcodec,
}
GRAPH = sha256_bytes(b"the graph that the stand-ins say they were compiled from")


def plan_settings(capability: str | None) -> dict[str, Any]:
    """What a compile job here would record of a plan, on a GPU of that compute capability; None: without a GPU."""
    card = None if capability is None else card_of(capability)
    return {**PLAN_SETTINGS, "compute_capability": capability, "card": card}


def stand_in_plan(
    folder: Path,
    bundle: Bundle,
    *,
    capability: str | None = "9.0",
    verdict: str = "pass",
    plan: Mapping[str, Any] | None = UNCHANGED,
    data: bytes = NOT_A_PLAN,
    **settings: Any,
) -> BundleEngine:
    """Write and open an engine folder that is whole in everything but the plan itself.

    `plan` changes keys of its plan settings (None: there are none), `settings` those of its engine.json.
    """
    folder.mkdir(parents=True)
    (folder / plan_name(capability)).write_bytes(data)
    shutil.copyfile(bundle.path / "decision.json", folder / "decision.json")
    text = {
        "target": "tensorrt",
        "precision": "int8",
        "arithmetic": "typed",
        "decoder": "mixed",
        "classes": len(bundle.labels),
        "embedding_size": 3,
        "input": INPUT,
        "graph_sha256": GRAPH,
        "calibration_sha256": sha256_file(bundle.path / "calibration.json"),
        "plan": None if plan is None else plan_settings(capability) | {**plan},
    }
    EngineSettings.parse(text | settings, source="test").write(folder / "engine.json")
    return seal(folder, bundle, verdict=verdict)


def seal(folder: Path, bundle: Bundle, *, verdict: str = "pass") -> BundleEngine:
    """The folder's manifest anew, and the engine opened."""
    Manifest.seal(
        folder,
        kind="engine",
        name=bundle.spec.name,
        bundle=bundle.id,
        inputs={"bundle": sha256_file(bundle.path / "manifest.json")},
        measured={"gate": {"verdict": verdict}},
    )
    return BundleEngine.open(folder, bundle=bundle)
