"""Renders a bundle and its evaluation as one self-contained HTML page."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slipway.contract import Bundle
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.evidence.build import BundleMeasured
from slipway.contract.evidence.evaluation import AnyBundleEvaluation, BundleEvaluation, LabelBundleEvaluation
from slipway.pages import environment
from slipway.pages.tables import Scale
from slipway.pages.thumbnails import Thumbnail, Thumbnails
from slipway.report.evaluation.drawings import confused_pairs, curve, diagrams, matrix, rows_of

CLASSES_SHOWN, LABELS_SHOWN, MISTAKES_SHOWN, PAIRS_SHOWN, TABLE_CLASSES = 100, 100, 24, 20, 30
SCORES = {
    "max_probability": "best probability",
    "energy": "energy of the logits",
    "embedding": "distance to the class means",
}
KINDS = {"left_out": "class left out", "shuffled": "shuffled tiles", "noise": "noise"}


@dataclass(frozen=True)
class Heatmaps:
    """Heat maps by image and label, or the reason why there are none."""

    explained: str = ""
    """A sentence that explains the heat maps, or says why the page has none."""
    pictures: Mapping[tuple[str, str], Thumbnail] = field(default_factory=dict)


WITHOUT = Heatmaps("Grad-CAM was not requested.")


def render(bundle: Bundle, evaluation: AnyBundleEvaluation, heatmaps: Heatmaps = WITHOUT) -> str:
    """Render the page; equal files give equal text. Labels and file names are untrusted: Jinja escapes all of them."""
    templates = environment("slipway.report")
    dataset = bundle.path / DATASET
    thumbnails = Thumbnails(
        Dataset.read(dataset) if dataset.is_file() else None, exif_orientation=bundle.preprocess.exif_orientation
    )
    if isinstance(evaluation, LabelBundleEvaluation):
        return templates.get_template("evaluation_labels.html").render(_label_context(bundle, evaluation, thumbnails))
    return templates.get_template("evaluation.html").render(_context(bundle, evaluation, thumbnails, heatmaps))


def _context(
    bundle: Bundle, evaluation: BundleEvaluation, thumbnails: Thumbnails, heatmaps: Heatmaps
) -> dict[str, Any]:
    rows = sorted(evaluation.per_class.items(), key=lambda item: (item[1].f1, item[0]))
    seen, classes = [(label, row) for label, row in rows if row.images], len(bundle.labels)
    before, after = diagrams(evaluation.reliability.before, evaluation.reliability.after)
    few = classes <= TABLE_CLASSES
    drawn, left_out = ("", 0) if few else matrix(evaluation.confusion, classes=classes)
    return {
        "title": f"{bundle.spec.name}: evaluation",
        "bundle": bundle,
        "evaluation": evaluation,
        "scale": Scale(0.0, 1.0, 0.5),
        "classes": seen[:CLASSES_SHOWN],
        "classes_seen": len(seen),
        "without_embedding": bundle.manifest.read_measured(BundleMeasured).embedding_size == 0,
        "before": before,
        "after": after,
        "curve": curve(evaluation.coverage, None if evaluation.unknown is None else evaluation.unknown.test),
        "table": rows_of(evaluation.confusion, classes=classes) if few else None,
        "matrix": drawn,
        "left_out": left_out,
        "pairs": confused_pairs(evaluation.confusion, bundle.labels, most=PAIRS_SHOWN),
        "mistakes": [(mistake, thumbnails.of(mistake.image)) for mistake in evaluation.mistakes[:MISTAKES_SHOWN]],
        "heatmaps": heatmaps,
        "scores": SCORES,
        "kinds": KINDS,
    }


def _label_context(bundle: Bundle, evaluation: LabelBundleEvaluation, thumbnails: Thumbnails) -> dict[str, Any]:
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
