"""Turns class folders or a CSV file into a `Dataset`: every image is read, checked and put into exactly one split."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from slipway.contract import DataError, Spec, SpecError
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.decision import Task
from slipway.contract.labels import read_label_list
from slipway.contract.spec import Data
from slipway.steps import guard
from slipway.system.files import sha256_bytes
from slipway.system.text import few
from slipway.training.data.entries import Entry, raise_faults
from slipway.training.data.sources import ImageSource, find
from slipway.training.data.splits import assign


def scan(
    data: Data, *, task: Task = "multiclass", labels: Sequence[str] | None = None, empty_classes: bool = False
) -> Dataset:
    """Read the images of `data`; classes are numbered as in `labels`, else as in `data.labels`, else sorted.

    With `empty_classes`, classes may have no image.

    Equal files, and files of one group, share a split, so no image is in two. Hidden files are skipped.

    Raises:
        DataError: an image is missing, would be refused by serving, or is in two classes or two given splits; there are
            fewer than two classes, the classes differ from `labels`, or a class is too small to be in every split.
        SpecError: a label is not allowed, or the data do not fit the task.
    """
    source = find(data, task=task)
    if labels is None and data.labels is not None:
        labels = read_label_list(Path(data.labels))
    if labels is None:
        labels = source.labels
    elif not (set(labels) >= set(source.labels) if empty_classes else set(labels) == set(source.labels)):
        raise DataError(_explain_labels(Path(data.root), labels, source))
    numbers = {label: class_id for class_id, label in enumerate(labels)}
    class_ids = {entry: tuple(sorted(numbers[label] for label in entry.labels)) for entry in source.entries}
    entries = sorted(source.entries, key=class_ids.__getitem__)
    digests = _read(Path(data.root), entries)
    seen = {label for entry in entries for label in entry.labels}
    needed = [label for label in labels if label in seen or not empty_classes]
    splits = assign(entries, digests, labels=needed, data=data)
    return Dataset(
        root=data.root,
        labels=tuple(labels),
        images=tuple(
            LabelledImage(path=entry.path, class_ids=class_ids[entry], sha256=digest, split=split, group=entry.group)
            for entry, digest, split in zip(entries, digests, splits, strict=True)
        ),
    )


def check_top_k(spec: Spec, dataset: Dataset) -> None:
    """Raises SpecError: an image has more labels than an answer can hold."""
    most = max(dataset.images, key=lambda image: len(image.class_ids))
    if spec.task == "multilabel" and len(most.class_ids) > spec.decision.top_k:
        raise SpecError(
            f"decision.top_k: {spec.decision.top_k} labels per answer, but {most.path} has {len(most.class_ids)}; "
            f"write {len(most.class_ids)} or more"
        )


def _explain_labels(root: Path, labels: Sequence[str], source: ImageSource) -> str:
    kind = "row" if source.origin == "CSV" else "folder"
    lines = [
        f"{what}: {few([*map(repr, found)])}"
        for what, found in (
            (f"labels without a {kind}", [label for label in labels if label not in source.labels]),
            (f"{kind}s without a label", [name for name in source.labels if name not in labels]),
        )
        if found
    ]
    kinds = "labels of the CSV file" if source.origin == "CSV" else "class folders"
    remedy = "rename, add or remove some"
    if set(labels) >= set(source.labels):
        remedy += ", or import without images of the others: --allow-empty-classes"
    return f"{root}: the {kinds} do not match the labels; {remedy}:\n  " + "\n  ".join(lines)


def _read(root: Path, entries: Iterable[Entry]) -> list[str]:
    """Return the sha256 of each file; raises DataError where the guard refuses one."""
    digests, faults = [], []
    for entry in tqdm(entries, desc="reading images", unit="image", leave=False, disable=None):
        try:
            encoded = (root / entry.path).read_bytes()
        except OSError as error:
            faults.append(f"{root / entry.path}: cannot be read: {error.strerror}")
            continue
        status = guard.inspect(encoded)
        if status != guard.OK:
            faults.append(f"{root / entry.path}: {guard.STATUS_NAMES[status]}")
        digests.append(sha256_bytes(encoded))
    raise_faults(faults, what="files cannot be used; repair or remove them")
    return digests
