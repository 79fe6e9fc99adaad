"""Finds the suspect labels of a spec's data and writes them to a folder."""

import csv
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np

from slipway.contract import Spec
from slipway.contract.base import Contract
from slipway.contract.dataset import Split
from slipway.contract.decision import Task
from slipway.contract.evidence.origin import versions
from slipway.pages import environment
from slipway.system.files import complete_folder
from slipway.system.targets import MARKERS
from slipway.system.text import to_cell
from slipway.training.data.inspection.pictures import thumbnails
from slipway.training.data.inspection.viewer import Viewer
from slipway.training.data.sources import read_from
from slipway.training.search.cross_validation import OutOfFold, cross_validate

RESULT, PAGE, SUSPECTS = MARKERS["label errors"], "label_errors.html", "suspects.csv"
LIBRARIES = ("cleanlab", "torch", "timm")
Action = Literal["drop", "relabel", "keep"]
SHOWN = 400
LABELS = 200


class Suspect(Contract):
    """An image whose label is probably wrong."""

    path: str
    given: tuple[str, ...]
    """The given labels: one for multi-class, any number for multi-label, as in `suggested`."""
    suggested: tuple[str, ...]
    quality: float
    """cleanlab's label quality score, 0 to 1; for multi-class, the probability of the given label."""
    probability: dict[str, float]
    """Probability of each given and each suggested label, from a network that never saw the image."""
    split: Split
    fold: int

    @property
    def action(self) -> Action:
        """Return the default action for the image.

        Held-out images stay: a test split without the network's mistakes would flatter it.
        """
        return "drop" if self.split == "train" else "keep"


class LabelErrors(Contract):
    """Everything that a search for label errors found."""

    name: str
    task: Task
    images: int
    folds: int
    seed: int
    top1_by_fold: tuple[float, ...]
    """Agreement with the given labels in each fold; empty for multi-label."""
    suspects: tuple[Suspect, ...]
    """All suspects, the lowest quality first."""
    suspects_by_label: dict[str, int]
    """Number of suspects of each given label; an image with several labels counts for each of them."""
    versions: dict[str, str]


def find_label_errors(spec: Spec, out: Path, *, folds: int, seed: int) -> LabelErrors:
    """Cross-validate `spec` and write RESULT, SUSPECTS and PAGE to the folder `out`, whole or not at all.

    The predictions of each fold are kept in the folder `<out>.folds` beside it, from which a killed run continues.

    Raises:
        DataError: the images cannot be used; see `cross_validate`.
        SpecError: the spec asks for something that does not exist, or `out` holds something else.
    """
    with complete_folder(out, kind="label errors", inputs=read_from(spec.data, out=out)) as staging:
        predicted = cross_validate(spec, out.with_name(out.name + ".folds"), folds=folds, seed=seed)
        multiclass = spec.task == "multiclass"
        found = LabelErrors(
            name=spec.name,
            task=spec.task,
            images=len(predicted.dataset.images),
            folds=folds,
            seed=seed,
            top1_by_fold=tuple(predicted.top1_by_fold()) if multiclass else (),
            suspects=(listed := suspects(predicted, multilabel=not multiclass)),
            suspects_by_label=dict(Counter(label for suspect in listed for label in suspect.given).most_common()),
            versions=versions(LIBRARIES),
        )
        found.write(staging / RESULT)
        _write_suspects(found, staging / SUSPECTS, separator=spec.data.label_separator)
        page = render(found, root=Path(predicted.dataset.root), exif_orientation=spec.preprocess.exif_orientation)
        (staging / PAGE).write_text(page, encoding="utf-8")
    return found


def suspects(predicted: OutOfFold, *, multilabel: bool) -> tuple[Suspect, ...]:
    """Return the images that cleanlab considers mislabelled, the lowest label quality first.

    Source: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021; for
    multi-label Thyagarajan and others, "Identifying Incorrect Annotations in Multi-Label Classification Data", 2022.
    """
    rows, quality_n, suggested = (_of_many_labels if multilabel else _of_one_label)(predicted)
    dataset = predicted.dataset
    listed = []
    for row in sorted(rows, key=lambda row: (quality_n[row], dataset.images[row].path)):
        image = dataset.images[row]
        named = sorted({*image.class_ids, *suggested[row]})
        listed.append(
            Suspect(
                path=image.path,
                given=tuple(dataset.labels[class_id] for class_id in image.class_ids),
                suggested=tuple(dataset.labels[class_id] for class_id in suggested[row]),
                quality=round(float(quality_n[row]), 6),
                probability={dataset.labels[i]: round(float(predicted.probability_nc[row, i]), 6) for i in named},
                split=image.split,
                fold=int(predicted.fold_n[row]),
            )
        )
    return tuple(listed)


def _of_one_label(predicted: OutOfFold) -> tuple[list[int], Any, dict[int, list[int]]]:
    """Return the suspect rows, the quality of every row, and the probable class of each suspect."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    given_n = np.array([image.class_id for image in predicted.dataset.images])
    probability_nc = predicted.probability_nc.astype(np.float64)
    flagged_n = find_label_issues(given_n, probability_nc, n_jobs=1)
    best_n = probability_nc.argmax(axis=1)
    rows = np.flatnonzero(flagged_n & (best_n != given_n)).tolist()
    return rows, get_label_quality_scores(given_n, probability_nc), {row: [int(best_n[row])] for row in rows}


def _of_many_labels(predicted: OutOfFold) -> tuple[list[int], Any, dict[int, list[int]]]:
    from cleanlab.multilabel_classification import get_label_quality_scores
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class

    given = [list(image.class_ids) for image in predicted.dataset.images]
    probability_nc = predicted.probability_nc.astype(np.float64)
    wrong_nc = np.asarray(find_multilabel_issues_per_class(given, probability_nc, n_jobs=1), np.bool_)
    rows = np.flatnonzero(wrong_nc.any(axis=1)).tolist()
    suggested = {row: sorted({*given[row]} ^ {*np.flatnonzero(wrong_nc[row]).tolist()}) for row in rows}
    return rows, get_label_quality_scores(given, probability_nc), suggested


def _write_suspects(found: LabelErrors, path: Path, *, separator: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "given", "suggested", "quality", "split", "action"])
        for s in found.suspects:
            writer.writerow(
                [
                    *map(to_cell, (s.path, separator.join(s.given), separator.join(s.suggested))),
                    s.quality,
                    s.split,
                    s.action,
                ]
            )


def render(found: LabelErrors, *, root: Path, exif_orientation: bool) -> str:
    """Render the page. Labels and file names are untrusted: Jinja escapes every one of them."""
    shown = found.suspects[:SHOWN]
    return (
        environment("slipway.training.search.label_errors")
        .get_template("label_errors.html")
        .render(
            title=f"{found.name}: label errors",
            found=found,
            agreement=fmean(found.top1_by_fold) if found.top1_by_fold else None,
            by_label=list(found.suspects_by_label.items())[:LABELS],
            shown=shown,
            pictures=thumbnails(
                [suspect.path for suspect in shown], root=root, viewer=Viewer(exif_orientation=exif_orientation)
            ),
        )
    )
