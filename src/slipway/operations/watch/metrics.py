"""The watch's metrics for Prometheus."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator

from slipway.errors import requiring
from slipway.operations.watch.accuracy import Estimate
from slipway.operations.watch.facts import ClassRecall, Drift, Facts, Watched, mean_of

with requiring("prometheus_client", extra="operate"):
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

PREFIX = "slipway_watch"
MOST_CLASSES, OTHER = 50, "other"
"""Classes with a series of their own: the most frequent on the test split, which never change; the others are added up,
in a counter that never falls. Recall and precision have no sum: theirs are left out."""
Labels = tuple[str, ...]
Value = tuple[Labels, float]


class WatchMetrics:
    """Metrics of the endpoint. The watch's thread sets the facts after each look."""

    def __init__(self) -> None:
        self.facts: tuple[Facts, ...] = ()
        self.looked_s = 0.0
        """Unix time of the last look that ended without an error."""
        self.turns_waiting: Collection[str] = ()
        """Classifiers of which a proposal or an open turn waits for a person."""

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client."""
        for family, metrics in ((CounterMetricFamily, _COUNTERS), (GaugeMetricFamily, _GAUGES)):
            for name, (help_text, labels, values) in metrics.items():
                metric = family(f"{PREFIX}_{name}", help_text, labels=("classifier", *labels))
                for facts in self.facts:
                    for own, value in values(facts):
                        metric.add_metric((facts.classifier, *own), value)
                yield metric
        waiting = "Whether a proposal or an open turn waits for a person"
        waits = GaugeMetricFamily(f"{PREFIX}_turn_waits", waiting, labels=("classifier",))
        for facts in self.facts:
            waits.add_metric((facts.classifier,), facts.classifier in self.turns_waiting)
        yield waits
        looked = "Time of the last look at the journal without an error"
        yield GaugeMetricFamily(f"{PREFIX}_looked_timestamp_seconds", looked, value=self.looked_s)


def _one(value: Callable[[Facts], float | None]) -> Callable[[Facts], Iterator[Value]]:
    """A metric without labels; nothing where the value is None."""

    def found(facts: Facts) -> Iterator[Value]:
        if (one := value(facts)) is not None:
            yield (), one

    return found


def _images(facts: Facts) -> Iterator[Value]:
    for one in facts.statuses:
        yield (one.name,), one.rows


def _of_watched(values: Callable[[Watched], Iterator[Value]]) -> Callable[[Facts], Iterator[Value]]:
    """Nothing for a classifier without a reference of its bundle."""

    def found(facts: Facts) -> Iterator[Value]:
        if facts.watched is not None:
            yield from values(facts.watched)

    return found


def _one_of_watched(value: Callable[[Watched], float | None]) -> Callable[[Facts], Iterator[Value]]:
    return _one(lambda facts: None if facts.watched is None else value(facts.watched))


def _one_of_drift(value: Callable[[Drift], float | None]) -> Callable[[Facts], Iterator[Value]]:
    return _one_of_watched(lambda found: None if found.drift is None else value(found.drift))


def _own_series(found: Watched) -> set[int]:
    """The ids of the classes with a series of their own."""
    ordered = sorted(found.predicted, key=lambda one: (-one.reference_rows, one.class_id))
    return {one.class_id for one in ordered[:MOST_CLASSES]}


def _predicted(found: Watched) -> Iterator[Value]:
    own, rows = _own_series(found), Counter[str]()
    for one in found.predicted:
        rows[one.label if one.class_id in own else OTHER] += one.rows
    for label, count in rows.items():
        yield (label,), count


def _bounds(labels: Labels, estimate: Estimate | None) -> Iterator[Value]:
    if estimate is not None:
        for bound in ("value", "low", "high"):
            yield (*labels, bound), getattr(estimate, bound)


def _recall_alarms(found: Watched) -> Iterator[Value]:
    for one in found.recalls:
        if one.estimate is not None and one.reference is not None:
            yield (one.label,), one.alarm


def _measured(found: Watched) -> list[ClassRecall]:
    """The classes whose recall and precision have series: those whose answers have one, and those with an alarm."""
    own = _own_series(found)
    return [one for one in found.recalls if one.class_id in own or one.alarm]


def _recall(found: Watched) -> Iterator[Value]:
    for one in _measured(found):
        yield from _bounds((one.label,), one.estimate)


def _precision(found: Watched) -> Iterator[Value]:
    for one in _measured(found):
        yield from _bounds((one.label,), one.precision)


def _gap(found: Watched) -> Iterator[Value]:
    for one in found.gap:
        yield (one.measure,), one.distance


def _shorter_side(found: Watched) -> Iterator[Value]:
    if (side := found.inputs.shorter_side) is not None:
        yield from ((("0.05",), side.low), (("0.5",), side.median), (("0.95",), side.high))


def _formats(found: Watched) -> Iterator[Value]:
    for one in found.inputs.formats:
        yield (one.name,), one.rows


def _reference_rows(found: Watched) -> Iterator[Value]:
    yield ("test",), found.test_rows
    if found.live_rows is not None:
        yield ("live",), found.live_rows


_COUNTERS: dict[str, tuple[str, Labels, Callable[[Facts], Iterator[Value]]]] = {
    "rows": ("Rows of the journal", (), _one(lambda facts: facts.rows)),
    "images": ("Rows by STATUS", ("status",), _images),
    "predicted": ("Accepted rows of the present bundle by answer", ("class",), _of_watched(_predicted)),
    "labels_asked": ("Rows that people were asked for", (), _one(lambda facts: facts.labels_asked)),
    "labels": ("Rows with a label", (), _one(lambda facts: facts.labels_given)),
}
_GAUGES: dict[str, tuple[str, Labels, Callable[[Facts], Iterator[Value]]]] = {
    "watched": ("Whether drift is watched", (), _one(lambda facts: facts.drift_is_watched)),
    "drift_log10_evidence": ("Evidence of a change", (), _one_of_drift(lambda drift: drift.log10_evidence)),
    "drift_log10_threshold": ("Evidence that is an alarm", (), _one_of_drift(lambda drift: drift.log10_threshold)),
    "drift_alarm": ("Whether images or answers have changed", (), _one_of_drift(lambda drift: drift.alarm is not None)),
    "mean_confidence": ("Mean confidence of the newest rows", (), _one_of_watched(lambda found: found.mean_confidence)),
    "accuracy": (
        "Accuracy from labels, with its 95 % interval",
        ("bound",),
        _of_watched(lambda found: _bounds((), found.accuracy.estimate)),
    ),
    "accuracy_reference": ("Accuracy on the test split", (), _one_of_watched(lambda found: found.accuracy.reference)),
    "accuracy_alarm": (
        "Whether the accuracy is shown to be lower",
        (),
        _one_of_watched(lambda found: found.accuracy.alarm),
    ),
    "recall_alarm": ("Whether a class's recall is shown to be lower", ("class",), _of_watched(_recall_alarms)),
    "recall": ("Recall of a class from labels, with its 95 % interval", ("class", "bound"), _of_watched(_recall)),
    "precision": ("Precision of a class from labels, likewise", ("class", "bound"), _of_watched(_precision)),
    "gap": ("Difference of live rows from the test split", ("measure",), _of_watched(_gap)),
    "mean_brightness": (
        "Mean brightness of the newest images",
        (),
        _one_of_watched(lambda found: mean_of(found.inputs.brightness.latest)),
    ),
    "shorter_side_pixels": ("Shorter side of the newest images", ("quantile",), _of_watched(_shorter_side)),
    "format_rows": ("The newest images by format", ("format",), _of_watched(_formats)),
    "reference_rows": ("Rows of the references", ("source",), _of_watched(_reference_rows)),
    "rows_per_second": ("Rows a second in the last hour", (), _one(lambda facts: facts.rows_per_second)),
}
