"""Latency at the gateway, as the watch's page and status show it."""

from pathlib import Path

import pytest

from slipway.operations.watch import latency as latencies
from slipway.operations.watch.latency import Counted, LatencyReader, counts_of, latency_of
from tests.support.watch_rows import watch_settings

LATENCY = """# TYPE envoy_slipway_latency_us histogram
envoy_slipway_latency_us_bucket{arm="stable",model="digits",le="10000"} 50
envoy_slipway_latency_us_bucket{arm="stable",model="digits",le="50000"} 90
envoy_slipway_latency_us_bucket{arm="stable",model="digits",le="+Inf"} 90
envoy_slipway_latency_us_sum{arm="stable",model="digits"} 9
envoy_slipway_latency_us_count{arm="stable",model="digits"} 90
envoy_slipway_latency_us_bucket{arm="candidate",model="digits",le="10000"} 5
envoy_slipway_latency_us_bucket{arm="candidate",model="digits",le="50000"} 8
envoy_slipway_latency_us_bucket{arm="candidate",model="digits",le="+Inf"} 10
envoy_slipway_latency_us_sum{arm="candidate",model="digits"} 9
envoy_slipway_latency_us_count{arm="candidate",model="digits"} 10
"""


def test_latency_is_that_of_both_arms_histograms_together() -> None:
    found = latency_of(counts_of(LATENCY)["digits"], budget_ms=50.0, seconds=None)
    assert (found.requests, found.p50_ms, found.p99_ms, found.budget_ms) == (100, 10.0, None, 50.0)
    assert found.over_budget == 2


def test_latency_is_that_of_the_last_ten_minutes_however_long_the_gateway_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def latest(now_s: float, counted: Counted) -> tuple[float | None, str, int | None]:
        monkeypatch.setattr(latencies, "read_counts", lambda _: {"digits": counted})
        with monkeypatch.context() as clock:
            clock.setattr(latencies.time, "monotonic", lambda: now_s)
            found = reader.latest()["digits"]
        return found.p99_ms, found.when, found.over_budget

    reader = LatencyReader(watch_settings(tmp_path))
    monkeypatch.setattr(latencies, "WAIT_S", 600.0)
    fast = Counted(1_000_000, {10.0: 1_000_000, 50.0: 1_000_000, 90.0: 1_000_000})
    assert latest(1000, fast) == (10.0, "since the gateway started", 0)
    slow = Counted(1_000_100, {10.0: 1_000_000, 50.0: 1_000_010, 90.0: 1_000_100})
    assert latest(1030, slow) == (90.0, "in the last 30 s", 90)
    assert latest(1600, slow) == (90.0, "in the last 10 min", 90)
    assert latest(1640, slow) == (None, "in the last 10 min", 0), "no request since"
    assert latest(1650, Counted(10, {10.0: 10, 50.0: 10})) == (10.0, "since the gateway started", 0), "started again"
