"""Takes in the labels that people give: all of a file, or nothing of it."""

import difflib
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.contract import DataError, SpecError
from slipway.contract.labels import RESERVED, odd_in
from slipway.operations.journal.store import Store
from slipway.operations.labels.labelled_classifier import LabelledClassifier
from slipway.operations.labels.truth import KNOWN
from slipway.system.csv_rows import csv_rows
from slipway.system.text import command, from_cell

LONGEST_LABEL, LONGEST_ANNOTATOR = 200, 200
SHOWN = 10
"""Faults that one error lists."""


@dataclass(frozen=True)
class Written:
    """The result of taking in the labels of one annotator."""

    new: int = 0
    changed: int = 0
    """Rows on which the annotator has said something else before."""
    same: int = 0
    """Rows on which the annotator has said the same before, or something else later."""
    not_asked: int = 0
    """Labelled rows for which no selection has asked; the accuracy estimate leaves them out."""

    def plain(self) -> dict[str, int]:
        return dict(vars(self))


def check_annotator(name: str) -> str:
    """Return the name; raises SpecError if it is not one."""
    if not name or name != name.strip() or not name.isprintable() or len(name) > LONGEST_ANNOTATOR:
        raise SpecError(f"--annotator: {name[:80]!r}; give 1 to {LONGEST_ANNOTATOR} visible characters")
    if name == KNOWN:
        raise SpecError(f"--annotator: {KNOWN!r} stands for known answers; give --known instead")
    return name


def fault_of_label(label: str, *, known: Collection[str]) -> str | None:
    """Return the reason why a label cannot be taken in; None if it can.

    Args:
        known: labels that may be given.
    """
    if odd := odd_in(label):
        return f"the label {label[:80]!r}: {odd}"
    if len(label) > LONGEST_LABEL:
        return f"the label {label[:40]!r} … has {len(label)} characters; give at most {LONGEST_LABEL}"
    if label == RESERVED:
        return f"the label {RESERVED!r} stands for refused answers; name the class, or leave the row out"
    if label in known:
        return None
    composed = {unicodedata.normalize("NFC", one).casefold(): one for one in known}
    similar = difflib.get_close_matches(unicodedata.normalize("NFC", label).casefold(), composed, n=1)
    meant = f"did you mean {composed[similar[0]]!r}? If not, " if similar else ""
    return f"the label {label!r} is new; {meant}give --new-class {label!r}"


def check_new_classes(names: Sequence[str], served: LabelledClassifier) -> None:
    """Raises SpecError: a new class is not one, or could not stand beside the others."""
    for name in names:
        fault = fault_of_label(name, known={name})
        if fault is None and name in served.labels:
            fault = f"{name!r} is a class of the bundle already; leave it out"
        if fault is None:
            composed = unicodedata.normalize("NFC", name)
            same = [one for one in served.labels if unicodedata.normalize("NFC", one) == composed]
            fault = f"{name!r} differs from {same[0]!r} in how Unicode composes its letters alone" if same else None
        if fault is not None:
            raise SpecError(f"--new-class: {fault}")


def read_given(
    store: Store, path: Path, served: LabelledClassifier, *, new_classes: Sequence[str] = ()
) -> dict[int, str]:
    """Labels by row, from a CSV file with the columns `label` and either `row` (numbers) or `sha256` (of images).

    A SHA-256 labels every row of the classifier with this image. A line with an empty label is passed over.

    Raises:
        DataError: rows of the file cannot be used; names them by line. Nothing is written.
        SpecError: a new class is not one.
    """
    check_new_classes(new_classes, served)
    rows = csv_rows(path, what="give a CSV file with the columns row and label, or sha256 and label")
    _, names = next(rows, (0, []))
    keys = [name for name in ("row", "sha256") if name in names]
    if len(keys) != 1 or names.count("label") != 1 or len(set(names)) < len(names):
        listed = ", ".join(map(repr, names[:20])) or "none"
        raise DataError(
            f"{path}: its columns are {listed}; it needs label, and one of row and sha256, separated by commas"
        )
    key, label_at = names.index(keys[0]), names.index("label")
    known = {*served.known(store), *new_classes}
    found: dict[int, str] = {}
    first: dict[int, int] = {}
    faults: list[str] = []
    for line, row in rows:
        if len(row) != len(names):
            faults.append(f"line {line}: {len(row)} values for {len(names)} columns")
            continue
        label = from_cell(row[label_at])
        if not label:  # not labelled yet
            continue
        numbers, fault = _rows_named(store, row[key].strip(), served.classifier, by=keys[0])
        fault = fault or fault_of_label(label, known=known)
        for number in numbers if fault is None else ():
            if found.setdefault(number, label) != label:
                fault = f"row {number} is {label!r}, but {found[number]!r} in line {first[number]}; give one of them"
            first.setdefault(number, line)
        if fault is not None:
            faults.append(f"line {line}: {fault}")
    _raise(faults, path)
    return found


def _rows_named(store: Store, name: str, classifier: str, *, by: str) -> tuple[list[int], str | None]:
    """Numbers of the rows that a cell names, or why it names none."""
    if by == "sha256":
        found = store.query("SELECT id FROM rows WHERE sha256 = ? AND classifier = ?", (name.lower(), classifier))
        if not found:
            return [], f"no row of {classifier} has the image {name[:80]!r}"
        return [number for (number,) in found], None
    if not (name.isdecimal() and name.isascii() and len(name) < 16):
        rows = command("slipway journal rows", store.settings_file)
        return [], f"row {name[:80]!r}; give the number of a row, as {rows} shows it"
    found = store.query("SELECT id, classifier, status FROM rows WHERE id = ?", (int(name),))
    for number, whose, status in found:
        if whose == classifier and status == 0:
            return [number], None
        what = f"one of {whose}, not of {classifier}" if status == 0 else f"a refused image (status {status})"
        return [], f"row {name} is {what}"
    return [], f"row {name} is not in the journal"


def write_given(
    store: Store,
    given: Mapping[int, str],
    *,
    annotator: str,
    now_s: float,
    labelled_s: Mapping[int, float] | None = None,
) -> Written:
    """Write one annotator's labels, all of them or none; a label that was changed replaces an older one.

    Rows that were forgotten meanwhile are left out. A label that comes from the future, since a clock was wrong, counts
    as given now: else nothing could replace it until then.
    """
    times_s = {row: min((labelled_s or {}).get(row, now_s), now_s) for row in given}
    with store.transaction():
        return _write(store, given, annotator, times_s, now_s)


def _write(
    store: Store, given: Mapping[int, str], annotator: str, labelled_s: Mapping[int, float], now_s: float
) -> Written:
    said = store.query("SELECT row, label, labelled_s FROM labels WHERE annotator = ?", (annotator,))
    before = {row: (label, min(at, now_s)) for row, label, at in said}
    there = {row for row in given if store.query("SELECT 1 FROM rows WHERE id = ?", (row,))}
    asked = {row for (row,) in store.query("SELECT row FROM asked")}
    counts: defaultdict[str, int] = defaultdict(int)
    for row in there:
        label, at = before.get(row, (None, 0.0))
        stays = label == given[row] or at > labelled_s[row]
        counts["new" if label is None else "same" if stays else "changed"] += 1
    store.write(
        "INSERT INTO labels VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET label = excluded.label, "
        "labelled_s = excluded.labelled_s WHERE label != excluded.label "
        "AND min(labels.labelled_s, ?) <= excluded.labelled_s",
        [(row, annotator, given[row], labelled_s[row], now_s) for row in sorted(there)],
    )
    return Written(**counts, not_asked=len(there - asked))


def _raise(faults: Sequence[str], path: Path) -> None:
    if faults:
        more = f"\n  … and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        listing = "\n  ".join(faults[:SHOWN])
        raise DataError(f"{len(faults)} rows of {path} cannot be used; nothing was written:\n  {listing}{more}")
