"""The result file of the study."""

from typing import Literal

from slipway.contract.evidence.studies import Failures, Part, ServedResult


class OperateAlarm(Part):
    """The alarm of the watch: the images have changed."""

    seconds: float
    """Seconds since the first image of the new class could come."""
    requests: int
    sampled_rows: int
    """Rows of the journal until the alarm."""
    event: str


class OperateEstimate(Part):
    """Accuracy by the watch, with its 95 % interval."""

    value: float
    low: float
    high: float
    labels: int
    truth: float
    """Accuracy of the same rows, by the truth that the clients know."""


class OperateStudio(Part):
    """The work of an annotator, played by a program, in Label Studio."""

    version: str
    answered: int
    typed: int
    """Answers with a class that Label Studio did not offer yet."""
    suggested: int
    """Tasks that came with the classifier's answer as a suggestion."""
    right: int
    """Suggestions that were right."""


class OperateResult(ServedResult):
    """The study `operate`: one turn of the life after deployment, and a spoilt candidate."""

    rate_per_s: float
    new_share: float
    """Share of the images that show the new class."""
    accuracy: dict[str, float]
    """Share of right answers, by the truth that the clients know: `before` the new class, `shifted` with it, and
    `after` the promotion, on images that were neither labelled nor learnt."""
    recovered_share: float
    """Share of the lost accuracy that came back: (after - shifted) / (before - shifted)."""
    alarm: OperateAlarm
    estimate: OperateEstimate
    labels: int
    labels_by: Literal["Label Studio", "CSV"] = "CSV"
    label_studio: OperateStudio | None = None
    """Facts of the labelling in Label Studio; absent where labels came by CSV files."""
    requests: int
    failed: int
    parity: Failures
    """Replays of the journal by their outcome."""
    spoilt_answers: int
    """Requests that the spoilt head answered before it was rolled back."""
    marks_s: dict[str, float]
    steps_s: dict[str, float]
    seconds: float
