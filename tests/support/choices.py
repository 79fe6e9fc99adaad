"""The choice of a run's only engine, or of its only plan for a GPU, as if measured."""

from pathlib import Path
from typing import Any

from slipway.contract import Choice, EngineSettings, Manifest
from slipway.contract.choice import FILE_NAME
from slipway.system.files import sha256_file


def write_only_choice(engine: Path, *, bundle: str, file: str = FILE_NAME, **changes: Any) -> None:
    """Write `file` beside the engine's folder; `changes` replace keys of the choice."""
    candidate = {
        "engine": engine.name,
        "manifest_sha256": sha256_file(engine / "manifest.json"),
        "precision": EngineSettings.read(engine / "engine.json").precision,
        "verdict": Manifest.read(engine / "manifest.json").measured["gate"]["verdict"],
        "median_ms": 1.0,
    }
    choice: dict[str, Any] = {"bundle": bundle, "chosen": engine.name, "reason": "the only one", "versions": {}}
    choice |= {"candidates": [candidate], "rounds": 1, "images_per_round": 1, "threads": 1, "machine": "test"}
    Choice.parse(choice | changes, source="test").write(engine.parent / file)
