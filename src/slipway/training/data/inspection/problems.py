"""What of an inspection is wrong, and what to do about it."""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from slipway.contract import Spec
from slipway.contract.dataset import Split
from slipway.system.text import to_cell
from slipway.training.data.inspection.facts import Facts
from slipway.training.data.inspection.result import ClassCount, Duplicates, Inspection, Problem
from slipway.training.data.splits import equal

SHOWN, LONG_LABEL = 5, 40
IMBALANCE = 10.0
FEW = 10
"""Images of a class in a split, under which its figures are chance."""
HELD_OUT = 0.15
"""The least share of validation and test together: the rule of thumb is 15 to 20 %."""
SHARE_POINTS = 5.0
"""A split that groups or rare labels pulled further from its share than this."""
SMALL_SHARE, LONG_SHARE, LONG = 0.25, 0.05, 2.0


def problems(found: Inspection, facts: Facts, spec: Spec, *, fault: str | None) -> tuple[Problem, ...]:
    """Errors first. `fault` is what training would say of classes, groups and splits."""
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
            "What was trained on proves nothing when it is tested on: keep each in one split.",
            _names(across),
        )
    conflicting = [group for group in found.exact_duplicates if group.conflicting]
    if conflicting:
        yield _problem(
            "error",
            f"{len(conflicting):,} images are there twice, with different labels",
            "Look at them below, and keep the copy with the right label.",
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
            f"{sum(len(group.images) - 1 for group in kept):,} files are copies of another one, byte for byte",
            "They share a split and count more than once; remove the copies.",
            _names(kept),
        )
    near = found.near_duplicates
    across = [group for group in near if found.splits != "none" and group.across_splits]
    if across:
        yield _problem(
            "warning",
            f"{len(across):,} groups of near duplicates reach over splits",
            "Figures on validation and test come out too good: give such images one group (data.group_column), or "
            "remove all but one.",
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
            "Judge by macro-F1 and the worst class's recall, not by accuracy; weigh or sample the rare classes.",
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
            "One image more or less moves its recall by over ten points: add images, or hold out a larger share.",
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
        f"{split}: {shares[split]:.1%} in place of {share:.1%}"
        for split, share in wanted.items()
        if found.splits == "drawn" and abs(shares[split] - share) * 100 > SHARE_POINTS
    ]
    if off:
        yield _problem(
            "warning",
            "the splits have other shares than was asked for",
            "Groups are too large or labels too rare to be parted better; give the splits yourself if you know better.",
            off,
        )


def _size_warnings(facts: Facts, spec: Spec) -> Iterator[Problem]:
    size_n2, preprocess = facts.size_n2[facts.readable_n], spec.preprocess
    if not len(size_n2):
        return
    small = float((size_n2 < [preprocess.input_width, preprocess.input_height]).any(axis=1).mean())
    if small > SMALL_SHARE:
        yield _problem(
            "warning",
            f"{small:.0%} of the images are smaller than the network's input of {preprocess.input_width} by "
            f"{preprocess.input_height}",
            "They are blown up, which adds nothing but time: a smaller input may do as well.",
        )
    ratio_n = size_n2.max(axis=1) / size_n2.min(axis=1)
    long = float(np.mean(ratio_n > LONG))
    if preprocess.resize == "crop" and long > LONG_SHARE:
        yield _problem(
            "warning",
            f"{long:.0%} of the images have a side over {LONG:g} times the other",
            "preprocess.resize: crop cuts more than half of them away; write pad if what matters is not in the middle.",
        )


def _label_warnings(labels: Sequence[str]) -> Iterator[Problem]:
    alike = equal([unicodedata.normalize("NFKC", label).casefold() for label in labels])
    if alike:
        yield _problem(
            "warning",
            "labels differ only by case or by how a letter is encoded",
            "They are classes of their own; rename them if they are meant to be one.",
            [", ".join(repr(labels[index]) for index in same) for same in alike],
        )
    long = [repr(label) for label in labels if len(label) > LONG_LABEL]
    if long:
        yield _problem(
            "warning",
            f"{len(long):,} labels are longer than {LONG_LABEL} letters",
            "Answers carry every letter with each image: a short label is enough.",
            long,
        )
    formulas = [repr(label) for label in labels if to_cell(label) != label]
    if formulas:
        yield _problem(
            "warning",
            f"{len(formulas):,} labels are formulas to a spreadsheet",
            "They have an apostrophe before them in CSV files that are made to be opened there; rename them if others "
            "read these files.",
            formulas,
        )


def _names(groups: Sequence[Duplicates]) -> list[str]:
    """One line a group: its first images with their splits."""
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
