"""Prepares the page of a multi-label bundle: labels, reliability over all of them, and the most confident mistakes."""

from typing import Any

from slipway.contract import Bundle
from slipway.contract.evidence.evaluation import LabelBundleEvaluation
from slipway.pages.tables import Scale
from slipway.pages.thumbnails import Thumbnails
from slipway.report.evaluation.drawings import diagrams

LABELS_SHOWN, MISTAKES_SHOWN = 100, 24


def context(bundle: Bundle, evaluation: LabelBundleEvaluation, thumbnails: Thumbnails) -> dict[str, Any]:
    """Return the variables of `evaluation_labels.html`."""
    before, after = diagrams(evaluation.reliability.before, evaluation.reliability.after)
    rows = sorted(evaluation.per_class.items(), key=lambda item: (item[1].f1, item[0]))
    return {
        "title": f"{bundle.spec.name}: evaluation",
        "bundle": bundle,
        "evaluation": evaluation,
        "scale": Scale(0.0, 1.0, 0.5),
        "rows": rows[:LABELS_SHOWN],
        "before": before,
        "after": after,
        "policy_of_thresholds": bundle.spec.decision.thresholds,
        "mistakes": [(mistake, thumbnails.of(mistake.image)) for mistake in evaluation.mistakes[:MISTAKES_SHOWN]],
    }
