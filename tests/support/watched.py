"""Facts of the watch about one classifier."""

import math
from typing import Any

from slipway.operations.watch.accuracy import Estimate
from slipway.operations.watch.facts import (
    AccuracyFacts,
    ClassRecall,
    Count,
    Drift,
    DriftAlarm,
    Facts,
    Gap,
    GatewayLatency,
    Histogram,
    Inputs,
    Point,
    PredictedClass,
    Quantiles,
    Watched,
)


def made_watched(
    *, drifted: bool = False, accuracy: float | None = 0.93, labels: tuple[str, ...] = ("red", "blue")
) -> Watched:
    evidence = tuple(
        Point(time_s=1e9 + 10 * n, row=n, log10_evidence=7 * n / 100 if drifted else math.sin(n / 9))
        for n in range(100)
    )
    alarm = DriftAlarm(
        row=80,
        since_row=40,
        time_s=1e9 + 800,
        since_s=1e9 + 400,
        journal_row=81,
        since_journal_row=41,
        detector="distance",
        event="distance over 0.62",
    )
    estimate = (
        None
        if accuracy is None
        else Estimate(value=accuracy, low=accuracy - 0.03, high=min(1, accuracy + 0.02), labels=120)
    )
    low = accuracy is not None and accuracy + 0.02 < 0.95
    histogram = Histogram(reference=tuple(range(20)), latest=tuple(5 + n * n for n in range(20)))
    recall, precision = (Estimate(value=share, low=share - 0.2, high=share + 0.1, labels=20) for share in (0.5, 0.7))
    pixels = Quantiles(low=480, median=512, high=1080)
    return Watched(
        since_s=1e9,
        test_rows=500,
        live_rows=None,
        live_since_s=None,
        live_told="the live reference needs 400 more rows",
        predicted=tuple(
            PredictedClass(class_id=n, label=label, rows=600 - n, latest_rows=300 - n, reference_rows=200)
            for n, label in enumerate(labels)
        ),
        confidence=histogram,
        mean_confidence=0.812,
        drift=Drift(
            source="test",
            reference_rows=500,
            rows=1000,
            since_s=1e9,
            log10_evidence=evidence[-1].log10_evidence,
            log10_threshold=5.635,
            alarm=alarm if drifted else None,
            history=evidence,
        ),
        accuracy=AccuracyFacts(estimate=estimate, reference=0.97, points=2.0, alarm=low, rows=1000),
        recalls=tuple(
            ClassRecall(
                label=label, class_id=n, reference=0.95, estimate=recall, precision=precision, alarm=low and n == 0
            )
            for n, label in enumerate(labels)
        ),
        gap=(
            Gap(
                measure="brightness",
                reference=Quantiles(low=0.9, median=1, high=1.1),
                live=Quantiles(low=0.5, median=0.6, high=0.7),
                distance=0.62,
            ),
            Gap(measure="class", reference=None, live=None, distance=0.03),
        ),
        inputs=Inputs(
            rows=1000,
            formats=(Count(name="JPEG", rows=900), Count(name="PNG", rows=100)),
            reference_formats=(Count(name="JPEG", rows=500),),
            sizes=(Count(name="640x480", rows=800),),
            reference_sizes=(),
            shorter_side=pixels,
            reference_shorter_side=None,
            bytes=None,
            reference_bytes=None,
            brightness=histogram,
        ),
        restarts=0,
    )


def made_latency(*, requests: int = 20_000, seconds: float | None = 600.0, over_budget: int = 40) -> GatewayLatency:
    return GatewayLatency(
        requests=requests, seconds=seconds, p50_ms=10, p99_ms=30, budget_ms=35, over_budget=over_budget
    )


def made_facts(classifier: str = "colours", **changes: Any) -> Facts:
    values: dict[str, Any] = {
        "classifier": classifier,
        "bundle": "0123456789abcdef",
        "looked_s": 1e9 + 1000,
        "told": (),
        "rows": 1100,
        "rows_per_second": 3.2,
        "last_s": 1e9 + 999,
        "statuses": (Count(name="OK", rows=1050), Count(name="NOT_AN_IMAGE", rows=50)),
        "labels_asked": 150,
        "labels_given": 120,
        "latency": made_latency(),
        "watched": made_watched(),
    }
    return Facts(**values | changes)
