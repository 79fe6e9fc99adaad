"""A simulated server: Poisson arrivals, one queue before the processes of each step, and Triton's batching."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]
LIMIT_MS, QUANTILE = 50.0, 0.99
STEP = 1.1
"""Ratio of one rate of the grid to the rate before."""
FULL = 0.98
"""Largest utilisation of a step: above it the wait grows for as long as the simulation lasts."""
WARM_UP = 0.1
"""Share of the requests that are not counted."""


@dataclass(frozen=True)
class Step:
    """One step: its processes, and the time that each image takes of one."""

    processes: int
    work_ms: Times
    """Work of each request, `[n]`."""
    batch: int
    batch_share: float
    """Time of a batch over that of its images one by one."""

    def leave_ms(self, arrive_ms: Times) -> Times:
        """Return the time at which each request leaves, `[n]`; requests are served in the order in which they
        arrive."""
        order = np.argsort(arrive_ms, kind="stable")
        arrive, work = arrive_ms[order].tolist(), self.work_ms[order].tolist()
        free = [0.0] * self.processes
        left = np.empty(len(arrive))
        first, count = 0, len(arrive)
        while first < count:
            start = max(heapq.heappop(free), arrive[first])
            end = first + 1
            while end < count and end - first < self.batch and arrive[end] <= start:
                end += 1
            spent = sum(work[first:end]) * (self.batch_share if end - first > 1 else 1.0)
            left[first:end] = start + spent
            heapq.heappush(free, start + spent)
            first = end
        back = np.empty_like(left)
        back[order] = left
        return back


@dataclass(frozen=True)
class Layout:
    """Steps in a chain. Each has its share of the cores, or there is one step with all of them."""

    processes: tuple[int, ...]
    work_ms: tuple[Times, ...]
    batch: int
    batch_share: float
    slowing: float
    """Additional time, as a share, for each further busy core: 0.05 is 5 %."""

    def quantile_ms(self, rate_per_s: float, arrivals: Times, quantile: float = QUANTILE) -> float:
        """Return a quantile of the latency; infinite if a step is too busy. `arrivals` are those of one request a
        millisecond."""
        arrive_ms = arrivals * (1000 / rate_per_s)
        busy = rate_per_s / 1000 * sum(float(work.mean()) for work in self.work_ms)
        slower = 1 + self.slowing * max(0.0, min(busy, sum(self.processes)) - 1)
        share = slower * (self.batch_share if self.batch > 1 else 1.0) * rate_per_s / 1000
        if any(share * work.mean() > FULL * count for count, work in zip(self.processes, self.work_ms, strict=True)):
            return math.inf
        at_ms = arrive_ms
        for processes, work_ms in zip(self.processes, self.work_ms, strict=True):
            at_ms = Step(processes, work_ms * slower, self.batch, self.batch_share).leave_ms(at_ms)
        taken = (at_ms - arrive_ms)[int(WARM_UP * len(at_ms)) :]
        return float(np.quantile(taken, quantile))

    def capacity_per_s(self, arrivals: Times) -> float:
        """Find the highest rate of a grid whose P99 is within the limit; 0 if even a single request is not."""
        lone_ms = sum(float(work.mean()) for work in self.work_ms)
        rates = 1000 / lone_ms * sum(self.processes) * STEP ** np.arange(-40.0, 2.0)
        low, high = -1, len(rates)
        while high - low > 1:
            middle = (low + high) // 2
            if self.quantile_ms(float(rates[middle]), arrivals) <= LIMIT_MS:
                low = middle
            else:
                high = middle
        return float(rates[low]) if low >= 0 else 0.0


def steady_tail(processes: int, *, busy: float) -> float:
    """Return P99 over P50 where requests arrive at random, one queue feeds the processes, and all take equally long."""
    arrivals = np.random.default_rng(0).exponential(1.0, 100_000).cumsum()
    layout = Layout((processes,), (np.ones(len(arrivals)),), 1, 1.0, 0.0)
    p50, p99 = (layout.quantile_ms(1000 * busy * processes, arrivals, quantile) for quantile in (0.5, 0.99))
    return p99 / p50


def split(cores: int, work_ms: Sequence[Times]) -> tuple[int, int]:
    """Divide the cores between two steps by their work; each has at least one."""
    first = round(cores * float(work_ms[0].mean()) / sum(float(work.mean()) for work in work_ms))
    first = min(max(first, 1), cores - 1)
    return first, cores - first
