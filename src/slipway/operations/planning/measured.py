"""Reads figures from result files: the rate within P99, processor time, memory, and time to ready.

Nothing is estimated here. A file gives the figures that it has, with a sentence on what each means.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slipway.contract.evidence.latency import CapacityResult, LatencyResult, LatencyVerdict, Measured, rate_at
from slipway.contract.evidence.studies import DensityResult, EfficiencyResult, RobustnessResult
from slipway.contract.evidence.tuning import TuningResult
from slipway.errors import SpecError
from slipway.system.yaml_json import parse_json

WRITTEN_BY = "slipway gate, slipway gate --find-capacity, slipway tune, or the studies density, efficiency, robustness"
SHARED_LAYOUT = "shared_decode"
"""The layout that `auto` gives to several classifiers of a repository."""


@dataclass(frozen=True)
class Capacity:
    """A rate at which P99 was within a limit, on so many cores."""

    per_s: float
    limit_ms: float
    cores: int
    processor_ms: float | None
    """Processor time of an image in the server, at or near this rate."""
    about: str
    alone: bool = False
    """True if it was measured in the layout that `auto` gives to a classifier alone on its box."""


@dataclass(frozen=True)
class Memory:
    """Memory of a server with one classifier, and of each classifier that joins it, in MiB."""

    shared_mib: float
    """The part that all classifiers of this source share on a box."""
    each_mib: float
    about: str


@dataclass(frozen=True)
class StartTimes:
    """Seconds from the start of a server to its first answers."""

    shared_s: float
    each_s: float
    about: str


@dataclass(frozen=True)
class MeasuredFigures:
    """The figures of one result file, or of several."""

    source: str
    capacities: tuple[Capacity, ...] = ()
    memory: Memory | None = None
    ready: StartTimes | None = None
    model: str | None = None
    """Classifier that was measured, where the file names it."""
    backbone: str | None = None
    """Backbone that was measured, where the file names it."""
    processors: frozenset[str] = frozenset()
    """Names of the processors that these were measured on."""

    def or_else(self, other: "MeasuredFigures", *, limit_ms: float) -> "MeasuredFigures":
        """Return these figures, completed by those of `other`; a capacity within a laxer limit is not taken."""
        cores = {capacity.cores for capacity in self.capacities if capacity.limit_ms <= limit_ms}
        more = tuple(capacity for capacity in other.capacities if capacity.cores not in cores)
        return MeasuredFigures(
            source=f"{self.source}, {other.source}",
            capacities=(*_with_processor_time(self.capacities, other.capacities), *more),
            memory=self.memory or other.memory,
            ready=self.ready or other.ready,
            model=self.model or other.model,
            backbone=self.backbone or other.backbone,
            processors=self.processors | other.processors,
        )


def read_measured(path: Path) -> MeasuredFigures:
    """Read one result file.

    Raises:
        SpecError: the file cannot be read, is of no known kind, lacks a figure of its kind, or did not pass.
    """
    remedy = f"give one written by {WRITTEN_BY}"
    try:
        data = parse_json(path.read_text(encoding="utf-8"), source=str(path))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}; measured: names result files") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: not UTF-8 text; {remedy}") from None
    except SpecError as error:
        raise SpecError(f"{error}; {remedy}") from None
    found = _of_kind(data if isinstance(data, dict) else {}, path)
    return replace(found, processors=frozenset({str(data["machine"].get("cpu"))}))


def _of_kind(data: dict[str, Any], path: Path) -> MeasuredFigures:
    keys = data.keys()
    if "passed_per_s" in keys:
        return _of_search(CapacityResult.parse(data, source=str(path)), path)
    if "generator" in keys:
        return _of_gate(LatencyResult.parse(data, source=str(path)), path)
    if "after_to_before" in keys:
        return _of_tuning(TuningResult.parse(data, source=str(path)), path)
    if "backbone" in keys and keys & {"latency", "changes", "whole"}:
        return _of_density(DensityResult.parse(data, source=str(path)), path)
    if "fifty" in keys:
        return _of_fifty(RobustnessResult.parse(data, source=str(path)), path)
    if {"targets", "classifiers"} <= keys:
        return _of_efficiency(EfficiencyResult.parse(data, source=str(path)), path)
    raise SpecError(f"{path}: not a result file with figures to plan by; give one written by {WRITTEN_BY}")


def _of_search(result: CapacityResult, path: Path) -> MeasuredFigures:
    if result.passed_per_s is None:
        raise SpecError(f"{path}: the search confirmed no rate ({result.reason}); measure again: docs/benchmarks.md")
    confirmed = [r for r in result.rungs if r.confirms and r.verdict is LatencyVerdict.PASS]
    at = min(confirmed or result.rungs, key=lambda rung: abs(rung.rate_per_s - result.passed_per_s))
    about = f"capacity confirmed by the gate ({path.name})"
    peaks = [rung.server_use.peak_rss_mib for rung in result.rungs if rung.server_use]
    return _of_server(result.passed_per_s, at, result, about=about, path=path, peak_mib=max(peaks, default=None))


def _of_gate(result: LatencyResult, path: Path) -> MeasuredFigures:
    if result.verdict is not LatencyVerdict.PASS:
        raise SpecError(f"{path}: verdict {result.verdict}: no rate was shown to hold the limit; gate a lower --rate")
    about = f"a rate that passed the gate; the capacity may be higher ({path.name})"
    peak = result.server_use.peak_rss_mib if result.server_use else None
    return _of_server(result.options.rate_per_s, result, result, about=about, path=path, peak_mib=peak)


def _of_server(
    per_s: float,
    at: Measured,
    result: LatencyResult | CapacityResult,
    *,
    about: str,
    path: Path,
    peak_mib: float | None,
) -> MeasuredFigures:
    use = at.server_use
    capacity = Capacity(
        per_s=per_s,
        limit_ms=result.options.limit_ms,
        cores=result.machine.cores,
        processor_ms=1000 * use.cpu_cores / at.achieved_per_s if use and use.cpu_cores else None,  # 0: not counted
        about=about,
        alone=len(at.steps) == 2,  # the ensemble and one step: `fused`
    )
    alone = f"peak of its whole server, counted in full for each classifier ({path.name})"
    memory = Memory(0.0, peak_mib, alone) if peak_mib else None
    return MeasuredFigures(path.name, (capacity,), memory, model=result.options.model)


def _of_tuning(result: TuningResult, path: Path) -> MeasuredFigures:
    """The lowest rate that the kept settings held in the rounds of the comparison."""
    rungs = result.rungs.get("after" if result.better else "before")
    if not rungs or min(rungs) < 0:
        raise SpecError(f"{path}: slipway tune compared no rates; measure one: slipway gate --find-capacity")
    about = f"lowest rate of {len(rungs)} rounds of slipway tune, no full verdict ({path.name})"
    alone, options = result.chosen.layout == "fused", result.options
    capacity = Capacity(rate_at(min(rungs)), options.limit_ms, result.machine.cores, None, about, alone=alone)
    return MeasuredFigures(path.name, (capacity,), model=options.model)


def _of_density(result: DensityResult, path: Path) -> MeasuredFigures:
    latency = result.latency
    if latency is None:
        raise SpecError(f"{path}: has no latency part; run the study density without --parts, or with --parts latency")
    each = latency.memory_mib_of_each_additional
    ready_each = (latency.among.ready_s - latency.alone.ready_s) / (latency.heads - 1)
    about = f"rate that one head held alone, no full verdict ({path.name})"
    return MeasuredFigures(
        path.name,
        (Capacity(latency.rate_per_s, result.limit_ms, result.machine.cores, None, about),),
        Memory(latency.alone.memory_mib - each, each, f"base with one head, and with {latency.heads:,} ({path.name})"),
        StartTimes(latency.alone.ready_s - ready_each, ready_each, path.name),
        backbone=result.backbone,
    )


def _of_fifty(result: RobustnessResult, path: Path) -> MeasuredFigures:
    """Memory and time to ready; the study measures an easy rate, which says nothing of the capacity."""
    if result.fifty is None or SHARED_LAYOUT not in result.fifty.layouts:
        raise SpecError(f"{path}: has no part fifty with layout {SHARED_LAYOUT}; run the study robustness")
    found, count = result.fifty.layouts[SHARED_LAYOUT], result.fifty.classifiers
    each = found.memory_mib_of_each_additional
    ready_each = (found.among.seconds_to_ready - found.alone.seconds_to_ready) / (count - 1)
    return MeasuredFigures(
        path.name,
        memory=Memory(found.alone.memory_mib - each, each, f"one classifier, and {count} ({path.name})"),
        ready=StartTimes(found.alone.seconds_to_ready - ready_each, ready_each, path.name),
    )


def _of_efficiency(result: EfficiencyResult, path: Path) -> MeasuredFigures:
    if len(result.classifiers) != 1:
        names = ", ".join(result.classifiers)
        raise SpecError(f"{path}: has {names}; give a file with one network")
    ((backbone, found),) = result.classifiers.items()
    rates = found.capacity_per_s.get(SHARED_LAYOUT)
    if not rates:
        raise SpecError(f"{path}: has no layout {SHARED_LAYOUT}; run the study efficiency")
    processor_ms = found.processor_ms[SHARED_LAYOUT]["server"] or None
    about = f"lowest rate of {len(rates)} rounds in {SHARED_LAYOUT}, no full verdict ({path.name})"
    capacity = Capacity(min(rates), result.limit_ms, result.machine.cores, processor_ms, about)
    return MeasuredFigures(path.name, (capacity,), backbone=backbone)


def _with_processor_time(these: tuple[Capacity, ...], others: tuple[Capacity, ...]) -> Iterator[Capacity]:
    times = {other.cores: other.processor_ms for other in others}
    for capacity in these:
        known = capacity.processor_ms is not None
        yield capacity if known else replace(capacity, processor_ms=times.get(capacity.cores))
