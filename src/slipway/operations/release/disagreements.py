"""Counts the images on which stable and candidate differ, and what their labels say of both, from the journal."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from slipway.contract import Spec
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.operations.journal.store import Store
from slipway.operations.labels.truth import truths
from slipway.operations.release.counts import Disagreements
from slipway.operations.release.record import ReleaseRecord, labels_of
from slipway.steps.postprocess import UNKNOWN

Who: TypeAlias = Literal["lost", "won", "neither"]
DIFFERS = "differs"
"""Reason of a question in the table `asked`."""
ASK = f"""
    INSERT OR IGNORE INTO asked SELECT rows.id, '{DIFFERS}', ? FROM compared JOIN rows ON rows.id = compared.row
    WHERE rows.classifier = ? AND rows.bundle = ? AND compared.bundle = ?
      AND (compared.status != rows.status OR compared.label IS NOT rows.label)
      AND NOT EXISTS (SELECT 1 FROM labels WHERE labels.row = rows.id)
      AND NOT EXISTS (SELECT 1 FROM asked WHERE asked.row = rows.id)
    ORDER BY rows.sha256 LIMIT ?"""
"""Asks for the differing images without a label: time, classifier, both bundles, and how many at most. In the order of
their hashes, the questions are a random part."""


@dataclass(frozen=True)
class Pair:
    """The two bundles of one classifier, and the classes of the candidate."""

    classifier: str
    stable: str
    candidate: str
    classes: tuple[str, ...]

    @property
    def names(self) -> dict[str, object]:
        return {"classifier": self.classifier, "stable": self.stable, "candidate": self.candidate}


@dataclass(frozen=True)
class Tally:
    """What is known of one pair."""

    compared: int
    differing: int
    asked: int
    """Differing images that people are asked about, or have labelled."""
    open: int
    """Differing images that people are asked about, and have not labelled."""
    divided: int
    """Differing images whose annotators are divided equally, so that they have no label yet."""
    counts: Counter[Who]

    @property
    def labelled(self) -> int:
        return self.counts.total()

    def told(self, classifier: str) -> Disagreements:
        """What the judge is told."""
        lost, won, neither = (self.counts[one] for one in ("lost", "won", "neither"))
        return Disagreements(self.compared, self.differing, lost, won, neither, classifier)

    def __str__(self) -> str:
        labelled = f"{self.labelled:,} labelled: {self.counts['lost']:,} lost, {self.counts['won']:,} won"
        divided = f"; annotators are divided on {self.divided:,}" if self.divided else ""
        return (
            f"{self.compared:,} images compared, {self.differing:,} differ; {self.compared - self.differing:,} have "
            f"the same answer and need no label; {self.asked:,} are asked, {labelled}, "
            f"{self.counts['neither']:,} neither{divided}"
        )


def pairs_of(record: ReleaseRecord) -> tuple[Pair, ...]:
    """The pairs that are compared, of the classifiers that are tried.

    Left out are classifiers of which an engine alone is tried, which its accuracy gate has compared; and those that
    give an image several labels, since the journal keeps the first one.
    """
    return tuple(
        Pair(name, record.stable.bundles[name], record.candidate.bundles[name], labels_of(record.candidate.path, name))
        for name in record.classifiers
        if record.stable.bundles[name] != record.candidate.bundles[name] and not _has_several_labels(record, name)
    )


def trained_on(record: ReleaseRecord, classifier: str) -> frozenset[str]:
    """SHA-256 of the images that the candidate was trained or tuned on: of those its answers show nothing.

    Raises:
        SpecError: its run does not say.
    """
    dataset = Dataset.read(_bundle(record, classifier) / DATASET)
    return frozenset(image.sha256 for image in dataset.images if image.split != "test")


def _has_several_labels(record: ReleaseRecord, name: str) -> bool:
    spec = _bundle(record, name) / "spec.json"
    return spec.is_file() and Spec.read(spec).task == "multilabel"


def _bundle(record: ReleaseRecord, classifier: str) -> Path:
    return Path(record.fleet).parent / record.settings.candidate[classifier] / "bundle"


def tally(store: Store, pair: Pair) -> Tally:
    """Count what the journal has of one pair."""
    (compared,) = store.query(
        "SELECT count(*) FROM compared JOIN rows ON rows.id = compared.row WHERE rows.classifier = :classifier AND "
        "rows.bundle = :stable AND compared.bundle = :candidate",
        pair.names,
    )[0]
    differing = store.query(
        "SELECT rows.id, rows.label, rows.status, compared.label, compared.status, "
        "EXISTS (SELECT 1 FROM asked WHERE asked.row = rows.id), "
        "(SELECT count(*) FROM labels WHERE labels.row = rows.id) FROM compared JOIN rows ON rows.id = compared.row "
        "WHERE rows.classifier = :classifier AND rows.bundle = :stable AND compared.bundle = :candidate "
        "AND (compared.status != rows.status OR compared.label IS NOT rows.label)",
        pair.names,
    )
    known = truths(store, pair.classifier, bundle=pair.stable)
    counts: Counter[Who] = Counter()
    for row, before, before_status, after, after_status, _, _ in differing:
        if row in known:
            right = [
                status == 0 and is_right(label, known[row], classes=pair.classes)
                for label, status in ((before, before_status), (after, after_status))
            ]
            counts[_who(right)] += 1
    asked = sum(bool(asked or labels) for *_, asked, labels in differing)
    opened = sum(bool(asked and not labels) for *_, asked, labels in differing)
    divided = sum(labels > 0 and row not in known for row, *_, labels in differing)
    return Tally(compared, len(differing), asked, opened, divided, counts)


def is_right(label: str | None, truth: str, *, classes: Sequence[str]) -> bool:
    """Whether an answer is right. `unknown` is right for what is none of the candidate's classes: a candidate that has
    learnt a class wins where stable could only say that it does not know it."""
    return label == truth or (label == UNKNOWN.decode() and truth not in classes)


def _who(right: list[bool]) -> Who:
    before, after = right
    return "neither" if before == after else "won" if after else "lost"
