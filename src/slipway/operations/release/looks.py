"""The e-values of each series at every look: what the judge reads, and what the study of the judge simulates."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from slipway.contract.release import JudgeSettings
from slipway.operations.release.counts import BLOCK_S
from slipway.operations.release.e_values import (
    Array,
    Bursts,
    dispersion_of,
    log_evidence,
    share_at,
    sums,
    worst_bursts,
)

Series = Literal["errors", "over budget", "disagreements"]
Counts = tuple[Array, Array]
"""Counts of an arm and their exposures, `[..., blocks]` each."""
Arms = Sequence[Counts]

ALPHA_OF: dict[Series, float] = {"errors": 0.5, "over budget": 0.25, "disagreements": 0.25}
"""Shares of the error probability of a false `worse` (Bonferroni); fixed, whichever series are at hand."""
ROUTES: dict[Series, int] = {"errors": 2, "over budget": 1, "disagreements": 2}
"""Ways of a series to be fine, which share the error probability: a ratio that is acceptable, or a share that is
negligible. The series do not share it, since all of them must be fine."""
BURST_S, RECENT_S, STEP_S = 120, 600, 60
"""Seconds of a burst that may hit a release which is as good as the other; of the time that is judged by itself too;
and between two such looks."""
RECENT_ALPHA = 0.1
"""Part of the error probability of a false `worse` that the looks at the recent time have."""
REST_PART = 0.4
"""Part of the evidence (its logarithm) for `worse` that has to be left without the candidate's worst two minutes."""
_WIDEST = math.log(1000)
_HALVINGS = 20


@dataclass(frozen=True)
class Spans:
    """Numbers of blocks, at least 1 each."""

    burst: int
    recent: int
    step: int

    @classmethod
    def of(cls, block_s: float) -> "Spans":
        """The spans of blocks of `block_s` seconds: readings may be minutes apart."""
        return cls(*(max(1, round(seconds / block_s)) for seconds in (BURST_S, RECENT_S, STEP_S)))


USUAL = Spans.of(BLOCK_S)


@dataclass(frozen=True)
class Looks:
    """Logarithms of the e-values at every look, and the dispersion of the counts."""

    worse: Array
    fine: Array
    dispersion: Array
    in_a_burst: Array
    """Evidence for `worse` if a single burst counted."""


def limits_of(series: Series, settings: JudgeSettings) -> tuple[float, float]:
    """Return the logarithms of the e-values that decide `worse` and `fine`."""
    return -math.log(settings.alpha * ALPHA_OF[series]), -math.log(settings.alpha / ROUTES[series])


def error_looks(candidate: Counts, stable: Counts, *, settings: JudgeSettings, spans: Spans = USUAL) -> Looks:
    """E-values of errors of two arms.

    Worse: evidence against "the candidate's rate is not higher", where the measured ratio is `error_ratio` or more.
    Fine: evidence against "the rate is `acceptable_ratio` times the stable one's or more", or against "the candidate's
    share is `negligible_share` or more", whichever is larger.
    """

    def equal_share(arms: Arms) -> Array:
        (_, of), (_, others_of) = arms
        return share_at(1, of, others_of)

    def worse_by(arms: Arms, dispersion: Array, without: Bursts | None) -> Array:
        (errors, of), (others, others_of) = arms
        worse = log_evidence(errors, others, equal_share(arms), side="over", dispersion=dispersion, without=without)
        found, exposed, stable_found, stable_exposed = (
            sums(values, without=without) for values in (errors, of, others, others_of)
        )
        measured = found * stable_exposed >= settings.error_ratio * stable_found * exposed
        return np.where(measured, worse, 0.0)

    def expected(arms: Arms) -> Array:
        return equal_share(arms) * (arms[0][0] + arms[1][0])

    worse, in_a_burst, dispersion = _worse((candidate, stable), worse_by, expected, spans)
    (errors, of), (others, others_of) = candidate, stable
    acceptable = share_at(settings.acceptable_ratio, of, others_of)
    ratio = log_evidence(errors, others, acceptable, side="under", dispersion=dispersion)
    share = _share_under(candidate, settings.negligible_share, dispersion_of([candidate]))
    return Looks(worse, np.maximum(ratio, share), dispersion, in_a_burst)


def share_looks(candidate: Counts, *, limit: float, spans: Spans = USUAL) -> Looks:
    """E-values of a share against a limit: worse is over it, fine is under it."""

    def worse_by(arms: Arms, dispersion: Array, without: Bursts | None) -> Array:
        ((counted, of),) = arms
        return log_evidence(counted, of - counted, limit, side="over", dispersion=dispersion, without=without)

    def expected(arms: Arms) -> Array:
        return limit * arms[0][1]

    worse, in_a_burst, dispersion = _worse((candidate,), worse_by, expected, spans)
    return Looks(worse, _share_under(candidate, limit, dispersion), dispersion, in_a_burst)


def _share_under(counts: Counts, limit: float, dispersion: Array) -> Array:
    counted, of = counts
    return log_evidence(counted, of - counted, limit, side="under", dispersion=dispersion)


def _worse(
    arms: Arms,
    worse_by: Callable[[Arms, Array, Bursts | None], Array],
    expected: Callable[[Arms], Array],
    spans: Spans,
) -> tuple[Array, Array, Array]:
    """Look at all blocks so far, and at the recent ones.

    An accident that hits one arm says nothing about its release, and the judge does not know how often accidents come
    before it has seen several. So the evidence counts as far as the blocks outside of the worst two minutes bear it
    out. That is at most the evidence of all blocks, so it is an e-value too.

    Args:
        arms: the candidate's counts first.
        worse_by: evidence for `worse` by the counts of the arms, their dispersion, and the burst that is left out.
        expected: counts of the candidate that are expected if it is not worse.

    Returns:
        The evidence for `worse` at every look; what that of all blocks would be if a burst counted; the dispersion.
    """

    def evidence_of(arms: Arms) -> tuple[Array, Array, Array]:
        dispersion = dispersion_of(arms)
        whole = worse_by(arms, dispersion, None)
        counted, of = arms[0]
        rest = worse_by(arms, dispersion, worst_bursts(counted, of, expected(arms), length=spans.burst))
        return np.minimum(whole, np.maximum(rest, 0.0) / REST_PART), whole, dispersion

    lasting, whole, dispersion = evidence_of(arms)
    recent, _, _ = evidence_of([_windows(counts, spans) for counts in arms])
    return _either(lasting, recent, spans), whole, dispersion


def _windows(counts: Counts, spans: Spans) -> Counts:
    """The recent blocks at every `step`-th look, `[..., windows, recent]`."""
    counted, of = (_window(values, spans) for values in counts)
    return counted, of


def _window(values: Array, spans: Spans) -> Array:
    if values.shape[-1] < spans.recent:
        return np.zeros((*values.shape[:-1], 0, spans.recent))
    found: Array = sliding_window_view(values, spans.recent, axis=-1)[..., :: spans.step, :]
    return found


def _either(whole: Array, recent: Array, spans: Spans) -> Array:
    """The evidence of all blocks, or of the last ones alone, whichever is larger.

    A candidate that is good at first and then fails looks like one long burst among all blocks, and would never be
    worse. Among the last blocks it fails in each. The windows share a part of the error probability: the k-th has
    1/(k (k + 1)) of it, which add up to 1.

    Args:
        whole: at every look, `[..., blocks]`.
        recent: of each window, at each of its looks, `[..., windows, recent]`; the last one counts.
    """
    number = np.arange(1, recent.shape[-2] + 1)
    looks: Array = whole + math.log(1 - RECENT_ALPHA)
    ends = looks[..., spans.recent - 1 :: spans.step]
    ends[...] = np.maximum(ends, recent[..., -1] + math.log(RECENT_ALPHA) - np.log(number * (number + 1)))
    return looks


def disagreement_looks(lost: Array, won: Array, *, differing: float, compared: float, settings: JudgeSettings) -> Looks:
    """E-values of lost against won, as of errors of two arms with equal exposure.

    Worse: evidence against "no more are lost than won", where the measured ratio is `error_ratio` or more. Fine: the
    ratio is shown to be under `acceptable_ratio`, or the share of differing answers under `negligible_share`. The
    labels come without blocks, so they are taken as independent.

    Args:
        lost, won: labels that came since the look before, `[..., looks]`.
        differing, compared: numbers of images.
    """
    worse = log_evidence(lost, won, 0.5, side="over")
    measured = np.cumsum(lost, axis=-1) >= settings.error_ratio * np.cumsum(won, axis=-1)
    acceptable = settings.acceptable_ratio / (settings.acceptable_ratio + 1)
    ratio = log_evidence(lost, won, acceptable, side="under")
    differing_1, same_1 = np.array([float(differing)]), np.array([float(compared - differing)])
    share = log_evidence(differing_1, same_1, settings.negligible_share, side="under")
    return Looks(np.where(measured, worse, 0.0), np.maximum(ratio, share), np.ones_like(worse), worse)


def ratio_interval(
    candidate: Counts, stable: Counts, *, dispersion: float, alpha: float
) -> tuple[float | None, float | None]:
    """Return the ratios that the counts do not refute, between 1/1000 and 1000; None where an end is not between.

    A ratio is refuted when the mean of the e-values of both sides is 1/alpha or more, so the interval holds the ratio
    at every look with probability 1 - alpha: a confidence sequence (Darling and Robbins, PNAS 58, 1967).
    """
    events = candidate[0] + stable[0] > 0
    if not math.isfinite(dispersion) or not events.any():
        return None, None
    (errors, of), (others, others_of) = ((counts[events], of[events]) for counts, of in (candidate, stable))

    def refuted(log_ratio: float) -> bool:
        share = share_at(math.exp(log_ratio), of, others_of)
        over = log_evidence(errors / dispersion, others / dispersion, share, side="over")[-1]
        under = log_evidence(errors / dispersion, others / dispersion, share, side="under")[-1]
        return bool(np.logaddexp(over, under) >= math.log(2 / alpha))

    exposed = max(float(candidate[1].sum()), 0.5) / max(float(stable[1].sum()), 0.5)
    measured = math.log(max(float(errors.sum()), 0.5) / max(float(others.sum()), 0.5) / exposed)
    inside = min(max(measured, -_WIDEST), _WIDEST)
    return _end(refuted, inside, -_WIDEST), _end(refuted, inside, _WIDEST)


def _end(refuted: Callable[[float], bool], inside: float, outside: float) -> float | None:
    """Bisects for where refuting begins, seen from `inside`."""
    if not refuted(outside):
        return None
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if refuted(middle) else (middle, outside)
    return math.exp(outside)
