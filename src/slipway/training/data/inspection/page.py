"""Renders an `Inspection` as one HTML page with its pictures: problems first, then classes and contact sheets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slipway.contract.dataset import Split
from slipway.pages import environment
from slipway.pages.thumbnails import Thumbnail, encode
from slipway.training.data.entries import Entry
from slipway.training.data.inspection.facts import ImageFacts, View, Viewer, views
from slipway.training.data.inspection.result import ClassCount, Duplicates, Inspection
from slipway.training.data.sources import ImageSource

ROWS, GROUPS, MEMBERS, FILES = 200, 30, 6, 50
SIDES_PX = (1, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192)
COLOURS: dict[Split, int] = {"train": 0, "validation": 1, "test": 2}
RATIOS = (0.0, 0.25, 0.33, 0.5, 0.67, 0.75, 0.9, 1.1, 1.33, 1.5, 2.0, 3.0, 4.0)
SHEET, LEAST_SHEET = 24, 4
"""Most pictures of a class, and the fewest where there are many classes."""
PICTURES = 1200
"""Approximate number of pictures in all contact sheets together, three kilobytes each."""


@dataclass(frozen=True)
class Gallery:
    """The worst of `total` groups of duplicates."""

    title: str
    explained: str
    groups: tuple[Duplicates, ...]
    total: int


def render(found: Inspection, source: ImageSource, facts: ImageFacts, *, root: Path, viewer: Viewer, seed: int) -> str:
    """Render the page. Labels and file names are untrusted: Jinja escapes every one of them."""
    galleries = [
        _gallery("Exact duplicates", "Equal files, byte for byte.", found.exact_duplicates),
        _gallery(
            "Near duplicates",
            f"Different files whose difference hashes differ in at most {found.near_duplicate_bits} of 512 bits: one "
            "picture in another size, quality, format or tone, or pictures that are hard to tell apart.",
            found.near_duplicates,
        ),
    ]
    sheets = contact_sheets(source.entries, facts, source.labels, seed=seed)
    paths = [path for sheet in sheets.values() for path in sheet]
    paths += [image.path for gallery in galleries for group in gallery.groups for image in group.images[:MEMBERS]]
    classes = sorted(found.classes, key=lambda c: c.images)[:ROWS] if len(found.classes) > ROWS else found.classes
    most = max((count.images for count in found.classes), default=0) or 1
    size_n2 = facts.size_n2[facts.readable_n]
    return (
        environment("slipway.training.data.inspection")
        .get_template("inspection.html")
        .render(
            title=f"{found.name}: the data",
            found=found,
            classes=[(count, _bar(count, most=most)) for count in classes],
            colours=COLOURS,
            sides=_bins(size_n2.min(axis=1, initial=1 << 30), SIDES_PX, "px"),
            ratios=_bins(size_n2[:, 0] / size_n2[:, 1], RATIOS, ""),
            galleries=galleries,
            members=MEMBERS,
            files=FILES,
            sheets=sheets,
            pictures=thumbnails(paths, root=root, viewer=viewer),
        )
    )


def _gallery(title: str, explained: str, groups: Sequence[Duplicates]) -> Gallery:
    return Gallery(title, explained, tuple(groups[:GROUPS]), len(groups))


def _bar(count: ClassCount, *, most: int) -> list[tuple[str, float]]:
    """Return each part's style-sheet class and its percentage of the largest class."""
    parts = {f"s{COLOURS[split]}": images for split, images in count.by_split.items()} or {"all": count.images}
    return [(name, 100 * images / most) for name, images in parts.items()]


def _bins(
    values_n: npt.NDArray[np.float64] | npt.NDArray[np.int64], edges: Sequence[float], unit: str
) -> list[tuple[str, int]]:
    """Return name and count of each bin from the first to the last that is not empty."""
    counts = np.histogram(values_n, [*edges, np.inf])[0].tolist()
    names = [f"{low:g} to {high:g} {unit}".strip() for low, high in pairwise(edges)]
    names.append(f"{edges[-1]:g} {unit}".strip() + " and more")
    filled = np.flatnonzero(counts)
    return list(zip(names, counts, strict=True))[filled[0] : filled[-1] + 1] if len(filled) else []


def contact_sheets(
    entries: Sequence[Entry], facts: ImageFacts, labels: Sequence[str], *, seed: int
) -> dict[str, list[str]]:
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
