"""Which score tells what the network knows from what it does not, and the threshold that keeps a promise.

No foreign image is at hand when a classifier is trained, so others play the part: validation images as if their own
class did not exist, and the stand-ins of `slipway.evaluation.foreign`. The score that tells them best from the
validation images as they are wins.
"""

import base64
import math
from collections.abc import Mapping
from statistics import fmean
from typing import get_args

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from slipway.contract import DataError, Decision
from slipway.contract.decision import ClassMeans, Score
from slipway.contract.evidence.evaluation import ScoreFigures
from slipway.contract.spec import UnknownPolicy
from slipway.steps.postprocess import decode_means, familiarity, nearness

SCORES: tuple[Score, ...] = get_args(Score)
"""From the simplest on: of equals the first wins."""
DECIMALS = 4  # a threshold is part of the bundle's id, and later digits differ between machines
MEANS_SIZE = 1 << 20
"""Class means of more numbers are not tried: they would travel in decision.json."""
CURVE_POINTS = 50
ERROR = 0.05  # with which so many right answers in a row come from a precision that is lower than asked for
Float = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Right = npt.NDArray[np.bool_]
ClassIds = npt.NDArray[np.int64]
Evidence = Mapping[Score, Floats]
"""What each score is made of, `[n, classes]`."""


def fit_class_means(embedding_nd: Float, truth_n: ClassIds, *, classes: int) -> ClassMeans | None:
    """The mean embedding of each class; None where a class has no image, or they are all zero or too many numbers."""
    counts_c = np.bincount(truth_n, minlength=classes)
    sums_cd = np.zeros((classes, embedding_nd.shape[1]))
    if not 0 < sums_cd.size <= MEANS_SIZE or not counts_c.all():
        return None
    np.add.at(sums_cd, truth_n, embedding_nd)
    means_cd = sums_cd / counts_c[:, None]
    step = float(f"{np.abs(means_cd).max() / 127:.3g}")
    if step == 0:
        return None
    steps_cd = np.clip(np.rint(means_cd / step), -127, 127).astype(np.int8)
    return ClassMeans(int8=base64.b64encode(steps_cd.tobytes()).decode(), step=step)


def evidence(logits_nc: Float, embedding_nd: Float, *, temperature: float, means: ClassMeans | None) -> Evidence:
    """Without class means there is none for `embedding`."""
    scaled_nc = logits_nc.astype(np.float64) / temperature
    found: dict[Score, Floats] = {"max_probability": scaled_nc, "energy": scaled_nc}
    if means is not None:
        found["embedding"] = nearness(embedding_nd, decode_means(means.model_dump(), classes=logits_nc.shape[1]))
    return found


def compare_scores(known: Evidence, truth_n: ClassIds, foreign: Mapping[str, Evidence]) -> dict[Score, ScoreFigures]:
    """For each score, how well it tells the validation images from those that no class is of."""
    right_n = known["max_probability"].argmax(axis=1) == truth_n
    found: dict[Score, ScoreFigures] = {}
    for score, known_nc in known.items():
        familiar_n = familiarity(score, known_nc)
        others = {kind: familiarity(score, made[score]) for kind, made in foreign.items()}
        if known_nc.shape[1] > 1:
            left_out_nc = known_nc.copy()
            left_out_nc[np.arange(len(truth_n)), truth_n] = -np.inf
            others["left_out"] = familiarity(score, left_out_nc)
        found[score] = ScoreFigures(
            foreign_auroc={kind: value for kind, o in others.items() if (value := auroc(familiar_n, o)) is not None},
            wrong_auroc=auroc(familiar_n[right_n], familiar_n[~right_n]),
            aurc=float((1 - _accuracy_by_coverage(familiar_n, right_n)).mean()),
        )
    return found


def best_score(compared: Mapping[Score, ScoreFigures]) -> Score:
    """The highest mean of `foreign_auroc`, to three decimals; of equals the simplest."""
    means = {score: fmean(found.foreign_auroc.values() or [0.0]) for score, found in compared.items()}
    return max((score for score in SCORES if score in means), key=lambda score: round(means[score], 3))


def fit_threshold(score_n: Floats, right_n: Right, policy: UnknownPolicy) -> float:
    """The threshold that keeps the policy's promise on these validation images.

    `coverage`: new images of the known classes are answered with at least this probability (split conformal
    prediction, Vovk et al., "Algorithmic Learning in a Random World", 2005: the k-th lowest of n scores, with
    k = floor((1 - coverage) * (n + 1))). `precision`: the lowest score from which at least this share of the answers is
    right, of as many answers as could show that much if all of them were right: one lucky image is no precision.

    Raises:
        DataError: too few images for that coverage, or a precision that no threshold reaches on enough answers.
    """
    if policy.coverage is not None:
        check_coverage(policy, images=len(score_n))
        rank = int((1 - policy.coverage) * (len(score_n) + 1) + 1e-9)
        return _round_down(float(np.sort(score_n)[rank - 1]))
    assert policy.precision is not None  # the spec has one of the two
    order = np.argsort(-score_n, kind="stable")
    share_n = _accuracy_by_coverage(score_n, right_n)
    # The last of equal scores stands for all of them: a threshold cannot part them.
    last_n = np.append(score_n[order][1:] != score_n[order][:-1], True)
    reached = np.flatnonzero(last_n & (share_n >= policy.precision))
    if not len(reached):
        raise DataError(
            f"decision.unknown.precision: {policy.precision} asked for, and of {len(score_n)} validation images no "
            f"part is answered that well; ask for less, or for a coverage"
        )
    answered, needed = int(reached[-1]) + 1, math.ceil(math.log(ERROR) / math.log(policy.precision))
    if answered < needed:
        raise DataError(
            f"decision.unknown.precision: {policy.precision} is reached on {answered} of {len(score_n)} validation "
            f"images alone, and fewer than {needed} answers cannot show it; ask for less, for a coverage, or give more "
            "images to validation"
        )
    return _round_down(float(score_n[order][reached[-1]]))


def check_coverage(policy: UnknownPolicy | None, *, images: int) -> None:
    """Raises DataError: so few validation images that no threshold promises this coverage."""
    if policy is not None and policy.coverage is not None and (1 - policy.coverage) * (images + 1) + 1e-9 < 1:
        needed = int(np.ceil(1 / (1 - policy.coverage) - 1 - 1e-9))
        raise DataError(
            f"decision.unknown.coverage: {policy.coverage} needs at least {needed} validation images, and there are "
            f"{images}; ask for less, or give more to data.validation_fraction"
        )


def coverage_curve(score_n: Floats, right_n: Right) -> list[tuple[float, float]]:
    """Coverage and the accuracy of what is answered, at up to 50 thresholds from the highest on."""
    accuracy_n = _accuracy_by_coverage(score_n, right_n)
    rows = np.unique(np.linspace(0, len(score_n) - 1, min(CURVE_POINTS, len(score_n))).round().astype(int))
    return [(float((row + 1) / len(score_n)), float(accuracy_n[row])) for row in rows]


def score_of(decision: Decision, logits_nc: Float, embedding_nd: Float) -> Floats:
    """The score that `decision` compares with its threshold, `[n]`; without `unknown` the best probability."""
    score = "max_probability" if decision.unknown is None else decision.unknown.score
    means = None if decision.unknown is None else decision.unknown.class_means
    return familiarity(score, evidence(logits_nc, embedding_nd, temperature=decision.temperature, means=means)[score])


def refit(
    decision: Decision, policy: UnknownPolicy | None, *, logits_nc: Float, embedding_nd: Float, truth_n: ClassIds
) -> Decision:
    """`decision` with the threshold that keeps the policy's promise for these outputs; as it is without a policy.

    Raises:
        DataError: see `fit_threshold`.
    """
    if policy is None or decision.unknown is None:
        return decision
    score_n = score_of(decision, logits_nc, embedding_nd)
    threshold = fit_threshold(score_n, logits_nc.argmax(axis=1) == truth_n, policy)
    return decision.model_copy(update={"unknown": decision.unknown.model_copy(update={"threshold": threshold})})


def auroc(known_n: Floats, other_n: Floats) -> float | None:
    """How often a known image scores higher than another, equal scores half; None where there are none of either.

    A score that is NaN, as a network may give to noise, is lower than every other.
    """
    if not len(known_n) or not len(other_n):
        return None
    scores_n = np.concatenate([known_n, other_n])
    ranks_n = rankdata(np.where(np.isnan(scores_n), -np.inf, scores_n))[: len(known_n)]
    above = ranks_n.sum() - len(known_n) * (len(known_n) + 1) / 2  # Mann and Whitney's U
    return float(above / (len(known_n) * len(other_n)))


def _accuracy_by_coverage(score_n: Floats, right_n: Right) -> Floats:
    """Of the first 1, 2, … n images by score, the share that is right."""
    order = np.argsort(-score_n, kind="stable")
    share_n: Floats = np.cumsum(right_n[order]) / np.arange(1, len(score_n) + 1)
    return share_n


def _round_down(threshold: float) -> float:
    """Downwards: the image whose score it is stays answered."""
    return float(np.floor(threshold * 10**DECIMALS) / 10**DECIMALS)
