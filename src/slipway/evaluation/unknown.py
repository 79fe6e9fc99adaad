"""Chooses the score that best separates familiar from foreign images, and fits its threshold to the promise.

No foreign images are at hand when a classifier is trained, so stand-ins replace them: validation images as if their
own class did not exist, and foreign images that `foreign_network` makes from their pixels. The score that best
separates them from the real validation images wins.
"""

import base64
import math
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import get_args

import numpy as np
import numpy.typing as npt

from slipway.contract import DataError, Decision
from slipway.contract.decision import ClassMeans, Score
from slipway.contract.evidence.evaluation import ScoreFigures
from slipway.contract.spec import UnknownPolicy
from slipway.evaluation.predict import Float, Forward
from slipway.evaluation.reliability import Floats
from slipway.steps.postprocess import decode_means, familiarity, nearness

SCORES: tuple[Score, ...] = get_args(Score)
"""The scores, simplest first: among equals the first wins."""
DECIMALS = 4  # a threshold is part of the bundle's id, and later digits differ between machines
MEANS_SIZE = 1 << 20
"""Most numbers in the class means; more would make decision.json too large."""
CURVE_POINTS = 50
ERROR = 0.05  # chance that so many right answers in a row come from a lower precision than asked for
Right = npt.NDArray[np.bool_]
ClassIds = npt.NDArray[np.int64]
ScoreEvidence = Mapping[Score, Floats]
"""The evidence that each score is computed from, `[n, classes]`."""
TILES = 4  # along each side


def fit_class_means(embedding_nd: Float, truth_n: ClassIds, *, classes: int) -> ClassMeans | None:
    """Return each class's mean embedding; None where a class has no image, or the means are all zero or too large."""
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


def evidence(logits_nc: Float, embedding_nd: Float, *, temperature: float, means: ClassMeans | None) -> ScoreEvidence:
    """Return the evidence of each score; without class means there is none for `embedding`."""
    scaled_nc = logits_nc.astype(np.float64) / temperature
    found: dict[Score, Floats] = {"max_probability": scaled_nc, "energy": scaled_nc}
    if means is not None:
        found["embedding"] = nearness(embedding_nd, decode_means(means.model_dump(), classes=logits_nc.shape[1]))
    return found


def compare_scores(
    known: ScoreEvidence, truth_n: ClassIds, foreign: Mapping[str, ScoreEvidence]
) -> dict[Score, ScoreFigures]:
    """Measure how well each score separates the validation images from the foreign ones."""
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
    """Return the score with the highest mean `foreign_auroc`, to three decimals; among equals the simplest."""
    means = {score: fmean(found.foreign_auroc.values() or [0.0]) for score, found in compared.items()}
    return max((score for score in SCORES if score in means), key=lambda score: round(means[score], 3))


def fit_threshold(score_n: Floats, right_n: Right, policy: UnknownPolicy) -> float:
    """Return the threshold that keeps the policy's promise on these validation images.

    `coverage`: new images of the known classes are answered with at least this probability (split conformal
    prediction, Vovk et al., "Algorithmic Learning in a Random World", 2005: the k-th lowest of n scores, with
    k = floor((1 - coverage) * (n + 1))). `precision`: the lowest score from which on at least this share of the answers
    is right, over enough answers to prove that share if all of them were right: one lucky image proves nothing.

    Raises:
        DataError: there are too few images for the coverage, or no threshold reaches the precision on enough answers.
    """
    if policy.coverage is not None:
        check_coverage(policy, images=len(score_n))
        rank = int((1 - policy.coverage) * (len(score_n) + 1) + 1e-9)
        return _round_down(float(np.sort(score_n)[rank - 1]))
    assert policy.precision is not None  # the spec requires one of the two
    order = np.argsort(-score_n, kind="stable")
    share_n = _accuracy_by_coverage(score_n, right_n)
    # The last of equal scores stands for all of them: a threshold cannot separate them.
    last_n = np.append(score_n[order][1:] != score_n[order][:-1], True)
    reached = np.flatnonzero(last_n & (share_n >= policy.precision))
    if not len(reached):
        raise DataError(
            f"decision.unknown.precision: {policy.precision} given, but no threshold reaches it on the {len(score_n)} "
            "validation images; ask for less, or for a coverage"
        )
    answered, needed = int(reached[-1]) + 1, math.ceil(math.log(ERROR) / math.log(policy.precision))
    if answered < needed:
        raise DataError(
            f"decision.unknown.precision: {policy.precision} is reached on only {answered} of {len(score_n)} "
            f"validation images, and proof takes {needed} answers; ask for less or for a coverage, or give validation "
            "more images"
        )
    return _round_down(float(score_n[order][reached[-1]]))


def check_coverage(policy: UnknownPolicy | None, *, images: int) -> None:
    """Raises DataError: there are too few validation images for any threshold to promise this coverage."""
    if policy is not None and policy.coverage is not None and (1 - policy.coverage) * (images + 1) + 1e-9 < 1:
        needed = int(np.ceil(1 / (1 - policy.coverage) - 1 - 1e-9))
        raise DataError(
            f"decision.unknown.coverage: {policy.coverage} needs at least {needed} validation images, but there are "
            f"{images}; ask for less, or raise data.validation_fraction"
        )


def coverage_curve(score_n: Floats, right_n: Right) -> list[tuple[float, float]]:
    """Return coverage and the accuracy of the answered images at up to 50 thresholds, from the highest down."""
    accuracy_n = _accuracy_by_coverage(score_n, right_n)
    rows = np.unique(np.linspace(0, len(score_n) - 1, min(CURVE_POINTS, len(score_n))).round().astype(int))
    return [(float((row + 1) / len(score_n)), float(accuracy_n[row])) for row in rows]


def score_of(decision: Decision, logits_nc: Float, embedding_nd: Float) -> Floats:
    """Return the score that `decision` compares with its threshold, `[n]`; without `unknown`, the best probability."""
    score = "max_probability" if decision.unknown is None else decision.unknown.score
    means = None if decision.unknown is None else decision.unknown.class_means
    return familiarity(score, evidence(logits_nc, embedding_nd, temperature=decision.temperature, means=means)[score])


def refit(
    decision: Decision, policy: UnknownPolicy | None, *, logits_nc: Float, embedding_nd: Float, truth_n: ClassIds
) -> Decision:
    """Return `decision` with the threshold that keeps the policy's promise for these outputs; without one, unchanged.

    Raises:
        DataError: see `fit_threshold`.
    """
    if policy is None or decision.unknown is None:
        return decision
    score_n = score_of(decision, logits_nc, embedding_nd)
    threshold = fit_threshold(score_n, logits_nc.argmax(axis=1) == truth_n, policy)
    return decision.model_copy(update={"unknown": decision.unknown.model_copy(update={"threshold": threshold})})


def auroc(known_n: Floats, other_n: Floats) -> float | None:
    """Return how often a known image scores above another one, ties counting half; None where either set is empty.

    A NaN score, which a network may give to noise, is below every other.
    """
    from scipy.stats import rankdata  # half a second to import

    if not len(known_n) or not len(other_n):
        return None
    scores_n = np.concatenate([known_n, other_n])
    ranks_n = rankdata(np.where(np.isnan(scores_n), -np.inf, scores_n))[: len(known_n)]
    above = ranks_n.sum() - len(known_n) * (len(known_n) + 1) / 2  # Mann and Whitney's U
    return float(above / (len(known_n) * len(other_n)))


def _accuracy_by_coverage(score_n: Floats, right_n: Right) -> Floats:
    """Return the share of right answers among the first 1, 2, … n images by score."""
    order = np.argsort(-score_n, kind="stable")
    share_n: Floats = np.cumsum(right_n[order]) / np.arange(1, len(score_n) + 1)
    return share_n


def _round_down(threshold: float) -> float:
    """Round the threshold down, so that the image with this score is still answered."""
    return float(np.floor(threshold * 10**DECIMALS) / 10**DECIMALS)


def shuffled(pixels_nchw: Float, rng: np.random.Generator) -> Float:
    """Cut each image into 4 x 4 tiles and shuffle them: colours and strokes stay, shapes do not.

    Rows and columns that do not fill a tile stay where they are.
    """
    out_nchw = pixels_nchw.copy()
    height, width = (side // TILES for side in pixels_nchw.shape[2:])
    corners = [(row * height, column * width) for row in range(TILES) for column in range(TILES)]
    for image_chw, out_chw in zip(pixels_nchw, out_nchw, strict=True):
        for (top, left), place in zip(corners, rng.permutation(len(corners)), strict=True):
            row, column = corners[place]
            out_chw[:, row : row + height, column : column + width] = image_chw[
                :, top : top + height, left : left + width
            ]
    return out_nchw


def noise(pixels_nchw: Float, rng: np.random.Generator) -> Float:
    """Draw independent uniform pixels between the least and the greatest value of each channel in these images."""
    low_1c11, high_1c11 = pixels_nchw.min(axis=(0, 2, 3), keepdims=True), pixels_nchw.max(axis=(0, 2, 3), keepdims=True)
    return rng.uniform(low_1c11, high_1c11, pixels_nchw.shape).astype(np.float32)


KINDS: dict[str, Callable[[Float, np.random.Generator], Float]] = {"shuffled": shuffled, "noise": noise}
"""Kinds of foreign images. Source: Hendrycks et al., "Deep Anomaly Detection with Outlier Exposure", 2019, where such
images (noise, jigsaw) stand in for outliers that are not available yet."""


def foreign_network(network: Forward, kind: str, *, seed: int = 0) -> Forward:
    """Return `network` wrapped so that it sees a stand-in of `kind` instead of every image."""
    rng = np.random.default_rng(seed)
    return lambda pixels_nchw: network(KINDS[kind](pixels_nchw, rng))
