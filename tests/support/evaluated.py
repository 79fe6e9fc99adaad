"""A bundle with an evaluation, for its page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slipway.contract import Bundle, Decision
from slipway.contract.dataset import Dataset
from slipway.contract.evidence.evaluation import ScoreChoice
from slipway.evaluation.bundle import evaluate_bundle
from slipway.evaluation.predict import Predictions
from slipway.evaluation.unknown import compare_scores, evidence
from tests.support.colours import reseal
from tests.support.report_builds import LABELS, make_bundle

DECISION = {"task": "multiclass", "top_k": 2, "temperature": 0.5, "unknown": {"threshold": 0.9}}


def evaluated(folder: Path, *, labels: Sequence[str] = LABELS, sure: float = 3.0, **changes: Any) -> Bundle:
    """`colours` with an evaluation of made-up logits on its test images."""
    bundle = make_bundle(folder, labels=labels)
    images = Dataset.read(bundle.path / "dataset.json").images
    truth_n = np.array([image.class_id for image in images])
    rng = np.random.default_rng(0)
    logits_nc = rng.normal(size=(len(images), len(labels))).astype(np.float32)
    logits_nc[np.arange(len(images)), truth_n] += sure
    test = Predictions(images, logits_nc, logits_nc)
    decision = Decision.parse({**DECISION, **changes}, source="test")
    known = evidence(logits_nc, logits_nc, temperature=0.5, means=None)
    unknown = ScoreChoice(policy={"score": "auto", "coverage": 0.98}, scores=compare_scores(known, truth_n, {}))
    evaluate_bundle(decision, test, test, tuple(labels), unknown=unknown).write(bundle.path / "evaluation.json")
    reseal(bundle.path)
    return Bundle.open(bundle.path)
