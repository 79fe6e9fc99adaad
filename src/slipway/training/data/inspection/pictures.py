"""Makes the page's pictures: a seeded sample of each class, and every duplicate shown."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from slipway.pages.thumbnails import Thumbnail, encode
from slipway.training.data.entries import Entry
from slipway.training.data.inspection.facts import Facts, views
from slipway.training.data.inspection.viewer import View, Viewer

SHEET, LEAST_SHEET = 24, 4
"""Most pictures of a class, and the fewest where there are many classes."""
PICTURES = 1200
"""Approximate number of pictures in all contact sheets together, three kilobytes each."""


def contact_sheets(entries: Sequence[Entry], facts: Facts, labels: Sequence[str], *, seed: int) -> dict[str, list[str]]:
    """Map each label to the paths of its sheet; with many classes, only the smallest have one."""
    members: dict[str, list[str]] = {label: [] for label in labels}
    for entry, readable in zip(entries, facts.readable_n.tolist(), strict=True):
        if readable:
            for label in entry.labels:
                members[label].append(entry.path)
    size = min(SHEET, max(LEAST_SHEET, PICTURES // len(labels)))
    shown = sorted(labels, key=lambda label: len(members[label]))[: PICTURES // size]
    rng = np.random.default_rng(seed)
    drawn = {label: rng.permutation(len(members[label]))[:size] for label in labels}
    return {label: [members[label][i] for i in sorted(drawn[label])] for label in labels if label in set(shown)}


def thumbnails(paths: Iterable[str], *, root: Path, viewer: Viewer) -> dict[str, Thumbnail]:
    """Map each path to its picture, or to the reason why serving would refuse the image."""
    wanted = [Entry(path, ()) for path in sorted(set(paths))]
    seen = zip(wanted, views(root, wanted, viewer, what="making the page"), strict=True)
    return {entry.path: thumbnail_of(view) for entry, (_, view) in seen}


def thumbnail_of(view: View | str) -> Thumbnail:
    return encode(view.pixels_hwc) if isinstance(view, View) else Thumbnail(flaw=view)
