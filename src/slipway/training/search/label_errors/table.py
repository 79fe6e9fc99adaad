"""Applies the decisions on suspects and writes the cleaned table for `data.csv`."""

import csv
import io
from collections import Counter
from pathlib import Path

from slipway.contract import DataError, Spec
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.system.targets import check_file, told
from slipway.system.text import from_cell
from slipway.training.data.dataset import scan
from slipway.training.data.entries import raise_faults
from slipway.training.data.table import LABEL_COLUMNS
from slipway.training.search.cross_validation import write_table

ACTIONS = ("drop", "relabel", "keep")


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
