"""`evaluation.json` of a multi-label bundle: what its answers are worth, and the decision that they were made with."""

from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.contract import Decision
from slipway.evaluation.fit import answer
from slipway.evaluation.labels import evaluate_labels, label_reliability
from slipway.evaluation.predict import Predictions, table
from slipway.evaluation.worth import MISTAKES_KEPT, Labels
from slipway.steps.postprocess import Answers


def worth_labels(decision: Decision, test: Predictions, labels: Labels) -> dict[str, Any]:
    """The test split as served, in FP32 by OpenVINO: metrics, reliability before and after Platt, mistakes."""
    plain = decision.model_copy(update={"platt": None, "temperature": 1.0})
    before, answers = answer(plain, test, labels), answer(decision, test, labels)
    truth_nc, given_nc = test.truth_nc, given(answers, classes=len(labels))
    found = evaluate_labels(answers.probability_nc, given_nc, truth_nc, labels)
    before_reliability = label_reliability(before.probability_nc, truth_nc)
    assert decision.thresholds is not None  # `fit_labels` gives both
    assert decision.platt is not None
    for row, threshold, (slope, offset) in zip(
        found["per_class"].values(), decision.thresholds, decision.platt, strict=True
    ):
        row |= {"threshold": threshold, "slope": slope, "offset": offset}
    return {
        "split": "test",
        "arithmetic": "f32",
        "task": "multilabel",
        **found,
        "ece_uncalibrated": before_reliability["ece"],
        "reliability": {"before": before_reliability, "after": label_reliability(answers.probability_nc, truth_nc)},
        "without_labels": {"images": int((~truth_nc).all(axis=1).sum()), "answers": int((~given_nc).all(axis=1).sum())},
        "mistakes": _mistakes(test, answers, labels),
    }


def given(answers: Answers, *, classes: int) -> npt.NDArray[np.bool_]:
    """The labels that were answered, `BOOL [n, classes]`: those over their thresholds, `top_k` at most."""
    return table([row[row >= 0].tolist() for row in answers.class_id_nk], classes=classes)


def _mistakes(test: Predictions, answers: Answers, labels: Labels) -> list[dict[str, Any]]:
    """Labels that are missing or should not be there, the surest first: a missing one by how improbable it was."""
    truth_nc, given_nc = test.truth_nc, given(answers, classes=len(labels))
    rows, columns = np.nonzero(truth_nc != given_nc)
    probability = answers.probability_nc[rows, columns].astype(np.float64)
    sureness = np.where(truth_nc[rows, columns], 1 - probability, probability)
    found = []
    for index in np.argsort(-sureness, kind="stable")[:MISTAKES_KEPT]:
        row, column = rows[index], columns[index]
        found.append(
            {
                "image": test.images[row].path,
                "label": labels[column],
                "kind": "missing" if truth_nc[row, column] else "extra",
                "probability": float(probability[index]),
                "truth": [labels[class_id] for class_id in np.flatnonzero(truth_nc[row])],
                "answer": [labels[class_id] for class_id in np.flatnonzero(given_nc[row])],
            }
        )
    return found
