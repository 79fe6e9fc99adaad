"""Simulates boxes under Poisson arrivals, many at once: one queue for the cores, or cores that all requests divide."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.studies.study import RESULTS
from slipway.contract.evidence.latency import CapacityResult

Array = npt.NDArray[np.float64]
Discipline = Literal["queue", "shared"]
DISCIPLINES: tuple[Discipline, ...] = ("queue", "shared")
SLOTS = 64
"""Largest number of requests in a box of kind `shared`; more are refused, and count as over the limit."""
DEADLINE_MS = 1000.0
"""Time after which a client gives up: the longest latency that is counted."""
WARM_UP = 500


@dataclass(frozen=True)
class Traffic:
    """The requests to each of many boxes."""

    rates_per_s: Array
    """Images a second, `[boxes, classifiers]`; 0 where a box has fewer classifiers."""
    service_ms: Array
    """Mean service time, `[boxes, classifiers]`."""
    cores: int


@dataclass(frozen=True)
class Latencies:
    """Latencies in ms and the classifier of each, `[requests, boxes]`; a refused request has the deadline."""

    latency_ms: Array
    classifier: npt.NDArray[np.int64]


@cache
def shape() -> tuple[float, ...]:
    """Return service times relative to their mean, at 1,000 quantiles: latencies of the digits at 50 images/s, where a
    box is 18 % busy. The little waiting in them makes the shape wider than that of the service alone."""
    from hdrh.histogram import HdrHistogram

    rungs = CapacityResult.read(RESULTS / "digits-capacity-cpu.json").rungs
    histogram = HdrHistogram.decode(rungs[0].blocks[0].histogram)
    values = np.array([histogram.get_value_at_percentile(p) for p in np.linspace(0.05, 99.95, 1000)], dtype=float)
    return tuple(values / values.mean())


def served(traffic: Traffic, rng: np.random.Generator, *, requests: int, discipline: Discipline) -> Latencies:
    """Serve `requests` requests at each box, after a warm-up."""
    count = requests + WARM_UP
    boxes = len(traffic.rates_per_s)
    total = traffic.rates_per_s.sum(axis=1)
    chance = np.cumsum(traffic.rates_per_s / total[:, None], axis=1)
    drawn = rng.random((count, boxes))
    classifier = (drawn[:, :, None] > chance[None]).sum(axis=2).clip(max=chance.shape[1] - 1)
    arrival_ms = np.cumsum(rng.exponential(1000 / total, (count, boxes)), axis=0)
    relative = np.array(shape())[rng.integers(0, 1000, (count, boxes))]
    work_ms = relative * traffic.service_ms[np.arange(boxes), classifier]
    serve = _queued if discipline == "queue" else _divided
    latency_ms = serve(arrival_ms, work_ms, traffic.cores)
    return Latencies(np.minimum(latency_ms[WARM_UP:], DEADLINE_MS), classifier[WARM_UP:])


def _queued(arrival_ms: Array, work_ms: Array, cores: int) -> Array:
    """Serve in the order of arrival, on so many cores."""
    free_ms = np.zeros((arrival_ms.shape[1], cores))
    every = np.arange(len(free_ms))
    latency_ms = np.empty_like(arrival_ms)
    for number, (now_ms, work) in enumerate(zip(arrival_ms, work_ms, strict=True)):
        first = free_ms.argmin(axis=1)
        end_ms = np.maximum(now_ms, free_ms[every, first]) + work
        free_ms[every, first] = end_ms
        latency_ms[number] = end_ms - now_ms
    return latency_ms


def _divided(arrival_ms: Array, work_ms: Array, cores: int) -> Array:
    """Serve all requests at once; each has a core, or an equal part of the cores if requests outnumber them."""
    count, boxes = arrival_ms.shape
    every = np.arange(boxes)
    left_ms = np.full((boxes, SLOTS), np.inf)
    number = np.zeros((boxes, SLOTS), dtype=np.int64)
    latency_ms = np.full_like(arrival_ms, DEADLINE_MS)
    coming, now_ms = np.zeros(boxes, dtype=np.int64), np.zeros(boxes)
    within = np.zeros(boxes)
    for _ in range(2 * count):
        speed = np.minimum(1.0, cores / np.maximum(within, 1))
        ends = left_ms.argmin(axis=1)
        until_end = left_ms[every, ends] / speed
        has_next = coming < count
        until_next = np.where(has_next, arrival_ms[coming.clip(max=count - 1), every] - now_ms, np.inf)
        step = np.minimum(until_end, until_next)
        busy = np.isfinite(step)
        step[~busy] = 0.0
        now_ms += step
        left_ms -= (step * speed)[:, None]
        ended = busy & (until_end <= until_next)
        who = every[ended]
        which = number[who, ends[ended]]
        latency_ms[which, who] = now_ms[who] - arrival_ms[which, who]
        left_ms[who, ends[ended]] = np.inf
        came = every[busy & ~ended]
        full = came[within[came] >= SLOTS]
        latency_ms[coming[full], full] = DEADLINE_MS
        coming[full] += 1
        came = came[within[came] < SLOTS]
        slot = np.isinf(left_ms[came]).argmax(axis=1)
        left_ms[came, slot] = work_ms[coming[came], came]
        number[came, slot] = coming[came]
        coming[came] += 1
        within[who] -= 1
        within[came] += 1
    return latency_ms


def p99_ms(latencies: Latencies) -> Array:
    """Return P99 of all requests of each box."""
    return np.asarray(np.percentile(latencies.latency_ms, 99, axis=0))


def worst_p99_ms(latencies: Latencies, *, at_least: int = 1000) -> Array:
    """Return the highest P99 in each box, over the classifiers that have enough requests."""
    worst = np.zeros(latencies.latency_ms.shape[1])
    for box in range(len(worst)):
        for one in np.unique(latencies.classifier[:, box]):
            own = latencies.latency_ms[latencies.classifier[:, box] == one, box]
            if len(own) >= at_least:
                worst[box] = max(worst[box], float(np.percentile(own, 99)))
    return worst
