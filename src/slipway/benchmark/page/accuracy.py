"""The accuracy that stands beside a speed: the evaluation of the engine that was measured."""

from pathlib import Path
from typing import Self

from slipway.benchmark.page.shapes import Shown
from slipway.contract.engine import EngineSettings
from slipway.contract.manifest import Manifest
from slipway.errors import ManifestError

EVALUATION = "evaluation.json"


class Loss(Shown):
    """Of top-1 against FP32, in percentage points, with its exact interval."""

    loss_points: float
    loss_low_points: float
    loss_high_points: float


class Gated(Shown):
    verdict: str
    overall: Loss


class Evaluation(Shown):
    """`evaluation.json` of an engine."""

    split: str
    images: int
    top1: float | None = None
    """Of one label an image."""
    exact_match: float | None = None
    """Of many: the share of images with all of their labels and no other."""
    gate: Gated | None = None
    """None for FP32, which is what the others are compared with."""


class Accuracy(Shown):
    """What one engine is worth, and the arithmetic that made the number."""

    engine: str
    bundle: str
    """The id of the bundle; answers carry it, so that a result file has it too."""
    arithmetic: str
    evaluation: Evaluation

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
            evaluation=Evaluation.read(engine / EVALUATION),
        )
