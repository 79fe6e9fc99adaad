"""Joins a fleet, its demand and the measured figures: the loads to place."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from slipway.contract.base_bundle import BaseSpec
from slipway.contract.fleet import Fleet
from slipway.contract.spec import Spec
from slipway.errors import SpecError
from slipway.operations.planning.demand import BaseRates, Demand, PricedMachine, Rates
from slipway.operations.planning.measured import WRITTEN_BY, Capacity, MeasuredFigures, Memory, read_measured
from slipway.system.text import command, few


@dataclass(frozen=True)
class Load:
    """A load that is placed as a whole: a classifier, or a base with all of its heads."""

    name: str
    heads: int | None
    """Number of heads of a base; None for a whole classifier."""
    mean_per_s: float
    peak_per_s: float
    figures: MeasuredFigures
    memory: Memory

    @property
    def own_mib(self) -> float:
        """Memory that this load adds to a box, without the part that it shares with others of its source."""
        return self.memory.each_mib * (self.heads or 1)

    @property
    def shares(self) -> str:
        """The key of the memory that is there once on a box. Each base has an engine of its own."""
        return self.memory.about if self.heads is None else f"base {self.name}"

    @property
    def title(self) -> str:
        return self.name if self.heads is None else f"{self.name} ({self.heads:,} head{'s' * (self.heads != 1)})"

    def capacity_on(self, machine: PricedMachine, demand: Demand) -> Capacity | None:
        """The measured capacity on a machine of so many cores; None without a measurement."""
        fitting = [c for c in self.figures.capacities if c.limit_ms <= demand.limit_ms and c.cores <= machine.cores]
        best = max(fitting, key=lambda capacity: capacity.cores, default=None)
        if best is None or best.cores == machine.cores:
            return best
        if not demand.scale_by_cores:
            return None
        times = machine.cores / best.cores
        about = f"{best.about}, times {machine.cores} / {best.cores} cores, which was not measured"
        return replace(best, per_s=best.per_s * times, cores=machine.cores, about=about)


def loads_of(fleet: Fleet, demand: Demand, *, root: Path, measured_root: Path) -> list[Load]:
    """The loads of a fleet, classifiers first, in the order of the file.

    Args:
        root: folder that the fleet file's paths are relative to.
        measured_root: folder that the names of result files are relative to.

    Raises:
        SpecError: a pattern finds no head; the demand names a classifier that the fleet lacks, or lacks one; or a
            figure was not measured. The message names the command that measures it.
    """
    if fleet.lane == "gpu":
        raise SpecError(
            "lane: gpu: no verb measures the memory that a classifier takes on a GPU, so a plan would be a guess; "
            "plan-fleet takes fleets of the cpu lane"
        )
    _check_names(fleet, demand)
    reader = _Reader(measured_root, limit_ms=demand.limit_ms)
    loads = []
    for name, classifier in fleet.classifiers.items():
        rates = demand.classifiers.get(name) or demand.each
        assert rates is not None
        backbone = _backbone(Spec, root / classifier.active.bundle)
        loads.append(_load(name, rates, None, demand, reader.figures(name, rates, backbone)))
    for name, base in fleet.bases.items():
        given = demand.bases[name]
        heads = len(base.runs(root))
        rates = _of_all_heads(given, heads)
        backbone = _backbone(BaseSpec, root / base.base / "base")
        loads.append(_load(name, rates, heads, demand, reader.figures(name, rates, backbone)))
    return loads


def remedy(name: str, demand: Demand) -> str:
    """The command that measures every figure of a classifier."""
    options = ("--images", "FOLDER", "--find-capacity", "--limit-ms", f"{demand.limit_ms:g}", "--pid", "PID")
    gate = command("slipway gate", name, *options, "--out", f"{name}.json")
    return f"measure it on such a machine: {gate}, and name the file in measured"


class _Reader:
    """Reads each result file once."""

    def __init__(self, root: Path, *, limit_ms: float) -> None:
        self._root, self._limit_ms = root, limit_ms
        self._read: dict[str, MeasuredFigures] = {}

    def figures(self, name: str, rates: Rates, backbone: str | None) -> MeasuredFigures:
        """Raises SpecError: a file cannot be used, or is of another backbone."""
        if not rates.measured:
            raise SpecError(f"{name}: measured names no result file; give files written by {WRITTEN_BY}")
        found = []
        for file in rates.measured:
            if file not in self._read:
                self._read[file] = read_measured(self._root / file)
            figures = self._read[file]
            if backbone and figures.backbone and figures.backbone != backbone:
                raise SpecError(
                    f"{name}: its backbone is {backbone}, but {file} measured {figures.backbone}; name another file"
                )
            found.append(figures)
        merged = found[0]
        for more in found[1:]:
            merged = merged.or_else(more, limit_ms=self._limit_ms)
        return merged


def _check_names(fleet: Fleet, demand: Demand) -> None:
    for kind, given, there in (
        ("classifiers", demand.classifiers, fleet.classifiers),
        ("bases", demand.bases, fleet.bases),
    ):
        if unknown := sorted(given.keys() - there.keys()):
            heads = {name for base in fleet.bases.values() for name in base.named}
            of_base = "; give the rates of heads under bases" if heads & {*unknown} else ""
            raise SpecError(
                f"{kind}: {', '.join(unknown)}: not in the fleet file, whose {kind} are "
                f"{few(sorted(there)) or 'none'}{of_base}"
            )
    missing = [] if demand.each else sorted(fleet.classifiers.keys() - demand.classifiers.keys())
    if missing:
        raise SpecError(f"classifiers: no rates of {few(missing)}; add them, or each: for all that are not named")
    if missing := sorted(fleet.bases.keys() - demand.bases.keys()):
        raise SpecError(f"bases: no rates of {few(missing)}; add them: the rates of all their heads together")


def _of_all_heads(rates: BaseRates, heads: int) -> Rates:
    times = heads if rates.per_head else 1
    return Rates(mean=rates.mean * times, peak=rates.peak * times, measured=rates.measured)


def _load(name: str, rates: Rates, heads: int | None, demand: Demand, figures: MeasuredFigures) -> Load:
    if figures.memory is None:
        raise SpecError(f"{name}: its memory was not measured ({figures.source}); {remedy(name, demand)}")
    load = Load(name, heads, rates.mean, rates.peak, figures, figures.memory)
    if not any(load.capacity_on(machine, demand) for machine in demand.machines.values()):
        have = "; ".join(f"{c.per_s:.1f}/s within {c.limit_ms:g} ms on {c.cores} cores" for c in figures.capacities)
        offered = ", ".join(f"{key} ({machine.cores} cores)" for key, machine in demand.machines.items())
        scale = ", or set scale_by_cores: true" if _scales(figures, demand) else ""
        raise SpecError(
            f"{name}: its capacity within {demand.limit_ms:g} ms on {offered} was not measured (measured: "
            f"{have or 'none'}, in {figures.source}); {remedy(name, demand)}{scale}"
        )
    return load


def _scales(figures: MeasuredFigures, demand: Demand) -> bool:
    """Whether a capacity that counts was measured on fewer cores than some machine has."""
    most = max(machine.cores for machine in demand.machines.values())
    return any(c.limit_ms <= demand.limit_ms and c.cores < most for c in figures.capacities)


def _backbone(spec: type[Spec] | type[BaseSpec], folder: Path) -> str | None:
    """Name of the backbone of a bundle or base; None where it has not been made yet, or by another release."""
    try:
        return spec.read(folder / "spec.json").backbone.name
    except SpecError:
        return None


def notes_of(loads: list[Load], fleet: Fleet, demand: Demand) -> Iterator[str]:
    """Yield the notes that a reader of the plan needs to judge its figures."""
    for load in loads:
        model = load.figures.model
        if load.heads is None and model and model != load.name:
            yield f"{load.name}: its figures were measured on {model}"
        if len(fleet.classifiers) > 1 and load.heads is None and any(c.alone for c in load.figures.capacities):
            yield (
                f"{load.name}: measured as fused; with several classifiers in a repository layout: auto serves "
                "shared_decode, which holds less: set serving: {layout: fused} for it, or measure it so"
            )
    processors = sorted({name for load in loads for name in load.figures.processors})
    if len(processors) > 1:
        yield (
            f"figures come from {len(processors)} kinds of processor ({', '.join(processors)}), and are taken as if "
            "they held on every machine of as many cores: measure on the machine that will serve"
        )
    if fleet.multi:
        yield "an image that is sent to an ensemble of multi counts for each of its classifiers"
    if demand.scale_by_cores:
        yield "scale_by_cores: capacities on machines with more cores than were measured are an assumption"
