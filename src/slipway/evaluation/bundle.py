"""Makes a bundle's `evaluation.json`: the accuracy of its answers, and the evidence for its decision."""

import numpy as np
import numpy.typing as npt

from slipway.contract import Decision
from slipway.contract.evidence.evaluation import (
    BeforeAndAfter,
    BundleEvaluation,
    Coverage,
    DecidedLabel,
    LabelBundleEvaluation,
    LabelMistake,
    Mistake,
    ScoreChoice,
    UnknownEffect,
    UnknownFigures,
    WithoutLabels,
)
from slipway.evaluation.fit_decision import answer, given
from slipway.evaluation.intervals import ERROR, share_interval
from slipway.evaluation.labels import evaluate_labels, label_reliability
from slipway.evaluation.metrics import evaluate
from slipway.evaluation.predict import Predictions
from slipway.evaluation.reliability import predicted, reliability
from slipway.evaluation.unknown import coverage_curve, score_of
from slipway.steps.postprocess import UNKNOWN, Answers

MISTAKES_KEPT = 60
Labels = tuple[str, ...]


def evaluate_bundle(
    decision: Decision, validation: Predictions, test: Predictions, labels: Labels, *, unknown: ScoreChoice
) -> BundleEvaluation:
    """Evaluate the test split as served, in FP32 by OpenVINO: metrics, reliability, coverage, mistakes.

    Args:
        unknown: the evidence for the score of `unknown`, from `fit_decision`; empty without a policy.
    """
    uncalibrated = decision.model_copy(update={"temperature": 1.0, "unknown": None})
    before = reliability(answer(uncalibrated, test, labels).probability_nc, test.truth_n)
    answers = answer(decision, test, labels)
    right_n = predicted(answers.probability_nc) == test.truth_n
    evaluation = BundleEvaluation(
        split="test",
        arithmetic="f32",
        ece_uncalibrated=before.ece,
        **evaluate(answers.probability_nc, test.truth_n, labels).fields(),
        temperature=decision.temperature,
        reliability=BeforeAndAfter(before=before, after=reliability(answers.probability_nc, test.truth_n)),
        coverage=Coverage(
            score="max_probability" if decision.unknown is None else decision.unknown.score,
            curve=tuple(coverage_curve(score_of(decision, test.logits_nc, test.embedding_nd), right_n)),
        ),
        mistakes=_mistakes(test, answers.probability_nc, labels),
    )
    if decision.unknown is None:
        return evaluation
    figures = UnknownFigures(
        **unknown.fields(),
        score=decision.unknown.score,
        threshold=decision.unknown.threshold,
        validation=_effect_of_unknown(answer(decision, validation, labels), validation),
        test=_effect_of_unknown(answers, test),
    )
    return evaluation.model_copy(update={"unknown": figures})


def _effect_of_unknown(answers: Answers, split: Predictions) -> UnknownEffect:
    """Count the `unknown` images, and the right answers to the others."""
    answered_n = answers.label_nk[:, 0] != UNKNOWN
    images, answered = len(answered_n), int(answered_n.sum())
    right = int((answers.class_id_nk[:, 0] == split.truth_n).sum())
    return UnknownEffect(
        images=images,
        unknown_rate=1 - answered / images,
        unknown_interval=share_interval(images - answered, images, error=ERROR),
        accuracy=right / answered if answered else None,
        accuracy_interval=share_interval(right, answered, error=ERROR),
    )


def _mistakes(test: Predictions, probability_nc: npt.NDArray[np.float32], labels: Labels) -> tuple[Mistake, ...]:
    """Return the wrong answers, the most confident first."""
    predicted_n = predicted(probability_nc)
    wrong = np.flatnonzero(predicted_n != test.truth_n)
    surest = wrong[np.argsort(-probability_nc[wrong].max(axis=1), kind="stable")][:MISTAKES_KEPT]
    return tuple(
        Mistake(
            image=test.images[row].path,
            truth=labels[test.truth_n[row]],
            truth_probability=float(probability_nc[row, test.truth_n[row]]),
            label=labels[predicted_n[row]],
            score=float(probability_nc[row].max()),
        )
        for row in surest
    )


def evaluate_label_bundle(decision: Decision, test: Predictions, labels: Labels) -> LabelBundleEvaluation:
    """Evaluate the test split as served, in FP32 by OpenVINO: metrics, reliability before and after Platt, mistakes."""
    plain = decision.model_copy(update={"platt": None, "temperature": 1.0})
    answers, truth_nc = answer(decision, test, labels), test.truth_nc
    given_nc = given(answers, classes=len(labels))
    found = evaluate_labels(answers.probability_nc, given_nc, truth_nc, labels)
    before = label_reliability(answer(plain, test, labels).probability_nc, truth_nc)
    assert decision.thresholds is not None  # `fit_labels` gives both
    assert decision.platt is not None
    decided = zip(found.per_class.items(), decision.thresholds, decision.platt, strict=True)
    per_class = {
        label: DecidedLabel(**row.fields(), threshold=threshold, slope=slope, offset=offset)
        for (label, row), threshold, (slope, offset) in decided
    }
    return LabelBundleEvaluation(
        split="test",
        arithmetic="f32",
        **found.fields() | {"per_class": per_class},
        ece_uncalibrated=before.ece,
        reliability=BeforeAndAfter(before=before, after=label_reliability(answers.probability_nc, truth_nc)),
        without_labels=WithoutLabels(
            images=int((~truth_nc).all(axis=1).sum()), answers=int((~given_nc).all(axis=1).sum())
        ),
        mistakes=_label_mistakes(test, answers, labels),
    )


def _label_mistakes(test: Predictions, answers: Answers, labels: Labels) -> tuple[LabelMistake, ...]:
    """Return missing and surplus labels, the most confident mistakes first: a missing label by its improbability."""
    truth_nc, given_nc = test.truth_nc, given(answers, classes=len(labels))
    rows, columns = np.nonzero(truth_nc != given_nc)
    probability = answers.probability_nc[rows, columns].astype(np.float64)
    sureness = np.where(truth_nc[rows, columns], 1 - probability, probability)
    return tuple(
        LabelMistake(
            image=test.images[row].path,
            label=labels[column],
            kind="missing" if truth_nc[row, column] else "extra",
            probability=float(answers.probability_nc[row, column]),
            truth=tuple(labels[class_id] for class_id in np.flatnonzero(truth_nc[row])),
            answer=tuple(labels[class_id] for class_id in np.flatnonzero(given_nc[row])),
        )
        for row, column in np.transpose([rows, columns])[np.argsort(-sureness, kind="stable")[:MISTAKES_KEPT]]
    )
