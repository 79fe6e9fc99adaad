"""The result file of the study."""

from slipway.contract.evidence.studies import DensityResult, Failures, Part, Started


class MadeHead(Part):
    """The JSON line of `slipway head`."""

    id: str
    seconds: float
    """Seconds that the verb took."""


class DensityFirstAnswer(Part):
    """Time from the images of a new task to the first answer of a server with its head."""

    images: int
    seconds: float
    """Seconds from the start of `slipway head`, without kept embeddings, to the answer."""
    head_s: float
    assemble_s: float
    ready_s: float


class DensityEqual(Part):
    """Answers of every head for the same images, by a server against those computed without one."""

    heads: int
    images: int
    engine: str
    """The base's engine that both used."""
    answers: int
    equal: int
    """Answers with the same bundle and label, and the same probabilities but for rounding."""
    max_probability_difference: float
    """Largest difference of two probabilities of a class; 1 if a label differs."""


class DensityChanges(Part):
    """Heads added, changed and removed under load; then one changed many times."""

    heads: int
    seconds: dict[str, dict[str, float]]
    """Seconds that `assemble` and `reload` took, for each kind of change."""
    requests: int
    failed: Failures
    mixed: int
    changes: int
    changed_among: int
    memory_mib_at_start_and_after_1_50_100: tuple[float, ...]


class DensityWhole(Part):
    """One whole classifier of the same network, and many."""

    classifiers: int
    alone: Started
    among: Started
    memory_mib_of_each_additional: float


class PairedLoss(Part):
    """Top-1 accuracy lost against FP32, in percentage points, with its 95 % interval."""

    points: float
    low_points: float
    high_points: float


class HeadLoss(Part):
    """Heads of one task on FP32 and INT8 embeddings of a base, cross-validated."""

    images: int
    folds: int
    top1: dict[str, float]
    loss: dict[str, PairedLoss]
    """Loss against FP32, for heads fitted to INT8 embeddings and for FP32's heads carried over to them."""


class FullDensityResult(DensityResult):
    """The study `density`, with every part that was run."""

    accuracy: dict[str, MadeHead] | None = None
    """Heads of real tasks; the line of each has its accuracy on every engine."""
    loss: dict[str, HeadLoss] | None = None
    first_answer: DensityFirstAnswer | None = None
    equal: DensityEqual | None = None
    changes: DensityChanges | None = None
    whole: DensityWhole | None = None
