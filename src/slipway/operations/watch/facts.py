"""The facts on one classifier at one time: the content of its page, its metrics and its status."""

import math
from typing import Literal, TypeAlias

from pydantic import Field

from slipway.contract.typed_file import Contract
from slipway.operations.watch.accuracy import Estimate
from slipway.operations.watch.reference import Detector

ReferenceSource: TypeAlias = Literal["test", "live"]
"""Source of the drift detectors' reference: the bundle's test split, or its first live rows."""

CONFIDENCE_BINS = 20
"""Bins of equal width between 0 and 1."""
BRIGHTNESS_BINS = 20
LATEST_ROWS = 1_000
"""Rows whose confidence, brightness, sizes and formats count as the latest."""
MOST_POINTS = 300
"""Points of the history of the evidence."""


class Count(Contract):
    """Number of rows with one value, such as a format or size."""

    name: str
    rows: int


class PredictedClass(Contract):
    """Number of answers with a class. The class id -1 is `unknown`."""

    class_id: int
    label: str
    rows: int
    """Accepted live rows with this answer, of the present bundle."""
    latest_rows: int
    """Latest rows with this answer. Shares are of the latest rows, since those of all rows would hide a change for
    weeks."""
    reference_rows: int
    """Rows of the test split with this answer."""


class Histogram(Contract):
    """Rows by bins of equal width between 0 and 1, in the reference and of the latest rows."""

    reference: tuple[int, ...]
    """Rows of the test split by bin."""
    latest: tuple[int, ...]
    """The latest rows by bin."""

    @property
    def edges(self) -> tuple[float, ...]:
        """One more than the number of bins."""
        bins = len(self.latest)
        return tuple(number / bins for number in range(bins + 1))


def mean_of(bins: tuple[int, ...]) -> float | None:
    """Return the mean of values that were counted in bins of equal width between 0 and 1, by the middle of each bin.

    Returns:
        None if nothing was counted.
    """
    total = sum(bins)
    if not total:
        return None
    return sum(count * (number + 0.5) / len(bins) for number, count in enumerate(bins)) / total


class Point(Contract):
    """The evidence after a batch of rows."""

    time_s: float
    """Unix time of the batch's last row."""
    row: int
    """Rows since the drift detectors began."""
    log10_evidence: float


class DriftAlarm(Contract):
    """The first row at which the evidence sufficed."""

    row: int
    """Number of the row since the drift detectors began, from 0."""
    since_row: int
    """Most likely first row of the change."""
    time_s: float
    """Unix time of the row."""
    since_s: float | None
    """Unix time of `since_row`; None if rows were removed meanwhile."""
    journal_row: int
    """The row's number in the journal."""
    since_journal_row: int | None
    """Number of `since_row` in the journal."""
    detector: Detector
    event: str
    """Event that became more frequent, such as `distance over 0.62`."""


class Drift(Contract):
    """The state of the drift detectors."""

    source: ReferenceSource
    """The reference that they compare with."""
    reference_rows: int
    rows: int
    """Live rows since they began."""
    since_s: float | None
    """Unix time of the first of these rows."""
    log10_evidence: float | None
    """None before the first row."""
    log10_threshold: float
    """The alarm is where the evidence reaches it: the logarithm of the asked number of rows between false alarms."""
    alarm: DriftAlarm | None
    history: tuple[Point, ...] = Field(max_length=MOST_POINTS)


class AccuracyFacts(Contract):
    """The accuracy of live answers, from the labels."""

    estimate: Estimate | None
    """None without a label."""
    reference: float
    """Accuracy on the test split, as the server answered it."""
    points: float
    """Loss tolerated without an alarm, in percentage points."""
    alarm: bool
    """Whether the whole interval lies below the lower bound of the reference less `points`."""
    rows: int
    """Rows that a selection considered for a label, on which the estimate stands."""


class ClassRecall(Contract):
    """The recall and the precision of one class, from the labels."""

    label: str
    class_id: int | None
    """None for a class that the bundle does not know."""
    reference: float | None
    """Recall on the test split; None for a class without an image there."""
    estimate: Estimate | None
    """Recall on live rows; None if no label names the class."""
    precision: Estimate | None
    """Share of right answers among the live rows with this answer; None if none of them has a label."""
    alarm: bool
    """Whether the recall is shown to be lower than on the test split."""


class Quantiles(Contract):
    """The 5th, 50th and 95th percentile of the values."""

    low: float
    median: float
    high: float


class Gap(Contract):
    """Difference of live rows from the test split in one measure."""

    measure: str
    """`confidence`, `distance`, `norm`, `brightness` or `class`."""
    reference: Quantiles | None
    """Quantiles on the test split; None for `class`."""
    live: Quantiles | None
    distance: float
    """Largest difference of the two distribution functions (Kolmogorov and Smirnov); for `class`, half the sum of the
    differences of all shares. Both lie between 0 (the same) and 1."""


class Inputs(Contract):
    """Measures of the images: the latest rows, beside the test split."""

    rows: int
    formats: tuple[Count, ...]
    reference_formats: tuple[Count, ...]
    sizes: tuple[Count, ...]
    """The most frequent sizes, such as `640x480`."""
    reference_sizes: tuple[Count, ...]
    shorter_side: Quantiles | None
    """Pixels; None if no image could be read."""
    reference_shorter_side: Quantiles | None
    bytes: Quantiles | None
    reference_bytes: Quantiles | None
    brightness: Histogram


class GatewayLatency(Contract):
    """Latency of the ensemble at the gateway in the last minutes."""

    requests: int
    seconds: float | None
    """Time in which these requests came; None for all since the gateway started, by its first reading."""
    p50_ms: float | None
    """Upper edge of the histogram's bucket that holds it; None if it lies over the last edge."""
    p99_ms: float | None
    budget_ms: float
    over_budget: int | None
    """Requests over the latency budget; None if the gateway does not count at the budget."""
    is_default_budget: bool = False
    """Whether `budgets_ms` of gateway.yaml gives the ensemble no budget, so that the default counts."""

    @property
    def per_second(self) -> float | None:
        return self.requests / self.seconds if self.seconds else None

    @property
    def budget(self) -> str:
        """The budget in words."""
        by_default = " by default (budgets_ms sets it)" if self.is_default_budget else ""
        return f"{self.budget_ms:g} ms{by_default}"

    @property
    def when(self) -> str:
        """The time of the requests in words."""
        if self.seconds is None:
            return "since the gateway started"
        return f"in the last {self.seconds / 60:.0f} min" if self.seconds >= 90 else f"in the last {self.seconds:.0f} s"

    @property
    def is_over(self) -> bool:
        """Whether over 1 % are over the budget now, beyond what chance explains; as the alert SlipwayOverBudget."""
        if self.seconds is None or self.over_budget is None:
            return False
        expected = 0.01 * self.requests
        return self.over_budget > expected + 3 * math.sqrt(expected) + 1


class Watched(Contract):
    """Facts on a bundle with a reference."""

    since_s: float
    """Unix time at which the watch of this bundle began."""
    test_rows: int
    """Rows of the test split's reference."""
    live_rows: int | None
    """Rows of the live reference; None while there is none."""
    live_since_s: float | None
    """Unix time at which the live reference took over for drift."""
    live_told: str
    """A sentence on why the live reference was taken, or what is missing for it."""
    predicted: tuple[PredictedClass, ...]
    """Most frequent first; classes without a row are included."""
    confidence: Histogram
    mean_confidence: float | None
    """Mean over the latest rows."""
    drift: Drift | None
    """None while there is no reference: the test split has under 100 images, or live rows are to give one. `told` says
    so."""
    accuracy: AccuracyFacts
    recalls: tuple[ClassRecall, ...]
    gap: tuple[Gap, ...]
    """Gaps of the live reference, or of the newest rows until it exists. Empty before the first 100 live rows."""
    inputs: Inputs
    restarts: int
    """Number of alarms that were dealt with."""


class Facts(Contract):
    """One classifier at one time."""

    classifier: str
    bundle: str | None
    """Id of the bundle of the newest row; None without a row."""
    looked_s: float
    """Unix time of the watch's last look at the journal."""
    told: tuple[str, ...]
    """Sentences on what a person must know or do: a missing reference, an alarm and its remedy, a fault."""
    rows: int
    """Rows of the journal of every bundle and STATUS, refused images included."""
    rows_per_second: float
    """Rows per second in the hour before the look."""
    last_s: float | None
    """Unix time of the newest row."""
    statuses: tuple[Count, ...]
    """Rows by the name of their STATUS, most frequent first."""
    labels_asked: int
    labels_given: int
    """Rows with at least one label."""
    latency: GatewayLatency | None
    """None if the gateway has had no request for it, or does not answer."""
    watched: Watched | None
    """None without a reference of this bundle; `told` says what to do."""

    @property
    def drift_is_watched(self) -> bool:
        """Whether a change of the images could be told."""
        return self.watched is not None and self.watched.drift is not None

    @property
    def alarms(self) -> bool:
        """Whether any alarm is on."""
        if self.watched is None:
            return False
        drift = self.watched.drift is not None and self.watched.drift.alarm is not None
        return drift or self.watched.accuracy.alarm or any(one.alarm for one in self.watched.recalls)
