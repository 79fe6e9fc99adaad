"""`state.json`: what the watch keeps of one classifier between two batches. It is written whole after each of them."""

import hashlib
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from slipway.contract.typed_file import Contract
from slipway.errors import SpecError
from slipway.operations.watch.drift import DriftState
from slipway.operations.watch.facts import DriftAlarm, Gap, Point, ReferenceSource
from slipway.operations.watch.reference import WatchReference
from slipway.operations.watch.test_split import FOLDER, TestReference, folder_of, write_private

FILE, LOCK = "state.json", "watch.lock"
MINUTE_S, HOUR_S = 60, 3600.0


RowNumber = Annotated[int, Field(ge=0, lt=2**63)]
"""Number of a row of the journal, as SQLite gives it."""


class SeenRows(Contract):
    """Rows of a classifier, of whatever bundle and STATUS, since the watch first saw it."""

    last_row: RowNumber = 0
    """Number of the newest row that is counted here."""
    rows: int = 0
    statuses: dict[int, int] = Field(default_factory=dict)
    first_s: float | None = None
    last_s: float | None = None
    bundle: str | None = None
    """Id of the bundle of the newest row of the stable server."""
    minutes: dict[int, int] = Field(default_factory=dict)
    """Rows by the minute of their request, of the newest hour."""


class LiveReference(Contract):
    """The drift reference that live rows gave."""

    drift: WatchReference
    rows: int
    taken_s: float
    told: str
    """A sentence on why these rows were taken."""
    gap: tuple[Gap, ...]
    """Differences of these rows from the test split."""


class DriftDetection(Contract):
    """The drift detectors at work."""

    source: ReferenceSource
    state: DriftState
    after_row: int
    """Number of the journal's row after which they began."""
    since_s: float | None = None
    alarm: DriftAlarm | None = None
    history: tuple[Point, ...] = ()


class Current(Contract):
    """The watch of one bundle against one reference."""

    bundle: str
    reference: str
    """Digest of the test split's reference."""
    since_s: float
    last_row: RowNumber = 0
    """Number of the newest row that was fed; a row is fed once."""
    rows: int = 0
    """Accepted rows that were fed."""
    predicted: dict[int, int] = Field(default_factory=dict)
    live_after: RowNumber = 0
    """Number of the row after which rows count for the live reference."""
    live_rows: int = 0
    trusted: bool = False
    """Whether a person has said that live rows are as they should be."""
    live: LiveReference | None = None
    bets: DriftDetection | None = None
    """None until there is a reference with enough rows."""
    restarts: tuple[float, ...] = ()
    """Times (Unix, s) of the restarts that are carried out, or passed over as those of another bundle."""

    def drift(self, reference: TestReference) -> tuple[ReferenceSource, WatchReference] | None:
        """The reference of drift: the live one as soon as there is one.

        None without one: the test split is too small, or a person has said that live rows differ from it rightly, and
        there are not enough of them yet.
        """
        if self.live is not None:
            return "live", self.live.drift
        return None if reference.drift is None or self.trusted else ("test", reference.drift)


class WatchState(Contract):
    classifier: str
    seen: SeenRows = SeenRows()
    current: Current | None = None
    """None without a reference."""

    @classmethod
    def load(cls, journal: Path, classifier: str) -> Self:
        """The state as it was kept; a new one if there is none.

        Raises:
            SpecError: the file is damaged, or of another classifier.
        """
        path = folder_of(journal, classifier) / FILE
        if not path.exists():
            return cls(classifier=classifier)
        try:
            found = cls.read(path)
            if found.classifier != classifier:
                raise SpecError(f"{path}: of the classifier {found.classifier}, and not of {classifier}")
            return found
        except SpecError as error:
            said = str(error).splitlines()[0]
            raise SpecError(f"{said}; remove {path}, and the watch of {classifier} begins anew") from None

    def keep(self, journal: Path) -> None:
        """Raises StorageError: the file cannot be written; the state before is then still there."""
        write_private(folder_of(journal, self.classifier) / FILE, self.to_json())


def lock_of(journal: Path) -> Path:
    """The lock file of the watch of a journal. Its modification time is that of the watch's last look."""
    return journal / FOLDER / LOCK


def digest_of(reference: TestReference) -> str:
    """A hash of its content: a reference that was made again from the same rows has the same."""
    return hashlib.sha256(reference.model_copy(update={"made_s": 0.0}).to_json().encode()).hexdigest()[:16]
