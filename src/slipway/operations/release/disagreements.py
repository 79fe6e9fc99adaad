"""Counts the images on which stable and candidate differ, and what their labels say of both, from the journal."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from slipway.contract import Manifest, Spec, SpecError
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.operations.journal.store import Store
from slipway.operations.labels.truth import decided
from slipway.operations.release.counts import Disagreements
from slipway.operations.release.record import ReleaseRecord, labels_of
from slipway.steps.postprocess import UNKNOWN
from slipway.system.text import command

Who: TypeAlias = Literal["lost", "won", "neither"]
DIFFERS = "differs"
"""Reason of a question in the table `asked`."""
_DIFFERING = """
    FROM compared JOIN rows ON rows.id = compared.row
    WHERE rows.classifier = :classifier AND rows.bundle = :stable AND compared.bundle = :candidate
      AND (compared.status != rows.status OR compared.label IS NOT rows.label)"""
_ASKED = """
    EXISTS (SELECT 1 FROM asked JOIN rows AS same ON same.id = asked.row WHERE same.sha256 = rows.sha256
      AND same.classifier = rows.classifier AND same.kept = 1)"""
_LABELLED = """
    EXISTS (SELECT 1 FROM labels JOIN rows AS same ON same.id = labels.row WHERE same.sha256 = rows.sha256
      AND same.classifier = rows.classifier)"""
ASK = f"""
    INSERT OR IGNORE INTO asked SELECT max(rows.id), '{DIFFERS}', :time {_DIFFERING}
      AND rows.kept = 1 AND NOT {_ASKED} AND NOT {_LABELLED}
    GROUP BY rows.sha256 ORDER BY rows.sha256 LIMIT :most"""
"""Asks for the differing images that are kept and have no label, each once, in the order of their hashes."""
OPEN = f"""
    SELECT count(DISTINCT rows.sha256) {_DIFFERING} AND rows.kept = 1 AND NOT {_LABELLED}
      AND EXISTS (SELECT 1 FROM asked WHERE asked.row = rows.id AND asked.reason = '{DIFFERS}')"""
"""Questions of this kind that somebody can still answer."""


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
    """Counts of one pair's comparisons, differences and labels."""

    compared: int
    differing: int
    asked: int
    """Differing images that people are asked about, or have labelled."""
    open: int
    """Differing images that people are asked about, can still see, and have not labelled."""
    divided: int
    """Differing images whose annotators are divided equally, so that they have no label yet."""
    waiting: int
    """Labelled images that do not count yet, since an image before them has no label."""
    next: int | None
    """Row of the first image without a label; None if all have one."""
    gone: int
    """Differing images without a label that are no longer kept."""
    counts: Counter[Who]

    @property
    def labelled(self) -> int:
        return self.counts.total()

    def told(self, classifier: str) -> Disagreements:
        """Return the disagreements in the form that the judge takes."""
        lost, won, neither = (self.counts[one] for one in ("lost", "won", "neither"))
        return Disagreements(self.compared, self.differing, lost, won, neither, classifier, self.gone)

    def __str__(self) -> str:
        labelled = f"{self.labelled:,} labelled: {self.counts['lost']:,} lost, {self.counts['won']:,} won"
        divided = f"; annotators are divided on {self.divided:,}" if self.divided else ""
        if self.waiting:
            divided += f"; {self.waiting:,} more labels count once row {self.next} has one, the next in order"
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


def trained_on(record: ReleaseRecord, classifier: str) -> frozenset[str] | None:
    """SHA-256 of the images that the candidate was trained or tuned on: of those its answers show nothing.

    None if its bundle has no data set, such as an imported one.

    Raises:
        SpecError: the run holds another bundle by now, or its data set is damaged.
    """
    folder, expected = _bundle(record, classifier), record.candidate.bundles[classifier]
    found = Manifest.read(folder / MANIFEST).bundle
    if found != expected:
        raise SpecError(
            f"{folder}: bundle {found!s:.12}, but the candidate is {expected:.12}; its training images are unknown: "
            f"write the candidate again: {command('slipway release candidate', record.gateway, record.fleet)}"
        )
    if not (folder / DATASET).exists():
        return None
    dataset = Dataset.read(folder / DATASET)
    return frozenset(image.sha256 for image in dataset.images if image.split != "test")


def _has_several_labels(record: ReleaseRecord, name: str) -> bool:
    spec = _bundle(record, name) / "spec.json"
    return spec.is_file() and Spec.read(spec).task == "multilabel"


def _bundle(record: ReleaseRecord, classifier: str) -> Path:
    return Path(record.fleet).parent / record.settings.candidate[classifier] / "bundle"


def tally(store: Store, pair: Pair) -> Tally:
    """Count what the journal has of one pair, each image once.

    The differing images stand in the order of their SHA-256, and those before the first one without a label count. So
    neither the way in which an image came to its label nor the order of labelling says who is right. An image without a
    label that is no longer kept has no place in the order, since nobody can label it.
    """
    (compared,) = store.query(
        "SELECT count(DISTINCT rows.sha256) FROM compared JOIN rows ON rows.id = compared.row WHERE "
        "rows.classifier = :classifier AND rows.bundle = :stable AND compared.bundle = :candidate",
        pair.names,
    )[0]
    differing = store.query(
        "SELECT max(rows.id), rows.sha256, rows.label, rows.status, compared.label, compared.status, rows.kept, "
        f"{_ASKED} {_DIFFERING} GROUP BY rows.sha256 ORDER BY rows.sha256",
        pair.names,
    )
    said = _said(store, pair)
    counts: Counter[Who] = Counter()
    first, waiting = None, 0
    for row, sha256, before, before_status, after, after_status, kept, _ in differing:
        if sha256 not in said:
            first = row if first is None and kept else first
        elif first is not None:
            waiting += 1
        elif (truth := decided(said[sha256])) is not None:
            right = [
                status == 0 and is_right(label, truth, classes=pair.classes)
                for label, status in ((before, before_status), (after, after_status))
            ]
            counts[_who(right)] += 1
    asked = sum(bool(asked or sha256 in said) for _, sha256, *_, asked in differing)
    opened = sum(bool(asked and kept and sha256 not in said) for _, sha256, *_, kept, asked in differing)
    divided = sum(sha256 in said and decided(said[sha256]) is None for _, sha256, *_ in differing)
    gone = sum(not kept and sha256 not in said for _, sha256, *_, kept, _ in differing)
    return Tally(compared, len(differing), asked, opened, divided, waiting, first, gone, counts)


def _said(store: Store, pair: Pair) -> dict[str, dict[str, str]]:
    """Return each annotator's label of each differing image, by its SHA-256, from whichever row; the newest row
    counts."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for sha256, annotator, label in store.query(
        "SELECT rows.sha256, labels.annotator, labels.label FROM labels JOIN rows ON rows.id = labels.row WHERE "
        f"rows.classifier = :classifier AND rows.sha256 IN (SELECT rows.sha256 {_DIFFERING}) ORDER BY labels.row",
        pair.names,
    ):
        found[sha256][annotator] = label
    return dict(found)


def is_right(label: str | None, truth: str, *, classes: Sequence[str]) -> bool:
    """Whether an answer is right. `unknown` is right for what is none of the candidate's classes: a candidate that has
    learnt a class wins where stable could only say that it does not know it."""
    return label == truth or (label == UNKNOWN.decode() and truth not in classes)


def _who(right: list[bool]) -> Who:
    before, after = right
    return "neither" if before == after else "won" if after else "lost"
