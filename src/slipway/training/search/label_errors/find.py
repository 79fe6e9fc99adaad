"""Finds the suspect labels of a spec's data, and writes a folder about them and the table that is left."""

import csv
import io
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np

from slipway.contract import DataError, Spec
from slipway.contract.dataset import Dataset, LabelledImage, Split
from slipway.contract.decision import Task
from slipway.contract.evidence.origin import versions
from slipway.contract.typed_file import Contract
from slipway.pages import environment
from slipway.system.files import complete_folder
from slipway.system.targets import MARKERS, check_file, told
from slipway.system.text import from_cell, to_cell
from slipway.training.data.dataset import scan
from slipway.training.data.entries import raise_faults
from slipway.training.data.inspection.facts import Viewer
from slipway.training.data.inspection.page import thumbnails
from slipway.training.data.sources import LABEL_COLUMNS, read_from
from slipway.training.search.cross_validation import OutOfFold, cross_validate, write_table

RESULT, PAGE, SUSPECTS = MARKERS["label errors"], "label_errors.html", "suspects.csv"
LIBRARIES = ("cleanlab", "torch", "timm")
LabelAction = Literal["drop", "relabel", "keep"]
SHOWN = 400
LABELS = 200
ACTIONS = ("drop", "relabel", "keep")


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
    def action(self) -> LabelAction:
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


def check_clean(spec: Spec, out: Path, *, reviewed: Path | None = None) -> None:
    """Raise what `write_clean` raises about `out`, before the work."""
    read = [path for path in (reviewed, spec.data.csv) if path is not None]
    check_file(out, mark=f"path,{LABEL_COLUMNS[spec.task]},split", what="a table for data.csv", inputs=map(Path, read))


def write_clean(spec: Spec, reviewed: Path, out: Path) -> Counter[str]:
    """Write the data set of `spec` as decided in `reviewed`: without dropped rows, and with relabelled ones changed.

    Splits stay the same. Returns the number of rows of each action.

    Raises:
        DataError: `reviewed` has unusable rows, named by line.
        SpecError: `out` exists but is not such a table, or is one of the files read.
        StorageError: `out` cannot be written.
    """
    check_clean(spec, out, reviewed=reviewed)
    dataset = scan(spec.data, task=spec.task)
    actions = _read(reviewed, dataset, separator=spec.data.label_separator, multilabel=spec.task == "multilabel")
    images: list[LabelledImage] = []
    for image in dataset.images:
        action, class_ids = actions.get(image.path, ("keep", image.class_ids))
        if action != "drop":
            changed = {"class_ids": class_ids} if action == "relabel" else {}
            images.append(image.model_copy(update=changed))
    with told(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_table(out, dataset, images, spec, splits={image.path: image.split for image in images})
    return Counter(action for action, _ in actions.values())


def _read(path: Path, dataset: Dataset, *, separator: str, multilabel: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Map each path to its action and its suggested classes."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}; give this data set's reviewed suspects.csv") from None
    if rows and not {"path", "suggested", "action"} <= {*rows[0]}:
        there = ", ".join(map(str, rows[0]))
        remedy = "; save it with commas between the columns" if len(rows[0]) == 1 else ""
        raise DataError(f"{path}: needs the columns path, suggested and action, but has {there}{remedy}")
    paths = {image.path for image in dataset.images}
    numbers = {label: class_id for class_id, label in enumerate(dataset.labels)}
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    faults = []
    for line, row in enumerate(rows, start=2):
        image, cell = from_cell(row["path"] or ""), from_cell(row["suggested"] or "")
        labels = (cell.split(separator) if cell else []) if multilabel else [cell]
        unknown = [label for label in labels if label not in numbers]
        if image not in paths:
            faults.append(f"line {line}: {image!r} is not in the data set")
        elif row["action"] not in ACTIONS:
            faults.append(f"line {line}: action {row['action']!r}; the valid ones are {', '.join(ACTIONS)}")
        elif row["action"] == "relabel" and unknown:
            faults.append(f"line {line}: the data set has no class {unknown[0]!r}")
        else:
            class_ids = tuple(sorted(numbers[label] for label in labels if label in numbers))
            found[image] = row["action"], class_ids
    raise_faults(faults, what=f"rows of {path} cannot be used; correct or remove them")
    return found
