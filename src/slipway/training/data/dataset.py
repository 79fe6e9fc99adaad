"""Turns class folders or a CSV file into a `Dataset`: every image is read, checked and put into exactly one split. Then
the data set is checked against the spec, before the first epoch."""

import math
import os
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from slipway.contract import DataError, Preprocess, Spec, SpecError
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.decision import Task
from slipway.contract.labels import read_label_list
from slipway.contract.spec import Data, UnknownPolicy
from slipway.steps import guard
from slipway.steps.preprocess import Preprocessor
from slipway.system.files import sha256_bytes
from slipway.system.text import few
from slipway.training.data.sources import Entry, ImageSource, find, raise_faults
from slipway.training.data.splits import assign

BATCH = 32
DECODE_THREADS = min(2, max((os.cpu_count() or 1) - 1, 1))
"""Threads that decode. nvImageCodec uses one fewer than there are cores, and warns of more."""
JPEG = b"\xff\xd8"


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


def check_coverage(policy: UnknownPolicy | None, *, images: int) -> None:
    """Raises DataError: there are too few validation images for any threshold to promise this coverage."""
    if policy is not None and policy.coverage is not None and (1 - policy.coverage) * (images + 1) + 1e-9 < 1:
        needed = math.ceil(1 / (1 - policy.coverage) - 1 - 1e-9)
        raise DataError(
            f"decision.unknown.coverage: {policy.coverage} needs at least {needed} validation images, but there are "
            f"{images}; ask for less, or raise data.validation_fraction"
        )


def check_decodable(dataset: Dataset, preprocess: Preprocess) -> None:
    """Decode every image except JPEGs once, as serving does.

    The guard checks a JPEG's structure so closely that none of 5,838 damaged ones, and none with fields changed on
    purpose, passed it and then failed in the decoder (benchmarks/results/guard.json), so JPEGs are not decoded here.

    Raises:
        DataError: the decoder refuses images; the message names them.
    """
    paths = [Path(dataset.root) / image.path for image in dataset.images]
    suspected = [path for path in paths if _start(path) != JPEG]
    if not suspected:
        return
    config = preprocess.model_dump() | {"input_height": 32, "input_width": 32}  # the size does not matter here
    preprocessor = Preprocessor(config, max_batch_size=BATCH, threads=DECODE_THREADS)
    refused = []
    with tqdm(total=len(suspected), desc="decoding images", unit="image", leave=False, disable=None) as progress:
        rest = iter(suspected)
        while batch := list(islice(rest, BATCH)):
            _, status_n = preprocessor.run([path.read_bytes() for path in batch])
            refused += [path for path, status in zip(batch, status_n, strict=True) if status != guard.OK]
            progress.update(len(batch))
    raise_faults([str(path) for path in refused], what="images that the decoder refuses; repair or remove them")


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


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(JPEG))
