"""Decides which new images a data set takes in, and into which split: nothing crosses the splits that are there."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.contract.dataset import SPLITS, Dataset, LabelledImage, NewImage, Split
from slipway.training.data.entries import Entry
from slipway.training.data.inspection.facts import ImageFacts, Viewer, look
from slipway.training.data.inspection.near_duplicates import near_between

SHARES: Mapping[Split, float] = {"test": 0.15, "validation": 0.15}
"""Share of the new images that are held out, by split."""


@dataclass(frozen=True)
class Joined:
    """The result of joining: the split of each new image that was taken in, and the reasons for the others."""

    images: tuple[tuple[NewImage, Split], ...]
    already: int
    """Images that the data set has with the same label."""
    contradictions: tuple[str, ...]
    """A sentence on each image whose label contradicts the data set, or another new image."""
    left_out: tuple[str, ...]
    """A sentence on each other image that was not taken in."""


def split_by_hash(sha256: str) -> Split:
    """The split of a new image, by its SHA-256 as a number from 0 to 1: test under 0.15, validation under 0.3."""
    place, least = int(sha256[:15], 16) / 16**15, 0.0
    for split, share in SHARES.items():
        least += share
        if place < least:
            return split
    return "train"


def join(old: Dataset, new: Sequence[NewImage], *, viewer: Viewer, least: int) -> Joined:
    """Decide on each new image.

    An image that the old data have is not taken in again. Near duplicates share a split: that of the old image, else
    that of the smallest SHA-256 among them.

    Args:
        least: fewest images of a new class; with fewer, or with none in a split, its images wait.
    """
    contradictions: list[str] = []
    left_out: list[str] = []
    by_hash = {image.sha256: image for image in old.images}
    fresh = [image for image in new if image.sha256 not in by_hash]
    already = 0
    for image in new:
        if image.sha256 in by_hash:
            before = by_hash[image.sha256]
            label = old.labels[before.class_id]
            if label == image.label:
                already += 1
            else:
                contradictions.append(
                    f"{before.path} is {label!r} in the data set, and {image.label!r} by its new label"
                )
    facts = look(Path(), [Entry(image.file, (image.label,)) for image in fresh], viewer)
    near_old = _near_old(old, facts, viewer) if fresh else {}
    taken: list[tuple[NewImage, Split]] = []
    for group in _groups(facts):
        members = [fresh[index] for index in group]
        neighbours = [image for index in group for image in near_old.get(index, ())]
        said = _contradiction(members, neighbours, old)
        flaws = [f"{named(fresh[i])}: serving would refuse it: {facts.flaws[i]}" for i in group if facts.flaws[i]]
        splits = {image.split for image in neighbours}
        if said:
            contradictions.append(said)
        elif flaws:
            left_out += flaws
        elif len(splits) > 1:
            paths = " and ".join(f"{image.path} ({image.split})" for image in neighbours[:4])
            left_out.append(
                f"{', '.join(map(named, members))}: near duplicates of {paths}, which are in several splits"
            )
        else:
            split = splits.pop() if splits else split_by_hash(min(image.sha256 for image in members))
            taken += [(image, split) for image in members]
    ready, waiting = _complete(taken, old, least=least)
    return Joined(tuple(ready), already, tuple(contradictions), (*left_out, *waiting))


def named(image: NewImage) -> str:
    return f"image {image.sha256[:12]} ({image.label!r})"


def _near_old(old: Dataset, facts: ImageFacts, viewer: Viewer) -> dict[int, list[LabelledImage]]:
    """The old images that each new one is a near duplicate of."""
    labels = old.labels
    entries = [Entry(image.path, tuple(labels[id_] for id_ in image.class_ids)) for image in old.images]
    there = look(Path(old.root), entries, viewer)
    found: defaultdict[int, list[LabelledImage]] = defaultdict(list)
    for index, other in near_between(facts.bits_nb, there.bits_nb):
        found[index].append(old.images[other])
    return dict(found)


def _groups(facts: ImageFacts) -> list[list[int]]:
    """Near duplicates among the new images, and each other image alone."""
    groups = [group for group, _ in facts.near()]
    together = {index for group in groups for index in group}
    return [*groups, *([index] for index in range(len(facts.digests)) if index not in together)]


def _contradiction(members: Sequence[NewImage], neighbours: Sequence[LabelledImage], old: Dataset) -> str:
    """Return a sentence on the contradiction in a group of near duplicates; empty if there is none."""
    labels = {image.label for image in members}
    others = [image for image in neighbours if {old.labels[image.class_id]} != labels]
    if others:
        first = others[0]
        label = old.labels[first.class_id]
        return f"{', '.join(map(named, members))}: a near duplicate of {first.path}, which is {label!r}"
    if len(labels) > 1:
        return f"{' and '.join(map(named, members))} are near duplicates of each other"
    return ""


def _complete(
    taken: Sequence[tuple[NewImage, Split]], old: Dataset, *, least: int
) -> tuple[list[tuple[NewImage, Split]], list[str]]:
    """The images of classes that can be trained, and a sentence on each class that waits."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for image, split in taken:
        if image.label not in old.labels:
            counts[image.label][split] += 1
    waiting: dict[str, str] = {}
    for label, count in sorted(counts.items()):
        missing = [split for split in SPLITS if not count[split]]
        if count.total() < least:
            waiting[label] = f"new class {label!r}: {count.total()} images wait until it has {least}"
        elif missing:
            waiting[label] = (
                f"new class {label!r}: {count.total()} images wait, since by their hashes none is in "
                f"{' or in '.join(missing)}; label more"
            )
    ready = [one for one in taken if one[0].label not in waiting]
    return sorted(ready, key=lambda one: one[0].sha256), list(waiting.values())
