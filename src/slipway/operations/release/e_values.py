"""E-values on counts: how strongly counts speak for a ratio over, or under, a stated one, at every look.

An e-value is a number that is seldom large where the null hypothesis is true: its expectation is at most 1 there, and
by Ville's inequality it ever reaches 1/alpha with probability at most alpha, however often somebody looks. The last
axis of every array is time in blocks, and a result has a value for each look, which is the end of a block.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Side = Literal["over", "under"]

_NODES = 64
_QUANTILES = (1 + (np.arange(_NODES) + 0.5) / _NODES) / 2
_SHARES = 0.5 - np.sin(np.arcsin(1 - 2 * _QUANTILES) / 3)
RATIOS = _SHARES / (1 - _SHARES)
"""Odds ratios over 1 of the alternatives: u / (1 - u) at the mid-quantiles of u ~ Beta(2, 2) given u > ½. Its
distribution function is 3u² - 2u³, whose inverse is ½ - sin(arcsin(1 - 2p) / 3)."""
MIN_BLOCKS = 6
"""Fewest blocks with traffic (30 s) before a dispersion is known, and so before anything is judged."""
_MIN_GROUPS = 20
"""Fewest groups of neighbouring blocks whose dispersion counts."""
_LIKELY, _CERTAIN = 1.5, 3.0
"""Standard errors over 1 from which a dispersion counts, and from which it is carried over to the larger arm."""
_MOST_FAIL = 0.5
"""Largest share of the events of a burst; where more are counted, something is broken."""
_SURELY = 3.0
"""Standard errors over that share from which it is more than chance."""


class Bursts(NamedTuple):
    """The burst that is left out at each look."""

    last: npt.NDArray[np.int64]
    """Its last block, `[..., blocks]`; -1 for none."""
    length: int
    """Its number of blocks."""


def log_evidence(
    counted: Array,
    other: Array,
    share: Array | float,
    *,
    side: Side,
    dispersion: Array | float = 1.0,
    without: Bursts | None = None,
) -> Array:
    """Return the logarithm of the mixture e-value against "the share of `counted` is not on this side of `share`".

    Of the n = counted + other events of a block, `counted` are binomial with a share p. The null hypothesis of the side
    "over" is p ≤ q with q = `share`; of "under", p ≥ q. An alternative has the odds ratio r to q, and the likelihood
    ratio r^counted / (1 + q (r - 1))^n. For r > 1 its expectation grows with p and is 1 at p = q, so the product over
    blocks is a supermartingale under the null hypothesis, and so is its mean over a fixed set of r. Each block may have
    its own q, since the weight of an arm may change.

    Sources: Robbins, Statistical methods related to the law of the iterated logarithm (Annals of Mathematical
    Statistics 41, 1970), for mixtures; Ramdas, Grünwald, Vovk and Shafer, Game-theoretic statistics and safe
    anytime-valid inference (Statistical Science 38, 2023), for reading them at any time.

    Args:
        counted, other: counts `[..., blocks]`.
        share: q, `[..., blocks]` or one number, from 0 to 1.
        side: where the share is shown to be.
        dispersion: variance of the counts in units of an independent count's, at every look, at least 1. Counts are
            divided by it; see `dispersion_of`. Where it is infinite, the e-value is 1.
        without: the burst whose blocks are left out at each look; see `worst_bursts`.

    Returns:
        `[..., blocks]`: the logarithm at every look.
    """
    looks = np.full(np.broadcast_shapes(counted.shape, np.shape(dispersion)), -np.inf)
    events = counted + other
    for ratio in RATIOS if side == "over" else 1 / RATIOS:
        terms = counted * np.log(ratio) - events * np.log1p(np.asarray(share) * (ratio - 1))
        looks = np.logaddexp(looks, sums(terms, without=without) / dispersion)
    evidence: Array = looks - np.log(_NODES)
    return evidence


def sums(values: Array, *, without: Bursts | None = None) -> Array:
    """Return the sums of the blocks up to each look, `[..., blocks]`, without those of a burst."""
    total: Array = np.cumsum(values, axis=-1)
    if without is None:
        return total
    burst = np.take_along_axis(_last_sums(values, without.length), np.maximum(without.last, 0), axis=-1)
    left: Array = total - np.where(without.last >= 0, burst, 0.0)
    return left


def worst_bursts(counted: Array, of: Array, expected: Array, *, length: int) -> Bursts:
    """Return the `length` blocks before each look in which most was counted beyond what was expected.

    Blocks are not taken for a burst if clearly more than half of their requests were counted.

    Args:
        counted, of: counts of an arm and their exposures, `[..., blocks]`.
        expected: the counts that are expected under the null hypothesis, `[..., blocks]`.
    """
    found, exposed, usual = (_last_sums(values, length) for values in (counted, of, expected))
    chance = _SURELY * np.sqrt(_MOST_FAIL * (1 - _MOST_FAIL) * exposed)
    excess = np.where(found <= _MOST_FAIL * exposed + chance, found - usual, 0.0)
    most = np.maximum.accumulate(excess, axis=-1)
    ends = np.where((excess == most) & (excess > 0), np.arange(counted.shape[-1]), -1)
    return Bursts(np.maximum.accumulate(ends, axis=-1), length)


def _last_sums(values: Array, length: int) -> Array:
    """The sum of the last `length` blocks, or of as many as there are, at each block."""
    total = np.cumsum(values, axis=-1)
    total[..., length:] -= total[..., :-length].copy()
    return total


def share_at(ratio: float, candidate: Array, stable: Array) -> Array:
    """Return the candidate's share of all errors in each block if its rate is `ratio` times the stable one's.

    Two Poisson counts are binomial given their sum (Przyborowski and Wilenski, Biometrika 31, 1940).
    """
    weighted = ratio * candidate
    share: Array = np.divide(weighted, weighted + stable, out=np.zeros_like(weighted), where=weighted + stable > 0)
    return share


def dispersion_of(arms: Sequence[tuple[Array, Array]]) -> Array:
    """Return the variance of the arms' counts at every look, in units of an independent count's; at least 1.

    For each arm, Pearson's statistic over its degrees of freedom (McCullagh and Nelder, Generalized Linear Models,
    1989, section 4.5): the mean of (count - s exposure)² / (s (1 - s) exposure) over the blocks so far, with s the
    share so far. Errors that come in bursts raise it: of bursts of equal size, counts divided by it count each burst
    once.

    Two further dispersions count where they are certain. Bursts that outlast a block show when neighbours are taken
    together, so groups of 2, 4, 8 ... blocks are looked at too, from 20 groups on. And bursts are larger where there is
    more traffic: n requests a block that are alike with correlation c have the dispersion 1 + (n - 1) c (Williams,
    Applied Statistics 31, 1982), so the correlation seen in one arm is carried over to the larger one. The largest
    dispersion holds for all arms.

    Args:
        arms: counts and exposures of each arm, `[..., blocks]`; blocks without exposure are passed over.

    Returns:
        `[..., blocks]`; infinite while an arm has exposure in fewer than `MIN_BLOCKS` blocks.
    """
    shape = np.broadcast_shapes(*(counts.shape for counts, _ in arms))
    worst, length = np.ones(shape), 1
    while length == 1 or shape[-1] // length >= _MIN_GROUPS:
        grouped = [(_grouped(counts, length), _grouped(exposures, length)) for counts, exposures in arms]
        found = _of_groups(grouped, fewest=MIN_BLOCKS if length == 1 else _MIN_GROUPS)
        worst = np.maximum(worst, _held(found, length, shape[-1]))
        length *= 2
    few = [np.cumsum(exposures > 0, axis=-1) < MIN_BLOCKS for _, exposures in arms]
    return np.where(np.logical_or.reduce(few), np.inf, worst)


def _of_groups(arms: Sequence[tuple[Array, Array]], *, fewest: int) -> Array:
    """The largest dispersion of the arms that is more than chance, carried over to the arm with the most traffic.

    Chance: Pearson's term of a Poisson count with the mean m has the variance 2 + 1/m.
    """
    groups = [np.cumsum((exposures > 0).astype(np.int64), axis=-1) for _, exposures in arms]
    sizes = [np.cumsum(e, axis=-1) / np.maximum(seen, 1) for (_, e), seen in zip(arms, groups, strict=True)]
    largest = np.maximum.reduce(sizes)
    worst: Array = np.ones_like(largest)
    for (counts, exposures), seen, size in zip(arms, groups, sizes, strict=True):
        found = _pearson(counts, exposures, seen)
        mean = np.maximum(np.cumsum(counts, axis=-1), 1) / np.maximum(seen, 1)
        excess = (found - 1) / np.sqrt((2 + 1 / mean) / np.maximum(seen - 1, 1))
        carried = np.maximum(found, 1 + (largest - 1) * (found - 1) / np.maximum(size - 1, 1))
        worst = np.where((seen >= fewest) & (excess > _LIKELY), np.maximum(worst, found), worst)
        worst = np.where((seen >= fewest) & (excess > _CERTAIN), np.maximum(worst, carried), worst)
    return worst


def _grouped(values: Array, length: int) -> Array:
    """Sums over `length` neighbouring blocks, without the blocks of the last, incomplete group."""
    groups = values.shape[-1] // length
    sums: Array = values[..., : groups * length].reshape(*values.shape[:-1], groups, length).sum(axis=-1)
    return sums


def _held(found: Array, length: int, blocks: int) -> Array:
    """Return the evidence of groups at each block: a group counts from its last block on, and before the first it is
    1."""
    known = np.concatenate([np.ones((*found.shape[:-1], 1)), found], axis=-1)
    held: Array = known[..., (np.arange(blocks) + 1) // length]
    return held


def _pearson(counts: Array, exposures: Array, groups: npt.NDArray[np.int64]) -> Array:
    """Pearson's statistic over its degrees of freedom at every look; 1 where nothing, or everything, was counted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = np.cumsum(np.where(exposures > 0, counts**2 / exposures, 0.0), axis=-1)
        total = np.cumsum(counts, axis=-1)
        share = total / np.cumsum(exposures, axis=-1)
        found = (squares / share - total) / ((1 - share) * (groups - 1))
    return np.where(np.isfinite(found) & (share > 0) & (share < 1), found, 1.0)
