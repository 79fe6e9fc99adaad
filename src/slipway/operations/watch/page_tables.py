"""The tables of the watch's page: every classifier, and the classes and images of one."""

from collections.abc import Sequence

from slipway.operations.watch.facts import Facts, Histogram, Interval, Latency, Watched
from slipway.pages.tables import Badge, Cell, Column, Scale, Strip, Table, Tone, table
from slipway.pages.wording import NONE, percent, thousands
from slipway.system.text import shown

MOST_CLASSES = 50


def overview(facts: Sequence[Facts]) -> Table:
    """A row for each classifier."""
    evidence_axis = Scale.over([1.2, *(_evidence_share(one) or 0.0 for one in facts)], most=2.0)
    accuracy_axis = Scale.over([100.0])
    columns = (
        "Classifier",
        Column("P99 and its budget", words=True),
        Column("Confidence, reference", wide=True),
        Column("Evidence of drift ÷ alarm", axis=evidence_axis),
        Column("Accuracy, %", axis=accuracy_axis),
        Column("Labels given, asked", wide=True),
        "Rows",
        Column("State", words=True),
    )
    note = "the dashed line is the alarm, or the accuracy on the test split; a range is the 95 % interval."
    rows = [_row(one) for one in facts]
    return table("Classifiers", note, columns, rows)


def _row(facts: Facts) -> tuple[Cell, ...]:
    found = facts.watched
    return (
        shown(facts.classifier),
        latency_text(facts.latency),
        _confidence(found),
        _drift_cell(facts),
        _accuracy_cell(found),
        f"{thousands(facts.labels_given)}, {thousands(facts.labels_asked)}",
        thousands(facts.rows),
        _state(facts),
    )


def latency_text(latency: Latency | None) -> str:
    """P99 as the edge of its bucket, of which time it is, its budget, and the share over the budget."""
    if latency is None:
        return "no request yet, or the gateway does not answer"
    if not latency.requests:
        return f"no request {latency.when}"
    p99 = f"at most {latency.p99_ms:g} ms" if latency.p99_ms is not None else "over the last edge"
    over = f"; {percent(latency.over_budget / latency.requests)} over it" if latency.over_budget is not None else ""
    return f"{p99} {latency.when}, budget {latency.budget}{over}"


def _state(facts: Facts) -> Badge:
    if facts.alarms:
        return Badge("alarm", "bad")
    if not facts.drift_is_watched:
        return Badge("not watched", "warn")
    return Badge("no alarm", "good")


def _evidence_share(facts: Facts) -> float | None:
    drift = facts.watched.drift if facts.watched else None
    if drift is None or drift.log10_evidence is None or not drift.log10_threshold:
        return None
    return max(0.0, drift.log10_evidence / drift.log10_threshold)


def _drift_cell(facts: Facts) -> Cell:
    share = _evidence_share(facts)
    if share is None or facts.watched is None or facts.watched.drift is None:
        return Badge("not watched", "plain")
    tone: Tone = "bad" if facts.watched.drift.alarm else "plain"
    return Strip(f"{share:.0%}", share, limit=1.0, tone=tone)


def _accuracy_cell(found: Watched | None) -> Cell:
    if found is None or found.accuracy.estimate is None:
        return Badge("no labels", "plain")
    estimate = found.accuracy.estimate
    tone: Tone = "bad" if found.accuracy.alarm else "plain"
    low, high = 100 * estimate.low, 100 * estimate.high
    text = f"{100 * estimate.value:.1f} ({low:.1f} to {high:.1f}), test {100 * found.accuracy.reference:.1f}"
    return Strip(text, 100 * estimate.value, low, high, 100 * found.accuracy.reference, tone)


def _confidence(found: Watched | None) -> str:
    if found is None or found.mean_confidence is None:
        return NONE
    reference = _mean(found.confidence)
    return f"{found.mean_confidence:.3f}, {NONE if reference is None else f'{reference:.2f}'}"


def _mean(histogram: Histogram) -> float | None:
    """The mean of the reference by the middle of each bin; None if it was not measured."""
    total = sum(histogram.reference)
    if not total:
        return None
    bins = len(histogram.reference)
    return sum(count * (number + 0.5) / bins for number, count in enumerate(histogram.reference)) / total


def classes(found: Watched) -> Table:
    recalls = {one.label: one for one in found.recalls}
    live, test = (sum(getattr(one, name) for one in found.predicted) for name in ("latest_rows", "reference_rows"))
    scale = Scale.over([100.0])
    columns = ("Class", "Answers", "Share", Column("Share, test split", wide=True), Column("Recall, %", axis=scale))
    rows: list[tuple[Cell, ...]] = []
    for one in found.predicted[:MOST_CLASSES]:
        recall = recalls.pop(one.label, None)
        shares = (
            percent(one.latest_rows / live if live else None),
            percent(one.reference_rows / test if test else None),
        )
        cell = _recall_cell(recall.estimate, recall.reference, alarm=recall.alarm) if recall else ""
        rows.append((shown(one.label), thousands(one.rows), *shares, cell))
    for recall in [one for one in recalls.values() if one.class_id is None or one.alarm][:MOST_CLASSES]:
        cell = _recall_cell(recall.estimate, recall.reference, alarm=recall.alarm)
        rows.append((shown(recall.label), NONE, NONE, NONE, cell))
    more = len(found.predicted) - MOST_CLASSES
    note = "answers since the watch of this bundle began, shares of the newest rows; recall by labels, 95 % interval."
    return table("Classes", f"{note} {more} more classes are not shown." if more > 0 else note, columns, rows)


def _recall_cell(estimate: Interval | None, reference: float | None, *, alarm: bool) -> Cell:
    if estimate is None:
        return ""
    value, low, high = 100 * estimate.value, 100 * estimate.low, 100 * estimate.high
    limit = None if reference is None else 100 * reference
    return Strip(
        f"{value:.0f} ({low:.0f} to {high:.0f}), {estimate.labels} labels",
        value,
        low,
        high,
        limit,
        "bad" if alarm else "plain",
    )


def inputs(facts: Facts) -> Table | None:
    if not facts.statuses:
        return None
    total = sum(one.rows for one in facts.statuses)
    rows: list[tuple[Cell, ...]] = [
        (f"STATUS {shown(one.name)}", thousands(one.rows), percent(one.rows / total), NONE) for one in facts.statuses
    ]
    if facts.watched is not None:
        images = facts.watched.inputs
        for what, live, test in (
            ("format", images.formats, images.reference_formats),
            ("size", images.sizes, images.reference_sizes),
        ):
            expected = {one.name: one.rows for one in test}
            of_test, of_live = sum(expected.values()), images.rows
            for one in live:
                share = percent(expected.get(one.name, 0) / of_test if of_test else None)
                rows.append(
                    (
                        f"{what} {shown(one.name)}",
                        thousands(one.rows),
                        percent(one.rows / of_live if of_live else None),
                        share,
                    )
                )
    note = "STATUS of all rows; formats and the most frequent sizes of the latest rows."
    return table("Images", note, ("", "Rows", "Share", "Share, test split"), rows)
