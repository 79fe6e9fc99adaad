"""`turn.json`: one turn of a classifier, from its approval to its end."""

from pathlib import Path
from typing import Literal, Self, TypeAlias

from slipway.contract import SpecError
from slipway.contract.typed_file import Contract
from slipway.operations.release.record import now
from slipway.operations.turn.proposal import Proposal
from slipway.system.targets import told, write_file

FOLDER, FILE = "turn", "turn.json"
LOCK = "turn.lock"
"""File in the gateway's folder that a turn at work holds."""
Outcome: TypeAlias = Literal["promoted", "worse", "ended"]


class Accepted(Contract):
    """A person's word that the old test split need not prove more."""

    by: str
    reason: str
    engine_sha256: str | None = None
    """The engine that it is for: that of the first result which needs it; None until then."""


class TurnRecord(Contract):
    """One turn. What its stages made is in its run; this says which run, and who approved it."""

    classifier: str
    opened: str
    approved_by: str
    """The person, or `automatic`."""
    proposal: Proposal
    old_run: str
    """Run that answers, relative to the fleet file."""
    run: str
    """Run that the turn makes, relative to the fleet file."""
    accepted: Accepted | None = None
    """The person who accepts that the old test split has too few images to prove that nothing is lost, and the
    reason."""
    outcome: Outcome | None = None
    """None while the turn is open."""
    ended: str | None = None
    reason: str | None = None

    def accept(self, reason: str, *, by: str) -> Self:
        return self.model_copy(update={"accepted": Accepted(by=by, reason=reason)})

    def accepts(self, engine_sha256: str) -> Self | None:
        """The record with its acceptance bound to this engine; None if nobody accepted, or for another engine."""
        if self.accepted is None or self.accepted.engine_sha256 not in (None, engine_sha256):
            return None
        bound = self.accepted.model_copy(update={"engine_sha256": engine_sha256})
        return self.model_copy(update={"accepted": bound})

    def end(self, outcome: Outcome, *, reason: str | None = None) -> Self:
        return self.model_copy(update={"outcome": outcome, "ended": now(), "reason": reason})

    def keep(self, folder: Path) -> None:
        """Raises StorageError: the file cannot be written."""
        write_file(folder / FILE, self.to_json())


def turn_folder(journal: Path, classifier: str) -> Path:
    """The folder of a classifier's turns."""
    folder = journal / FOLDER / classifier
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def read_turn(folder: Path) -> TurnRecord | None:
    """The newest turn; None if no turn was begun.

    Raises:
        SpecError: the file is damaged.
    """
    path = folder / FILE
    try:
        return TurnRecord.read(path) if path.exists() else None
    except SpecError as error:
        raise SpecError(
            f"{error}; move {path} away, and a new turn may begin; what the lost one made stays in its run"
        ) from None


def keep_earlier(folder: Path) -> None:
    """Rename the record of the turn before, whose approval is in it."""
    if earlier := read_turn(folder):
        when = "".join(character for character in earlier.opened if character.isdigit())[:14]
        (folder / FILE).rename(folder / f"turn-{when}.json")
