"""The tails that studies measure at a share of what each side held."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.studies.climbing import BUSY, Asking, Bench, tail_line
from benchmarks.studies.effort import Effort
from slipway.benchmark.tuning import rung_at
from slipway.contract.evidence.latency import rate_at


class Slow:
    """Answers after 5 ms, image 0 after 50."""

    async def ask(self, image: int, *, deadline_s: float) -> str | None:
        await asyncio.sleep(min(deadline_s, 0.005 if image else 0.05))
        return None


@asynccontextmanager
async def slow() -> AsyncIterator[Asking]:
    yield Slow()


def test_each_side_is_measured_at_seventy_percent_of_its_own_mean_rung() -> None:
    effort = Effort(rounds=2, requests=60, search_rounds=1, start_per_s=60.0, limit_ms=50.0, seed=0)
    low, high = rung_at(100), rung_at(200)
    tails = Bench(images=8, effort=effort).tails({"one": slow, "two": slow}, {"one": [low] * 2, "two": [low, high]})
    assert tails["one"].rate_per_s == pytest.approx(BUSY * rate_at(low))
    assert tails["two"].rate_per_s == pytest.approx(BUSY * rate_at(round((low + high) / 2)))
    for tail in tails.values():
        assert 5 <= tail.p50_ms < tail.p99_ms
        assert tail.p99_ms >= 50
        assert tail.ratio == tail.p99_ms / tail.p50_ms
    assert "target 1.8; a queue of constant times, 70% busy: 1.0" in tail_line(tails["one"], processes=64)
