"""The accuracy that stands beside a speed: the evaluation of the engine that was measured."""

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
    """What one engine is worth, and the arithmetic that made the number."""

    engine: str
    bundle: str
    """The id of the bundle; answers carry it, so that a result file has it too."""
    arithmetic: str
    evaluation: AnyEngineEvaluation

    @classmethod
    def open(cls, engine: Path) -> Self:
        """Of an engine folder, every file checked against its manifest.

        Raises:
            ManifestError: no engine here, a changed file, or an engine that was never evaluated.
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
