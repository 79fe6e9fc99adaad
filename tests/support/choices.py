"""The choice of a run with a single engine, as if it had been measured."""

from pathlib import Path
from typing import Any

from slipway.contract import Choice
from slipway.system.files import sha256_file


def write_only_choice(engine: Path, *, bundle: str) -> None:
    """Write `choice.json` beside the FP32 engine's folder."""
    candidate = {
        "engine": engine.name,
        "manifest_sha256": sha256_file(engine / "manifest.json"),
        "precision": "fp32",
        "verdict": "reference",
        "median_ms": 1.0,
    }
    choice: dict[str, Any] = {"bundle": bundle, "chosen": engine.name, "reason": "the only one", "versions": {}}
    choice |= {"candidates": [candidate], "rounds": 1, "images_per_round": 1, "threads": 1, "machine": "test"}
    Choice.parse(choice, source="test").write(engine.parent / "choice.json")
