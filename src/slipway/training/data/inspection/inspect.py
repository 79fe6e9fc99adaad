"""Inspects the data of a spec, before training, into a folder."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from slipway.contract import DataError, Spec
from slipway.contract.dataset import SPLITS, Split
from slipway.system.files import complete_folder
from slipway.system.targets import MARKERS
from slipway.training.data.entries import Entry
from slipway.training.data.inspection.facts import ImageFacts, Viewer, look
from slipway.training.data.inspection.near_duplicates import NEAR_BITS
from slipway.training.data.inspection.page import render
from slipway.training.data.inspection.problems import problems
from slipway.training.data.inspection.result import ClassCount, Duplicates, Inspection, Listed, Spread, Unreadable
from slipway.training.data.sources import ImageSource, find, read_from
from slipway.training.data.splits import assign

RESULT, PAGE = MARKERS["inspection"], "inspection.html"


def inspect(spec: Spec, out: Path) -> Inspection:
    """Look at every image of `spec.data` and write RESULT and PAGE to the folder `out`, whole or not at all.

    Faults of images, classes and splits are problems in the result, not errors.

    Raises:
        DataError: the images cannot be listed; see `find`.
        SpecError: a label is not allowed, the data do not fit the task, or `out` holds something else.
    """
    source, root = find(spec.data, task=spec.task), Path(spec.data.root)
    with complete_folder(out, kind="inspection", inputs=read_from(spec.data, out=out)) as staging:
        viewer = Viewer(exif_orientation=spec.preprocess.exif_orientation)
        facts = look(root, source.entries, viewer)
        splits, fault = _split(source, facts, spec)
        found = _describe(source, facts, splits, spec)
        result = found.model_copy(update={"problems": problems(found, facts, spec, fault=fault)})
        result.write(staging / RESULT)
        page = render(result, source, facts, root=root, viewer=viewer, seed=spec.data.seed)
        (staging / PAGE).write_text(page, encoding="utf-8")
    return result


def _split(source: ImageSource, facts: ImageFacts, spec: Spec) -> tuple[list[Split | None], str | None]:
    """Return the split of each entry, None where there is none, and any fault but duplicates that stops training."""
    entries, digests = source.entries, list(facts.digests)
    for same in facts.exact():
        listed = [entries[index] for index in same]
        if len({(entry.labels, entry.split) for entry in listed}) > 1:  # reported as a problem of its own
            for index in same:
                digests[index] = ""
    # A file that could not be opened equals no other file.
    digests = [digest or f"unlike others {index}" for index, digest in enumerate(digests)]
    try:
        return list(assign(entries, digests, labels=source.labels, data=spec.data)), None
    except DataError as error:
        return [entry.split for entry in entries], str(error)


def _describe(source: ImageSource, facts: ImageFacts, splits: Sequence[Split | None], spec: Spec) -> Inspection:
    """Return the inspection without its problems."""
    entries = source.entries
    classes = _count(entries, splits, source.labels)
    sizes = [count.images for count in classes]
    width_n, height_n = facts.size_n2[facts.readable_n].T
    return Inspection(
        name=spec.name,
        task=spec.task,
        root=spec.data.root,
        origin=source.origin,
        splits=_origin_of(entries, splits),
        images=len(entries),
        images_by_split={} if None in splits else {split: splits.count(split) for split in SPLITS},
        without_label=sum(not entry.labels for entry in entries),
        classes=classes,
        imbalance_ratio=round(max(sizes) / min(sizes), 2) if min(sizes) else None,
        width_px=_spread(width_n),
        height_px=_spread(height_n),
        aspect_ratio=_spread(width_n / height_n),
        unreadable=tuple(
            Unreadable(path=entry.path, reason=flaw) for entry, flaw in zip(entries, facts.flaws, strict=True) if flaw
        ),
        exact_duplicates=_groups([(same, 0) for same in facts.exact()], entries, splits),
        near_duplicates=_groups(facts.near(), entries, splits),
        near_duplicate_bits=NEAR_BITS,
        too_plain_to_compare=int(facts.plain_n().sum()),
        problems=(),
    )


def _origin_of(entries: Sequence[Entry], splits: Sequence[Split | None]) -> Literal["given", "drawn", "none"]:
    if None in splits:
        return "none"
    return "given" if any(entry.split for entry in entries) else "drawn"


def _count(entries: Sequence[Entry], splits: Sequence[Split | None], labels: Sequence[str]) -> tuple[ClassCount, ...]:
    images = Counter(label for entry in entries for label in entry.labels)
    placed = Counter((label, split) for entry, split in zip(entries, splits, strict=True) for label in entry.labels)
    shown = () if None in splits else SPLITS
    return tuple(
        ClassCount(label=label, images=images[label], by_split={split: placed[label, split] for split in shown})
        for label in labels
    )


def _spread(values_n: npt.NDArray[np.float64] | npt.NDArray[np.int64]) -> Spread | None:
    if not len(values_n):
        return None
    least, median, greatest = (round(float(value), 3) for value in np.quantile(values_n, (0, 0.5, 1)))
    return Spread(least=least, median=median, greatest=greatest)


def _groups(
    groups: Sequence[tuple[list[int], int]], entries: Sequence[Entry], splits: Sequence[Split | None]
) -> tuple[Duplicates, ...]:
    """Sort the groups, the worst first: across splits, then with different labels, then the nearest."""
    found = [
        Duplicates(
            images=tuple(Listed(path=entries[i].path, labels=entries[i].labels, split=splits[i]) for i in indices),
            bits=bits,
        )
        for indices, bits in groups
    ]
    return tuple(sorted(found, key=lambda g: (not g.across_splits, not g.conflicting, g.bits, g.images[0].path)))
