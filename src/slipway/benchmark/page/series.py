"""Reads the latencies of a measurement from its raw histograms: percentiles of percentiles are meaningless."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from slipway.benchmark.page.files import ResultFile
from slipway.benchmark.statistics import HdrHistogram, merged
from slipway.contract.evidence.latency import (
    CapacityResult,
    Latency,
    LatencyResult,
    Measured,
    ModelRun,
    PerfAnalyzerResult,
    StepTime,
)
from slipway.pages.charts import SERIES

PARTS = ("queue_us", "compute_input_us", "compute_infer_us", "compute_output_us")


@dataclass(frozen=True)
class JudgedRate:
    """A gate, or a rate that a capacity search confirmed, with the limit; perf_analyzer judges nothing."""

    name: str
    measured: Measured
    limit_ms: float

    @property
    def over_limit(self) -> int:
        return sum(block.over_limit for block in self.measured.blocks)

    @property
    def block_p99s_ms(self) -> tuple[float, float]:
        """Return the lowest and the highest P99 of all blocks."""
        p99s_ms = [block.latency.p99_ms for block in self.measured.blocks]
        return min(p99s_ms), max(p99s_ms)


@dataclass(frozen=True)
class Series:
    """The latencies of a gate, a confirmed rate, or a run of perf_analyzer."""

    name: str
    load: str
    latency: Latency
    values_ms: npt.NDArray[np.float64]
    """All recorded latencies, ascending."""
    counts: npt.NDArray[np.int64]
    judged: JudgedRate | None
    colour: int

    @property
    def requests(self) -> int:
        return int(self.counts.sum())


@dataclass(frozen=True)
class Steps:
    """The server's own times per request, for the ensemble and its steps."""

    name: str
    load: str
    times: tuple[StepTime, ...]


def all_series(files: Iterable[ResultFile]) -> list[Series]:
    """Read the series of every file with raw histograms, in the order of the files."""
    found: list[Series] = []
    for file in files:
        for judged in _judged(file):
            found.append(_of_blocks(judged, colour=len(found) % len(SERIES)))
        if isinstance(file.result, PerfAnalyzerResult):
            found.append(_of_perf_analyzer(file.name, file.result, colour=len(found) % len(SERIES)))
    return found


def all_steps(files: Iterable[ResultFile]) -> list[Steps]:
    """Read the steps of every file with times per step; for a search, at its final rate."""
    found = []
    for file in files:
        if judged := list(_judged(file)):
            name, measured = judged[-1].name, judged[-1].measured
            found.append(
                Steps(name, f"{measured.offered_per_s:.1f} requests/s, open loop", _with_all_queues(measured.steps))
            )
        if isinstance(file.result, PerfAnalyzerResult):
            times = tuple(_step_time(run) for run in file.result.runs)
            found.append(Steps(file.name, f"{_load(file.result)}; each model alone", times))
    return found


def _judged(file: ResultFile) -> Iterator[JudgedRate]:
    result = file.result
    if isinstance(result, LatencyResult):
        yield JudgedRate(file.name, result, result.options.limit_ms)
    if isinstance(result, CapacityResult):
        for rung in result.rungs:
            if rung.confirms:
                yield JudgedRate(f"{file.name} at {rung.rate_per_s:.1f}/s", rung, result.options.limit_ms)


def _of_blocks(judged: JudgedRate, *, colour: int) -> Series:
    measured = judged.measured
    values_ms, counts = _recorded(merged([HdrHistogram.decode(block.histogram) for block in measured.blocks]))
    return Series(
        name=judged.name,
        load=f"{measured.offered_per_s:.1f}/s offered, {measured.achieved_per_s:.1f}/s achieved",
        latency=measured.latency,
        values_ms=values_ms,
        counts=counts,
        judged=judged,
        colour=colour,
    )


def _of_perf_analyzer(name: str, result: PerfAnalyzerResult, *, colour: int) -> Series:
    values_ms, counts = _recorded(HdrHistogram.decode(result.histogram))
    return Series(name, _load(result), result.latency, values_ms, counts, judged=None, colour=colour)


def _load(result: PerfAnalyzerResult) -> str:
    options = result.options
    if options.rate_per_s:
        return f"{options.rate_per_s:g} requests/s, timed from the actual send"
    return f"{options.concurrency} at a time, closed loop"


def _with_all_queues(times: tuple[StepTime, ...]) -> tuple[StepTime, ...]:
    """Give the ensemble its steps' queues: its compute time includes the steps, but its own queue is always empty."""
    queue_us = sum(time.queue_us for time in times)
    return tuple(time.model_copy(update={"queue_us": queue_us}) if time is times[0] else time for time in times)


def _step_time(run: ModelRun) -> StepTime:
    parts_us = {name: getattr(run, name) for name in PARTS}
    return StepTime(
        model=run.model, requests=run.requests, images_per_execution=0.0, total_us=sum(parts_us.values()), **parts_us
    )


def _recorded(histogram: HdrHistogram) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the recorded latencies in ms and the number of each."""
    recorded = [
        (step.value_iterated_to / 1000, step.count_added_in_this_iter_step)
        for step in histogram.get_recorded_iterator()
    ]
    values_ms, counts = zip(*recorded, strict=True)
    return np.array(values_ms), np.array(counts, np.int64)
