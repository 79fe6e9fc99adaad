"""Judges a candidate beside the stable release by counts: worse, fine, or too few to tell.

The verdict may be asked for at any time and any number of times (see `evidence`). What was not measured cannot pass:
without traffic, without a series, or before the counts suffice, the verdict is `too_few`.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from statistics import median

import numpy as np

from slipway.contract.release import JudgeSettings
from slipway.contract.typed_file import Evidence
from slipway.operations.release.counts import Arm, Disagreements, TrialBlock
from slipway.operations.release.e_values import MIN_BLOCKS
from slipway.operations.release.looks import (
    USUAL,
    Counts,
    Looks,
    Series,
    Spans,
    disagreement_looks,
    error_looks,
    limits_of,
    ratio_interval,
    share_looks,
)

MAX_MISSING_SHARE = 0.05
"""Largest share of the blocks in which a series may be missing, for `fine`."""
_MOST_IMAGES = 2**40


class ReleaseVerdict(StrEnum):
    WORSE = "worse"
    FINE = "fine"
    TOO_FEW = "too_few"


class SeriesEvidence(Evidence):
    """The evidence of one series."""

    series: Series
    verdict: ReleaseVerdict
    candidate: int
    """Errors, requests over the budget, or lost disagreements of the candidate."""
    candidate_of: int
    stable: int | None
    stable_of: int | None
    log10_e_worse: float
    """Logarithm of the largest e-value so far against "not worse"."""
    log10_e_fine: float
    """Logarithm of the present e-value against "not acceptable"."""
    dispersion: float | None
    """Variance in units of an independent count's; None while fewer than six blocks have traffic."""
    ratio: float | None
    ratio_low: float | None
    """Lower end of the interval that holds the ratio at every look with probability 1 - alpha; None if unbounded."""
    ratio_high: float | None
    missing_share: float
    """Share of the blocks in which the series is missing."""
    reason: str


class ReleaseJudgement(Evidence):
    verdict: ReleaseVerdict
    reason: str
    hours: float
    baked_minutes: float
    """Minutes of the blocks in which the candidate had requests."""
    expired: bool
    """Whether `max_hours` are over without a verdict: nothing was shown, so nothing is promoted."""
    series: tuple[SeriesEvidence, ...]


def judge(
    blocks: Sequence[TrialBlock], *, settings: JudgeSettings, disagreements: Sequence[Disagreements] = ()
) -> ReleaseJudgement:
    """Judge the candidate by all blocks so far, oldest first, and by the disagreements of each compared classifier.

    Worse: a series was shown to be worse at any look. Fine: every series is shown to be acceptable at this one, and the
    candidate has had requests for `bake_minutes`.
    """
    found = [_errors(blocks, settings)]
    if settings.slow_share is not None:
        found.append(_over_budget(blocks, settings, settings.slow_share))
    found += [_disagreements(told, settings, among=len(disagreements)) for told in disagreements]
    hours = sum(block.seconds for block in blocks) / 3600
    baked_minutes = sum(block.seconds for block in blocks if block.candidate.requests) / 60
    verdict = _together([series.verdict for series in found])
    reason = "; ".join(series.reason for series in found if series.verdict is verdict)
    if verdict is ReleaseVerdict.FINE and baked_minutes < settings.bake_minutes:
        verdict = ReleaseVerdict.TOO_FEW
        reason = (
            f"fine so far, in {math.floor(baked_minutes)} of {settings.bake_minutes:g} minutes (bake_minutes): {reason}"
        )
    expired = verdict is ReleaseVerdict.TOO_FEW and hours >= settings.max_hours
    if expired:
        reason = f"{settings.max_hours:g} hours are over without a verdict, so nothing is promoted: {reason}"
    return ReleaseJudgement(
        verdict=verdict,
        reason=reason,
        hours=hours,
        baked_minutes=baked_minutes,
        expired=expired,
        series=tuple(found),
    )


def _together(verdicts: Sequence[ReleaseVerdict]) -> ReleaseVerdict:
    if ReleaseVerdict.WORSE in verdicts:
        return ReleaseVerdict.WORSE
    return ReleaseVerdict.TOO_FEW if ReleaseVerdict.TOO_FEW in verdicts else ReleaseVerdict.FINE


def _errors(blocks: Sequence[TrialBlock], settings: JudgeSettings) -> SeriesEvidence:
    told = [block for block in blocks if block.candidate.errors is not None and block.stable.errors is not None]
    candidate = _counts([block.candidate for block in told], lambda arm: arm.errors)
    stable = _counts([block.stable for block in told], lambda arm: arm.errors)
    looks = error_looks(candidate, stable, settings=settings, spans=_spans(told))
    return _series("errors", looks, candidate, stable, missing=_missing(blocks, told), settings=settings)


def _over_budget(blocks: Sequence[TrialBlock], settings: JudgeSettings, limit: float) -> SeriesEvidence:
    told = [block for block in blocks if block.candidate.over_budget is not None]
    candidate = _counts([block.candidate for block in told], lambda arm: arm.over_budget)
    looks = share_looks(candidate, limit=limit, spans=_spans(told))
    return _series("over budget", looks, candidate, None, missing=_missing(blocks, told), settings=settings)


def _disagreements(told: Disagreements, settings: JudgeSettings, *, among: int) -> SeriesEvidence:
    looks = _looks_of(told, settings)
    judged = np.array([float(told.lost + told.won)])
    lost, won = (np.array([float(told.lost)]), judged), (np.array([float(told.won)]), judged)
    found = _series("disagreements", looks, lost, won, missing=0.0, settings=settings, among=among)
    counted = f"{told.lost:,} lost and {told.won:,} won of {told.differing:,} that differ in {told.compared:,} images"
    shown = _shown(found.verdict, known=True, missing=0.0)
    if found.verdict is ReleaseVerdict.TOO_FEW:
        shown = f"{shown}; {_needed(told, settings)}"
    named = f"disagreements of {told.classifier}" if told.classifier else "disagreements"
    return found.model_copy(update={"reason": f"{named}: {counted}: {shown}"})


def _looks_of(told: Disagreements, settings: JudgeSettings, *, more_won: int = 0) -> Looks:
    lost, won = np.array([float(told.lost)]), np.array([float(told.won + more_won)])
    return disagreement_looks(lost, won, differing=told.differing, compared=told.compared, settings=settings)


def _needed(told: Disagreements, settings: JudgeSettings) -> str:
    """Return a phrase on the data that would decide."""
    _, limit = limits_of("disagreements", settings)

    def decides(more: int) -> bool:
        return bool(_looks_of(told, settings, more_won=more).fine[-1] >= limit)

    missing = told.unlabelled
    if missing and decides(missing):
        more = bisect_left(range(1, missing), True, key=decides) + 1  # the evidence grows with each label that is won
        return f"{more:,} more labels decide if each is won; {missing:,} are missing"
    if not told.compared:
        return "none compared"
    labels = f"the {missing:,} missing labels cannot decide" if missing else "no label is missing"
    return f"{labels}; {images_needed(told, settings):,} more images decide if the versions differ in none of them"


def images_needed(told: Disagreements, settings: JudgeSettings) -> int:
    """Return the number of further images that decide `fine` if the versions differ in none of them."""
    _, limit = limits_of("disagreements", settings)

    def decides(more: int) -> bool:
        further = replace(told, compared=told.compared + more)
        return bool(_looks_of(further, settings).fine[-1] >= limit)

    return bisect_left(range(_MOST_IMAGES), True, key=decides)


def _counts(arms: Sequence[Arm], count: Callable[[Arm], int | None]) -> Counts:
    return (
        np.array([count(arm) or 0 for arm in arms], dtype=np.float64),
        np.array([arm.requests for arm in arms], dtype=np.float64),
    )


def _spans(blocks: Sequence[TrialBlock]) -> Spans:
    return Spans.of(median(block.seconds for block in blocks)) if blocks else USUAL


def _missing(blocks: Sequence[TrialBlock], told: Sequence[TrialBlock]) -> float:
    return 1 - len(told) / len(blocks) if blocks else 0.0


def _series(
    name: Series,
    looks: Looks,
    candidate: Counts,
    stable: Counts | None,
    *,
    missing: float,
    settings: JudgeSettings,
    among: int = 1,
) -> SeriesEvidence:
    worse = float(looks.worse.max(initial=0.0))
    fine = float(looks.fine[-1]) if looks.fine.size else 0.0
    dispersion = float(looks.dispersion[-1]) if looks.dispersion.size else math.inf
    verdict = _verdict(name, worse - math.log(among), fine, missing=missing, settings=settings)
    count, of = _totals(candidate)
    other, other_of = _totals(stable) if stable else (None, None)
    low, high = (
        ratio_interval(candidate, stable, dispersion=dispersion, alpha=settings.alpha) if stable else (None, None)
    )
    known = math.isfinite(dispersion)
    burst = looks.in_a_burst.size > 0 and float(looks.in_a_burst[-1]) >= limits_of(name, settings)[0]
    shown = _shown(verdict, known=known, missing=missing, burst=burst)
    return SeriesEvidence(
        series=name,
        verdict=verdict,
        candidate=count,
        candidate_of=of,
        stable=other,
        stable_of=other_of,
        log10_e_worse=worse / math.log(10),
        log10_e_fine=fine / math.log(10),
        dispersion=dispersion if known else None,
        ratio=(count / of) / (other / other_of) if of and other and other_of else None,
        ratio_low=low,
        ratio_high=high,
        missing_share=missing,
        reason=f"{_counted(name, (count, of), (other, other_of))}: {shown}",
    )


def _verdict(name: Series, worse: float, fine: float, *, missing: float, settings: JudgeSettings) -> ReleaseVerdict:
    needed_worse, needed_fine = limits_of(name, settings)
    if worse >= needed_worse:
        return ReleaseVerdict.WORSE
    return ReleaseVerdict.FINE if fine >= needed_fine and missing <= MAX_MISSING_SHARE else ReleaseVerdict.TOO_FEW


def _totals(counts: Counts) -> tuple[int, int]:
    return int(counts[0].sum()), int(counts[1].sum())


def _counted(name: Series, candidate: tuple[int, int], stable: tuple[int | None, int | None]) -> str:
    beside = f", stable {stable[0]:,} of {stable[1]:,}" if stable[0] is not None else ""
    return f"{name}: candidate {candidate[0]:,} of {candidate[1]:,} requests{beside}"


def _shown(verdict: ReleaseVerdict, *, known: bool, missing: float, burst: bool = False) -> str:
    if verdict is ReleaseVerdict.WORSE:
        return "worse"
    if verdict is ReleaseVerdict.FINE:
        return "acceptable"
    if missing > MAX_MISSING_SHARE:
        return f"too few to tell, since the series is missing in {missing:.0%} of the blocks"
    if burst:
        return "too few to tell; what speaks against it fell into two minutes, which may be an accident"
    return "too few to tell" if known else f"too few to tell; each arm needs traffic in {MIN_BLOCKS} blocks"
