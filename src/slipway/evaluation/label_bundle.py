"""Makes a multi-label bundle's `evaluation.json`: the accuracy of its answers, and the decision behind them."""

import numpy as np
import numpy.typing as npt

from slipway.contract import Decision
from slipway.contract.evidence.evaluation import (
    BeforeAndAfter,
    DecidedLabel,
    LabelBundleEvaluation,
    LabelMistake,
    WithoutLabels,
)
from slipway.evaluation.bundle import MISTAKES_KEPT, Labels
from slipway.evaluation.fit import answer
from slipway.evaluation.labels import evaluate_labels, label_reliability
from slipway.evaluation.predict import Predictions, table
from slipway.steps.postprocess import Answers


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
        mistakes=_mistakes(test, answers, labels),
    )


def given(answers: Answers, *, classes: int) -> npt.NDArray[np.bool_]:
    """Return the answered labels, `BOOL [n, classes]`: those over their thresholds, at most `top_k`."""
    return table([row[row >= 0].tolist() for row in answers.class_id_nk], classes=classes)


def _mistakes(test: Predictions, answers: Answers, labels: Labels) -> tuple[LabelMistake, ...]:
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
