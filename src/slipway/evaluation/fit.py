"""Fits a decision to the validation split: once for the bundle, and again to the outputs of each engine."""

from dataclasses import fields

import numpy as np

from slipway.contract import Decision
from slipway.contract.spec import DecisionPolicy
from slipway.evaluation.confidence import BLOCK, fit_platt, fit_temperature
from slipway.evaluation.predict import Predictions
from slipway.evaluation.thresholds import fit_thresholds
from slipway.evaluation.unknown import refit
from slipway.steps.postprocess import Answers, Postprocessor


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
