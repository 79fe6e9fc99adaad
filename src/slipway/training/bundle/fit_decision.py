"""Fits a bundle's decision on the validation split: temperature and `unknown`, or the labels' thresholds."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from slipway.contract import Decision, Spec, SpecError, Unknown
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.decision import ClassMeans, Score
from slipway.contract.evidence.evaluation import ScoreChoice
from slipway.evaluation.fit import fit_labels, fit_temperature
from slipway.evaluation.predict import Predictions
from slipway.evaluation.unknown import KINDS, MEANS_SIZE, best_score, compare_scores, evidence, fit_class_means, refit

IMAGES_A_CLASS = 50
"""Most training images whose embeddings are averaged into a class mean."""


@dataclass(frozen=True)
class Outputs:
    """The raw outputs of a classifier for the images that a bundle needs."""

    validation: Predictions
    test: Predictions
    train: Callable[[], Predictions]
    """Runs the images that `some_of_each_class` draws."""
    foreign: Callable[[str], Predictions]
    """Runs the stand-ins of a kind of `evaluation.unknown.KINDS` for the images of the validation split."""


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
    options: dict[str, Any] = {"temperature": decision.temperature, "means": means}
    compared = compare_scores(
        evidence(validation.logits_nc, validation.embedding_nd, **options),
        validation.truth_n,
        {kind: evidence(seen.logits_nc, seen.embedding_nd, **options) for kind, seen in foreign.items()},
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


def some_of_each_class(dataset: Dataset) -> list[LabelledImage]:
    """Draw up to `IMAGES_A_CLASS` training images of each class with the seed."""
    images, taken, chosen = dataset.of("train"), Counter[int](), []
    for row in np.random.default_rng(0).permutation(len(images)):
        image = images[row]
        if taken[image.class_id] < IMAGES_A_CLASS:
            taken[image.class_id] += 1
            chosen.append(image)
    return chosen
