"""Computes the cost of a million images at a measured speed, by the arithmetic of `slipway.contract.prices`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from slipway.benchmark.page.accuracy import Accuracy
from slipway.benchmark.page.files import ResultFile, ends_with
from slipway.contract.evidence.latency import CapacityResult, LatencyResult, LatencyVerdict
from slipway.contract.prices import Priced, cost_per_million
from slipway.pages.wording import figures, percent

NOTHING_SHOWN = "no rate was shown to hold the limit, so the cost is unknown"


@dataclass(frozen=True)
class Cost:
    """One speed, its cost, and the accuracy that belongs to it."""

    name: str
    basis: str
    """The meaning of the speed, or the reason why there is none."""
    images_per_s: float | None
    per_million: float | None
    """Cost per million images with the machine busy all the time."""
    per_million_in_use: float | None
    """Cost per million images with the machine busy for the stated share of the time."""
    top1: float | None
    accuracy: str
    """The accuracy with its source, or how to add it."""
    caveats: tuple[str, ...]


def costs(
    files: Iterable[ResultFile], accuracies: Sequence[Accuracy], price: Priced, *, utilisation: float
) -> list[Cost]:
    """Compute the cost of every gate and every capacity search, in the order of the files."""
    found = []
    for file in files:
        result = file.result
        if not isinstance(result, LatencyResult | CapacityResult):
            continue
        images_per_s, basis = _shown(result)
        full = cost_per_million(price.per_hour, images_per_s=images_per_s) if images_per_s else None
        found.append(
            Cost(
                name=file.name,
                basis=basis,
                images_per_s=images_per_s,
                per_million=full,
                per_million_in_use=full / utilisation if full else None,
                top1=next((a.evaluation.top1 for a in accuracies if a.bundle == result.bundle), None),
                accuracy=accuracy_of(result.bundle, accuracies),
                caveats=tuple(_caveats(result, price)),
            )
        )
    return found


def _shown(result: LatencyResult | CapacityResult) -> tuple[float | None, str]:
    """Return the rate at which P99 was shown to be within the limit, and its meaning."""
    limit = f"P99 within {result.options.limit_ms:g} ms"
    if isinstance(result, CapacityResult):
        above = f", under {result.not_passed_per_s:.1f}/s" if result.not_passed_per_s else ""
        return result.passed_per_s, f"capacity with {limit}{above}" if result.passed_per_s else NOTHING_SHOWN
    if result.verdict is LatencyVerdict.PASS:
        return result.options.rate_per_s, f"{limit} at this rate; the capacity may be higher, and the cost lower"
    return None, NOTHING_SHOWN


def _caveats(result: LatencyResult | CapacityResult, price: Priced) -> Iterator[str]:
    yield from result.caveats
    seen = result.machine.cores
    if price.cores is not None and price.cores != seen:
        yield f"the price is for {price.cores} cores, but {seen} were measured: measure on the machine that serves"
    generator = ends_with(result).generator
    if generator.shares_cores_with_server:
        yield f"the client used {generator.cpu_cores:.2f} of the cores: a server alone serves more"


def accuracy_of(bundle: str, accuracies: Sequence[Accuracy]) -> str:
    """Describe the accuracy of the engine whose bundle answered, or say how to add it."""
    for accuracy in accuracies:
        if accuracy.bundle == bundle:
            shown = accuracy.evaluation
            loss = f", {_loss(shown.gate.overall.loss_points)} FP32" if shown.gate else ""
            made = f"{accuracy.engine}, arithmetic {accuracy.arithmetic}"
            right = "accuracy not in the file"
            if shown.top1 is not None:
                right = f"{percent(shown.top1)} top-1"
            elif shown.exact_match is not None:
                right = f"{percent(shown.exact_match)} with all labels right"
            return f"{right} of {shown.images:,} {shown.split} images{loss} ({made})"
    return "accuracy not given: name the engine with --engine"


def _loss(points: float) -> str:
    return f"{abs(points):.2f} points {'more' if points < 0 else 'less'} than"


def cost_lines(found: Sequence[Cost], price: Priced, *, utilisation: float) -> Iterator[str]:
    """Return the costs as lines of text."""
    yield f"cost of a million images at {price.per_hour:g} {price.currency} an hour: {price.about}"
    for cost in found:
        if cost.images_per_s is None or cost.per_million is None or cost.per_million_in_use is None:
            yield f"  {cost.name}: {cost.basis}"
            continue
        full, in_use = (figures(value, 2) for value in (cost.per_million, cost.per_million_in_use))
        yield (
            f"  {cost.name}: {full} {price.currency} at {cost.images_per_s:.1f} images/s, {in_use} if busy for "
            f"{utilisation:.0%} of the time; {cost.accuracy}"
        )
        yield f"    {cost.basis}"
        yield from (f"    {caveat}" for caveat in cost.caveats)
