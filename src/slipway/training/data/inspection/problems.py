"""Lists the problems of an inspection, each with its remedy."""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from slipway.contract import Spec
from slipway.contract.dataset import Split
from slipway.system.text import to_cell
from slipway.training.data.inspection.facts import ImageFacts
from slipway.training.data.inspection.result import ClassCount, Duplicates, Inspection, Problem
from slipway.training.data.splits import equal

SHOWN, LONG_LABEL = 5, 40
IMBALANCE = 10.0
FEW = 10
"""Fewest images of a class in a held-out split; with fewer, its figures are chance."""
HELD_OUT = 0.15
"""Smallest share of validation and test together; the rule of thumb is 15 to 20 %."""
SHARE_POINTS = 5.0
"""Largest deviation of a split from its share; groups or rare labels can cause more."""
SMALL_SHARE, LONG_SHARE, LONG = 0.25, 0.05, 2.0


def problems(found: Inspection, facts: ImageFacts, spec: Spec, *, fault: str | None) -> tuple[Problem, ...]:
    """Return the problems, errors first. `fault` is training's complaint about classes, groups and splits, if any."""
    return (
        *_errors(found, fault),
        *_duplicate_warnings(found),
        *_balance_warnings(found, spec),
        *_size_warnings(facts, spec),
        *_label_warnings([count.label for count in found.classes]),
    )


def _errors(found: Inspection, fault: str | None) -> Iterator[Problem]:
    if found.unreadable:
        yield _problem(
            "error",
            f"{len(found.unreadable):,} of {found.images:,} files cannot be read",
            "Serving would refuse them too: repair or remove them.",
            [f"{item.path}: {item.reason}" for item in found.unreadable],
        )
    across = [group for group in found.exact_duplicates if found.splits == "given" and group.across_splits]
    if across:
        yield _problem(
            "error",
            f"{len(across):,} images are in more than one of the given splits, byte for byte",
            "An image that was trained on proves nothing in a test: keep each image in one split.",
            _names(across),
        )
    conflicting = [group for group in found.exact_duplicates if group.conflicting]
    if conflicting:
        yield _problem(
            "error",
            f"{len(conflicting):,} images occur twice, with different labels",
            "Look at them below and keep the copy with the right label.",
            _names(conflicting),
        )
    if fault is not None:
        head, *details = fault.split("\n  ")
        yield _problem("error", "Training would refuse these images", f"{head.removesuffix(':')}.", details)


def _duplicate_warnings(found: Inspection) -> Iterator[Problem]:
    kept = [group for group in found.exact_duplicates if not group.conflicting and not group.across_splits]
    if kept:
        yield _problem(
            "warning",
            f"{sum(len(group.images) - 1 for group in kept):,} files are copies of another file, byte for byte",
            "They share a split and count more than once; remove the copies.",
            _names(kept),
        )
    near = found.near_duplicates
    across = [group for group in near if found.splits != "none" and group.across_splits]
    if across:
        yield _problem(
            "warning",
            f"{len(across):,} groups of near duplicates span several splits",
            "They make validation and test figures too good: give such images one group (data.group_column), or remove "
            "all but one.",
            _names(across),
        )
    conflicting = [group for group in near if group.conflicting]
    if conflicting:
        yield _problem(
            "warning",
            f"{len(conflicting):,} groups of near duplicates have different labels",
            "Either a label is wrong, or the classes cannot be told apart in these images.",
            _names(conflicting),
        )


def _balance_warnings(found: Inspection, spec: Spec) -> Iterator[Problem]:
    classes = found.classes
    if found.imbalance_ratio is not None and found.imbalance_ratio >= IMBALANCE:
        least, most = min(classes, key=_images), max(classes, key=_images)
        yield _problem(
            "warning",
            f"the largest class has {found.imbalance_ratio:g} times the images of the smallest "
            f"({most.label}: {most.images:,}, {least.label}: {least.images:,})",
            "Judge by macro-F1 and the worst class's recall, not by accuracy; weight or oversample the rare classes.",
        )
    few = [
        f"{count.label}: {held} in {split}"
        for count in classes
        for split, held in count.by_split.items()
        if split != "train" and 0 < held < FEW
    ]
    if few:
        yield _problem(
            "warning",
            f"{len(few):,} times a class has fewer than {FEW} images in a held-out split",
            "A single image moves its recall by over ten points: add images, or hold out a larger share.",
            few,
        )
    yield from _share_warnings(found, spec)


def _share_warnings(found: Inspection, spec: Spec) -> Iterator[Problem]:
    if not found.images_by_split or not found.images:
        return
    shares = {split: count / found.images for split, count in found.images_by_split.items()}
    held_out = shares["validation"] + shares["test"]
    if held_out < HELD_OUT:
        yield _problem(
            "warning",
            f"only {held_out:.1%} of the images are held out",
            f"Hold out at least {HELD_OUT:.0%}, or the figures say little.",
        )
    wanted: dict[Split, float] = {"validation": spec.data.validation_fraction, "test": spec.data.test_fraction}
    off = [
        f"{split}: {shares[split]:.1%} instead of {share:.1%}"
        for split, share in wanted.items()
        if found.splits == "drawn" and abs(shares[split] - share) * 100 > SHARE_POINTS
    ]
    if off:
        yield _problem(
            "warning",
            "the splits do not have the shares asked for",
            "Groups are too large or labels too rare for a better draw; give better splits yourself if you know them.",
            off,
        )


def _size_warnings(facts: ImageFacts, spec: Spec) -> Iterator[Problem]:
    size_n2, preprocess = facts.size_n2[facts.readable_n], spec.preprocess
    if not len(size_n2):
        return
    small = float((size_n2 < [preprocess.input_width, preprocess.input_height]).any(axis=1).mean())
    if small > SMALL_SHARE:
        yield _problem(
            "warning",
            f"{small:.0%} of the images are smaller than the network's input of {preprocess.input_width} by "
            f"{preprocess.input_height}",
            "Enlarging them only costs time: a smaller input may do as well.",
        )
    ratio_n = size_n2.max(axis=1) / size_n2.min(axis=1)
    long = float(np.mean(ratio_n > LONG))
    if preprocess.resize == "crop" and long > LONG_SHARE:
        yield _problem(
            "warning",
            f"{long:.0%} of the images have a side over {LONG:g} times the other",
            "preprocess.resize: crop cuts off more than half of them; write pad if the subject is not in the middle.",
        )


def _label_warnings(labels: Sequence[str]) -> Iterator[Problem]:
    alike = equal([unicodedata.normalize("NFKC", label).casefold() for label in labels])
    if alike:
        yield _problem(
            "warning",
            "some labels differ only in case or Unicode encoding",
            "They count as separate classes; rename them if they are meant to be one.",
            [", ".join(repr(labels[index]) for index in same) for same in alike],
        )
    long = [repr(label) for label in labels if len(label) > LONG_LABEL]
    if long:
        yield _problem(
            "warning",
            f"{len(long):,} labels are longer than {LONG_LABEL} characters",
            "Every answer carries the whole label: shorten them.",
            long,
        )
    formulas = [repr(label) for label in labels if to_cell(label) != label]
    if formulas:
        yield _problem(
            "warning",
            f"{len(formulas):,} labels are formulas to a spreadsheet",
            "CSV files made for spreadsheets put an apostrophe before them; rename them if other programs read these "
            "files.",
            formulas,
        )


def _names(groups: Sequence[Duplicates]) -> list[str]:
    """Describe each group in one line: its first images with their splits."""
    lines = []
    for group in groups:
        names = [image.path + (f" ({image.split})" if image.split else "") for image in group.images[:SHOWN]]
        more = len(group.images) - len(names)
        lines.append(" = ".join(names) + (f" and {more} more" if more else ""))
    return lines


def _images(count: ClassCount) -> int:
    return count.images


def _problem(severity: str, what: str, remedy: str, examples: Sequence[str] = ()) -> Problem:
    more = (f"and {len(examples) - SHOWN:,} more",) if len(examples) > SHOWN else ()
    values = {"severity": severity, "what": what, "remedy": remedy, "examples": (*examples[:SHOWN], *more)}
    return Problem.parse(values, source="inspection")
