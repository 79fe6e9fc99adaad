"""Measures the reliability of labels: ties, contradictions, and how often each annotator is right."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from slipway.errors import DataError, requiring
from slipway.operations.journal.store import Store
from slipway.operations.labels.truth import KNOWN, decided, labels_of

LEAST_TRUTH = 2
"""Other annotators of a row who must agree, so that their label counts as its truth."""
SUSPECTS = 10


@dataclass(frozen=True)
class Annotator:
    name: str
    labels: int
    right: int
    """Labels that agree with the truth of their row."""
    known: int
    """Labels of rows whose truth is known: by a known answer, or by at least two other annotators who all agree."""
    agreed: int
    """Pairs of this annotator's label and another's of the same row that agree."""
    pairs: int
    quality: float | None = None
    """cleanlab's estimate of the share of right labels; None where it was not asked for."""


@dataclass(frozen=True)
class LabelStatus:
    considered: int
    chosen: int
    asked: int
    labelled: int
    """Asked rows without a label."""
    waiting: int
    """Asked rows that nobody has labelled."""
    undecided: tuple[str, ...]
    """A sentence on each row on which annotators are divided."""
    contradicted: tuple[str, ...]
    """A sentence on each row on which an annotator contradicts its known answer."""
    annotators: tuple[Annotator, ...]
    suspects: tuple[str, ...] = ()
    """A sentence on each of the rows whose label cleanlab trusts least."""

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        lines = [
            f"{self.considered:,} rows considered, {self.chosen:,} chosen, {self.asked:,} asked: "
            f"{self.labelled:,} labelled, {self.waiting:,} without a label, {len(self.undecided):,} undecided"
        ]
        for one in self.annotators:
            known = f"{one.right} of {one.known} right where the truth is known" if one.known else "no known answers"
            pairs = f", agrees with others in {one.agreed} of {one.pairs}" if one.pairs else ""
            quality = "" if one.quality is None else f", quality by cleanlab {one.quality:.2f}"
            lines.append(f"  {one.name}: {one.labels} labels; {known}{pairs}{quality}")
        lines += [f"  undecided: {said}" for said in self.undecided]
        lines += [f"  contradiction: {said}" for said in self.contradicted]
        return [*lines, *(f"  suspect: {said}" for said in self.suspects)]


def status_of(store: Store, classifier: str, *, labels: Sequence[str], crowd: bool = False) -> LabelStatus:
    """The state of a classifier's labels.

    Args:
        labels: the bundle's, by class id.
        crowd: ask cleanlab's CROWDLAB too.

    Raises:
        MissingDependencyError: cleanlab is asked for, and not installed.
        DataError: cleanlab cannot tell anything from so few labels.
    """
    said = labels_of(store, classifier)
    truth = {row: label for row, by in said.items() if (label := decided(by)) is not None}
    asked = {row for (row,) in store.query(_OF.format("asked.row", "asked"), (classifier,))}
    ((considered, chosen),) = store.query(
        _OF.format("count(*), coalesce(sum(considered.chosen), 0)", "considered"), (classifier,)
    )
    qualities, suspects = _crowd(store, classifier, said, labels) if crowd else ({}, ())
    return LabelStatus(
        considered=considered,
        chosen=chosen,
        asked=len(asked),
        labelled=len(asked & truth.keys()),
        waiting=len(asked - said.keys()),
        undecided=tuple(f"row {row}: {_votes(by)}" for row, by in said.items() if row not in truth),
        contradicted=tuple(
            f"row {row} is {by[KNOWN]!r}: {_votes({who: label for who, label in by.items() if label != by[KNOWN]})}"
            for row, by in said.items()
            if KNOWN in by and set(by.values()) != {by[KNOWN]}
        ),
        annotators=_annotators(said, qualities),
        suspects=suspects,
    )


_OF = "SELECT {0} FROM {1} JOIN rows ON rows.id = {1}.row WHERE rows.classifier = ?"


def _votes(by: Mapping[str, str]) -> str:
    return ", ".join(f"{label!r} ({who})" for who, label in sorted(by.items()))


def _annotators(said: Mapping[int, Mapping[str, str]], qualities: Mapping[str, float]) -> tuple[Annotator, ...]:
    counts: dict[str, Counter[str]] = {}
    for by in said.values():
        for who, label in by.items():
            if who == KNOWN:
                continue
            count = counts.setdefault(who, Counter())
            others = [other for name, other in by.items() if name not in (who, KNOWN)]
            truth = by.get(KNOWN) or (others[0] if len(others) >= LEAST_TRUTH and len(set(others)) == 1 else None)
            count.update(labels=1, known=int(truth is not None), right=int(truth == label), pairs=len(others))
            count["agreed"] += others.count(label)
    return tuple(
        Annotator(
            who, count["labels"], count["right"], count["known"], count["agreed"], count["pairs"], qualities.get(who)
        )
        for who, count in sorted(counts.items())
    )


def _crowd(
    store: Store, classifier: str, said: Mapping[int, Mapping[str, str]], labels: Sequence[str]
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Each annotator's quality, and the labels that are trusted least, by CROWDLAB on labels that the bundle knows.

    Source: Goh, Tkachenko and Mueller, "CROWDLAB", 2022: labels are weighed with the network's own probabilities.
    """
    with requiring("cleanlab", extra="train"):
        from cleanlab.multiannotator import get_label_quality_multiannotator
    numbers = {label: class_id for class_id, label in enumerate(labels)}
    known = {row: {who: numbers[one] for who, one in by.items() if one in numbers} for row, by in said.items()}
    chances: dict[int, Any] = {}
    for row, blob in store.query(
        "SELECT id, probability FROM rows WHERE classifier = ? AND probability IS NOT NULL AND id IN "
        "(SELECT row FROM labels)",
        (classifier,),
    ):
        if known.get(row) and len(blob) == 4 * len(labels):
            chances[row] = np.frombuffer(blob, "<f4").astype(np.float64)
    names = sorted({who for row in chances for who in known[row]})
    several = sum(len(known[row]) > 1 for row in chances)
    if len(names) < 2 or not several:
        raise DataError(
            f"--quality: {len(names)} annotators, and {several} rows with labels of several; cleanlab compares "
            "annotators of the same rows, so that it needs two at least"
        )
    table = np.full((len(chances), len(names)), np.nan)
    for place, row in enumerate(chances):
        for who, class_id in known[row].items():
            table[place, names.index(who)] = class_id
    found = get_label_quality_multiannotator(table, np.stack([*chances.values()]), verbose=False)
    stats, quality = found["annotator_stats"], found["label_quality"]
    qualities = {names[int(index)]: float(one) for index, one in stats["annotator_quality"].items()}
    rows = [*chances]
    worst = quality.sort_values("consensus_quality_score").head(SUSPECTS)
    suspects = tuple(
        f"row {rows[int(index)]}: {labels[int(one['consensus_label'])]!r} "
        f"(quality {one['consensus_quality_score']:.2f})"
        for index, one in worst.iterrows()
        if one["consensus_quality_score"] < 0.5
    )
    return qualities, suspects
