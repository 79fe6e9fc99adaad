"""Reads the accuracy to show beside a speed: the evaluation of the measured engine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from slipway.contract import Decision
from slipway.contract.engine import EngineSettings
from slipway.contract.evidence.evaluation import EVALUATION, AnyEngineEvaluation, read_engine_evaluation
from slipway.contract.manifest import Manifest
from slipway.errors import ManifestError


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of one engine, and its arithmetic."""

    engine: str
    bundle: str
    """The bundle's id. Answers carry it, so result files have it too."""
    arithmetic: str
    evaluation: AnyEngineEvaluation

    @classmethod
    def open(cls, engine: Path) -> Self:
        """Open an engine folder and check every file against its manifest.

        Raises:
            ManifestError: the folder holds no engine, a file has changed, or the engine was never evaluated.
        """
        manifest = Manifest.open(engine, kind="engine")
        if EVALUATION not in manifest.outputs:
            raise ManifestError(f"{engine}: no {EVALUATION}: this engine was not evaluated; give one that was")
        settings = EngineSettings.read(engine / "engine.json")
        return cls(
            engine=engine.resolve().name,
            bundle=str(manifest.bundle),
            arithmetic=settings.arithmetic,
            evaluation=read_engine_evaluation(engine, task=Decision.read(engine / "decision.json").task),
        )
