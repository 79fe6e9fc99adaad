"""Fits a decision to the validation split: once for the bundle, and again to the outputs of each engine."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from slipway.contract import DataError, Decision, Spec, SpecError, Unknown
from slipway.contract.decision import ClassMeans, Score
from slipway.contract.evidence.evaluation import ScoreChoice
from slipway.contract.spec import DecisionPolicy, ThresholdPolicy
from slipway.evaluation.labels import table
from slipway.evaluation.predict import Predictions
from slipway.evaluation.reliability import Floats
from slipway.evaluation.unknown import KINDS, MEANS_SIZE, best_score, compare_scores, evidence, fit_class_means, refit
from slipway.steps.postprocess import Answers, Postprocessor

DECIMALS, THRESHOLD_DECIMALS = 3, 4
"""Decimals of fitted numbers: they are part of the bundle's id, and later digits differ between machines."""
BLOCK = 1 << 22
"""Most numbers in one block of the computation."""
SLOPES, OFFSETS = (0.01, 100.0), (-50.0, 50.0)
NEVER_SEEN = 0.5
"""Threshold of a class that no validation image has."""


@dataclass(frozen=True)
class Outputs:
    """The raw outputs of a classifier for the images that a bundle needs."""

    validation: Predictions
    test: Predictions
    train: Callable[[], Predictions]
    """Runs the images of each class that are averaged into its mean."""
    foreign: Callable[[str], Predictions]
    """Runs the stand-ins of a kind of `evaluation.unknown.KINDS` for the images of the validation split."""


def fit_temperature(logits_nc: npt.NDArray[np.float32], truth_n: npt.NDArray[np.int64]) -> float:
    """Return the temperature with the lowest negative log-likelihood, between 0.05 and 20.

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """
    rows = max(BLOCK // logits_nc.shape[1], 1)  # 10,000 images of 10,000 classes at once would be gigabytes

    def losses(start: int, log_temperature: float) -> npt.NDArray[np.float64]:
        scaled = logits_nc[start : start + rows].astype(np.float64) / np.exp(log_temperature)
        peak = scaled.max(axis=1)
        log_sum: npt.NDArray[np.float64] = peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1))
        of_truth: npt.NDArray[np.float64] = scaled[np.arange(len(scaled)), truth_n[start : start + rows]]
        return log_sum - of_truth

    def loss(log_temperature: float) -> float:
        return float(np.concatenate([losses(at, log_temperature) for at in range(0, len(truth_n), rows)]).mean())

    best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return round(float(np.exp(best.x)), DECIMALS)


def fit_platt(logits_nc: npt.NDArray[np.float32], truth_nc: npt.NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """Multi-label: fit slope and offset of each class, so that sigmoid(slope * logit + offset) is its probability.

    A class that every image or no image has keeps (1, 0).

    Source: Platt, "Probabilistic Outputs for Support Vector Machines", 1999, with his targets, which stay away from 0
    and 1: perfectly separated classes do not get infinite slopes.
    """
    return tuple(
        _fit_line(logits_n.astype(np.float64), truth_n)
        for logits_n, truth_n in zip(logits_nc.T, truth_nc.T, strict=True)
    )


def _fit_line(logits_n: npt.NDArray[np.float64], truth_n: npt.NDArray[np.bool_]) -> tuple[float, float]:
    positives, negatives = int(truth_n.sum()), int((~truth_n).sum())
    if not positives or not negatives:
        return 1.0, 0.0
    target_n = np.where(truth_n, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss_and_slopes(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        scaled_n = parameters[0] * logits_n + parameters[1]
        off_n = expit(scaled_n) - target_n
        loss = (np.logaddexp(0, scaled_n) - target_n * scaled_n).mean()
        return float(loss), np.array([(off_n * logits_n).mean(), off_n.mean()])

    start = np.array([1.0, 0.0])
    best = minimize(loss_and_slopes, start, jac=True, bounds=(SLOPES, OFFSETS), method="L-BFGS-B", tol=1e-12)
    return round(float(best.x[0]), DECIMALS), round(float(best.x[1]), DECIMALS)


def fit_thresholds(
    probability_nc: npt.NDArray[np.float32],
    truth_nc: npt.NDArray[np.bool_],
    policy: ThresholdPolicy | None,
    *,
    labels: tuple[str, ...],
) -> tuple[float, ...]:
    """Fit one threshold per class; without a policy, for the highest F1 of each class (Lipton, Elkan and Naryanaswamy,
    "Optimal Thresholding of Classifiers to Maximize F1 Measure", 2014, on the images at hand).

    A threshold lies midway between two neighbouring probabilities, to separate new images the same way; among equally
    good ones the nearest to 0.5 is taken.

    Raises:
        DataError: `policy` asks for a precision that a class does not reach.
    """
    policy = policy or ThresholdPolicy()
    if policy.fixed is not None:
        return (policy.fixed,) * len(labels)
    return tuple(
        _fit_threshold(probability_n, truth_n, policy, label=label)
        for probability_n, truth_n, label in zip(probability_nc.T, truth_nc.T, labels, strict=True)
    )


def _fit_threshold(
    probability_n: npt.NDArray[np.float32], truth_n: npt.NDArray[np.bool_], policy: ThresholdPolicy, *, label: str
) -> float:
    positives = int(truth_n.sum())
    if not positives:
        return NEVER_SEEN
    threshold_t, right_t, given_t = _candidates(probability_n, truth_n)
    precision_t, recall_t = right_t / np.maximum(given_t, 1), right_t / positives
    if policy.precision is not None:
        reached = np.flatnonzero((precision_t >= policy.precision) & (right_t > 0))
        if not len(reached):
            raise DataError(
                f"decision.thresholds.precision: {policy.precision} given, but {label!r} reaches at most "
                f"{precision_t.max():.3f} on its {positives} validation images; ask for less, or for a recall"
            )
        return float(threshold_t[reached].min())
    if policy.recall is not None:
        return float(threshold_t[recall_t >= policy.recall].max())  # 0 would give the label to every image
    f1_t = 2 * right_t / (given_t + positives)
    best = np.flatnonzero(f1_t >= f1_t.max() - 1e-12)
    return float(threshold_t[best][np.abs(threshold_t[best] - 0.5).argmin()])


def _candidates(
    probability_n: npt.NDArray[np.float32], truth_n: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats, Floats]:
    """Return every threshold that splits the images differently, rounded as written, with the numbers of right and of
    given labels, compared in FP32 as in the step."""
    distinct = np.unique(probability_n).astype(np.float64)
    threshold_t = np.unique(np.concatenate([[0.0], (distinct[1:] + distinct[:-1]) / 2]).round(THRESHOLD_DECIMALS))
    order = np.argsort(probability_n)
    below_t = np.searchsorted(probability_n[order], threshold_t.astype(np.float32), side="left")
    right_before_n = np.concatenate([[0], np.cumsum(truth_n[order])])
    right_t = right_before_n[-1] - right_before_n[below_t]
    return threshold_t, right_t.astype(np.float64), (len(probability_n) - below_t).astype(np.float64)


def fit_labels(policy: DecisionPolicy, validation: Predictions, labels: tuple[str, ...]) -> Decision:
    """Multi-label: fit Platt's line and a threshold for each label.

    Raises:
        DataError: see `fit_thresholds`.
    """
    truth_nc = validation.truth_nc
    platt = fit_platt(validation.logits_nc, truth_nc)
    every_label = {"task": "multilabel", "top_k": policy.top_k, "platt": platt, "thresholds": (0.0,) * len(labels)}
    decision = Decision.parse(every_label, source="decision.json")
    probability_nc = answer(decision, validation, labels).probability_nc
    thresholds = fit_thresholds(probability_nc, truth_nc, policy.thresholds, labels=labels)
    return decision.model_copy(update={"thresholds": thresholds})


def fit_decision(spec: Spec, outputs: Outputs, *, labels: tuple[str, ...]) -> tuple[Decision, ScoreChoice]:
    """Return the decision, and the evidence for its `unknown` score (empty without a policy).

    Raises:
        DataError: the validation split cannot show what `decision.unknown` or `decision.thresholds` promises.
        SpecError: the decision asks for `embedding`, but the class means cannot be computed.
    """
    policy, validation = spec.decision, outputs.validation
    if spec.task == "multilabel":
        return fit_labels(policy, validation, labels), ScoreChoice()
    values = {
        "task": spec.task,
        "top_k": policy.top_k,
        "temperature": fit_temperature(validation.logits_nc, validation.truth_n),
        "unknown": None if policy.unknown_threshold is None else {"threshold": policy.unknown_threshold},
    }
    decision = Decision.parse(values, source="decision.json")
    if policy.unknown is None:
        return decision, ScoreChoice()
    means = None
    if validation.embedding_nd.shape[1]:
        sample = outputs.train()
        means = fit_class_means(sample.embedding_nd, sample.truth_n, classes=len(labels))
    foreign = {kind: outputs.foreign(kind) for kind in KINDS}
    evidence_of = partial(evidence, temperature=decision.temperature, means=means)
    compared = compare_scores(
        evidence_of(validation.logits_nc, validation.embedding_nd),
        validation.truth_n,
        {kind: evidence_of(seen.logits_nc, seen.embedding_nd) for kind, seen in foreign.items()},
    )
    score = best_score(compared) if policy.unknown.score == "auto" else policy.unknown.score
    decision = refit(
        _with_score(decision, score, means),
        policy.unknown,
        logits_nc=validation.logits_nc,
        embedding_nd=validation.embedding_nd,
        truth_n=validation.truth_n,
    )
    return decision, ScoreChoice(policy=policy.unknown.model_dump(exclude_none=True), scores=compared)


def _with_score(decision: Decision, score: Score, means: ClassMeans | None) -> Decision:
    if score == "embedding" and means is None:
        raise SpecError(
            "decision.unknown.score: embedding needs a mean of every class, but the network has no embedding, a class "
            f"has no training image, or the means are all zero or hold more than {MEANS_SIZE:,} numbers; write auto, "
            "energy or max_probability"
        )
    unknown = Unknown(score=score, threshold=0.0, class_means=means if score == "embedding" else None)
    return decision.model_copy(update={"unknown": unknown})


def refit_decision(
    decision: Decision, policy: DecisionPolicy, validation: Predictions, labels: tuple[str, ...]
) -> Decision:
    """Return `decision` with every output-dependent part fitted to these outputs.

    Raises:
        DataError: see `fit_thresholds` and `unknown.fit_threshold`.
    """
    if decision.task == "multilabel":
        return fit_labels(policy, validation, labels)
    return refit(
        decision.model_copy(update={"temperature": fit_temperature(validation.logits_nc, validation.truth_n)}),
        policy.unknown,
        logits_nc=validation.logits_nc,
        embedding_nd=validation.embedding_nd,
        truth_n=validation.truth_n,
    )


def answer(decision: Decision, split: Predictions, labels: tuple[str, ...]) -> Answers:
    """Decide as in serving, in blocks of images: the step's working memory is many times the size of its answers."""
    step, images = Postprocessor(decision.model_dump(), labels), len(split.images)
    rows = max(BLOCK // len(labels), 1)
    blocks = [slice(start, start + rows) for start in range(0, images, rows)]
    status_n = np.zeros(images, np.int32)
    found = [step.run(split.logits_nc[at], status_n[at], split.embedding_nd[at]) for at in blocks]
    names = [field.name for field in fields(Answers)]
    return Answers(**{name: np.concatenate([getattr(part, name) for part in found]) for name in names})


def given(answers: Answers, *, classes: int) -> npt.NDArray[np.bool_]:
    """Return the answered labels, `BOOL [n, classes]`: those over their thresholds, at most `top_k`."""
    return table([row[row >= 0].tolist() for row in answers.class_id_nk], classes=classes)
