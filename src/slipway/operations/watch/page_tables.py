"""The tables of the watch's page: every classifier, and the classes, gap and images of one."""

from collections.abc import Callable, Sequence

from slipway.operations.watch.accuracy import Estimate
from slipway.operations.watch.facts import ClassRecall, Facts, GatewayLatency, Quantiles, Watched, mean_of
from slipway.pages.tables import Badge, Cell, Column, Scale, Strip, Table, Tone, table
from slipway.pages.wording import NONE, figures, percent, thousands
from slipway.system.text import shown

MOST_CLASSES = 50
_QUANTILES = ("Live, median (5 to 95 %)", Column("Test split", wide=True))


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


def latency_text(latency: GatewayLatency | None) -> str:
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
    reference = mean_of(found.confidence.reference)
    return f"{found.mean_confidence:.3f}, {NONE if reference is None else f'{reference:.2f}'}"


def classes(found: Watched) -> Table:
    recalls = {one.label: one for one in found.recalls}
    live, test = (sum(getattr(one, name) for one in found.predicted) for name in ("latest_rows", "reference_rows"))
    scale = Scale.over([100.0])
    measures = (Column("Recall, %", axis=scale), Column("Precision, %", axis=scale))
    columns = ("Class", "Answers", "Share", Column("Share, test split", wide=True), *measures)
    rows: list[tuple[Cell, ...]] = []
    for one in found.predicted[:MOST_CLASSES]:
        recall = recalls.pop(one.label, None)
        shares = (
            percent(one.latest_rows / live if live else None),
            percent(one.reference_rows / test if test else None),
        )
        rows.append((shown(one.label), thousands(one.rows), *shares, *_recall_and_precision(recall)))
    for recall in [one for one in recalls.values() if one.class_id is None or one.alarm][:MOST_CLASSES]:
        rows.append((shown(recall.label), NONE, NONE, NONE, *_recall_and_precision(recall)))
    more = len(found.predicted) - MOST_CLASSES
    note = (
        "answers since the watch of this bundle began, shares of the newest rows; recall and precision by labels, with "
        "95 % intervals. The dashed line is the recall on the test split."
    )
    return table("Classes", f"{note} {more} more classes are not shown." if more > 0 else note, columns, rows)


def _recall_and_precision(measured: ClassRecall | None) -> tuple[Cell, Cell]:
    if measured is None:
        return "", ""
    recall = _estimate_cell(measured.estimate, measured.reference, alarm=measured.alarm)
    return recall, _estimate_cell(measured.precision)


def _estimate_cell(estimate: Estimate | None, reference: float | None = None, *, alarm: bool = False) -> Cell:
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


def gap(found: Watched) -> Table | None:
    """Show how live rows differ from the test split, measure by measure."""
    if not found.gap:
        return None
    live = "the newest rows" if found.live_rows is None else f"the live reference, {thousands(found.live_rows)} rows"
    note = f"{live}; 0 is equal, 1 disjoint. Distance, norm and brightness are as drift is watched (docs/watch.md)."
    columns = ("Measure", Column("Gap", axis=Scale.over([1.0])), *_QUANTILES)
    rows: list[tuple[Cell, ...]] = [
        (one.measure, Strip(f"{one.distance:.2f}", one.distance), _quantiles(one.live), _quantiles(one.reference))
        for one in found.gap
    ]
    return table("Live rows beside the test split", note, columns, rows)


def sizes(found: Watched) -> Table | None:
    """Pixels and bytes of the latest images, beside the test split."""
    images = found.inputs
    rows: list[tuple[Cell, ...]] = [
        (what, _quantiles(live, _whole), _quantiles(test, _whole))
        for what, live, test in (
            ("shorter side, pixels", images.shorter_side, images.reference_shorter_side),
            ("file, bytes", images.bytes, images.reference_bytes),
        )
        if live is not None
    ]
    return table("Sizes", "of the latest images.", ("", *_QUANTILES), rows) if rows else None


def _quantiles(found: Quantiles | None, text: Callable[[float], str] = figures) -> str:
    return NONE if found is None else f"{text(found.median)} ({text(found.low)} to {text(found.high)})"


def _whole(value: float) -> str:
    return thousands(round(value))


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
