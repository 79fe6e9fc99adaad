"""The readings of a trial: one JSON line each, in a file that is only appended to, so that no restart loses any."""

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from slipway.contract import SpecError
from slipway.contract.typed_file import Contract
from slipway.operations.release.counts import BLOCK_S, Counters, Moment, Reading
from slipway.system.targets import told

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SLACK_S = 0.5
"""A reading may be earlier than five seconds after the one before by this much, since a timer is not exact."""


class ArmLine(Contract):
    """Counters of an arm; null is a series that is missing."""

    requests: int | None
    errors: int | None
    over_budget: int | None


class ReadingLine(Contract):
    """A line of the file."""

    time_s: float
    """Seconds since 1970, for people: a clock may be set at any time, so nothing is computed from it."""
    boot: str
    """Id of this start of the box."""
    running_s: float
    """Seconds that the box has run since then."""
    stable: ArmLine
    candidate: ArmLine


@dataclass(frozen=True)
class Kept:
    """The content of the file."""

    readings: tuple[Reading, ...]
    damaged: int
    """Lines that are not readings, such as one that was cut by a full disk. The block around one is longer."""


def present() -> Moment:
    return Moment(BOOT_ID.read_text(encoding="ascii").strip(), time.monotonic())


class Readings:
    """The file of one trial."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def kept(self) -> Kept:
        """Raises StorageError: the file cannot be read."""
        with told(self.path):
            content = self.path.read_bytes() if self.path.exists() else b""
        found, damaged = [], 0
        for line in content.splitlines():
            try:
                found.append(_reading(ReadingLine.model_validate_json(line)))
            except ValueError:
                damaged += bool(line.strip())
        return Kept(tuple(found), damaged)

    def append(self, reading: Reading) -> bool:
        """Append `reading`; False if the last one is not five seconds old: shorter blocks would hide bursts.

        Raises:
            StorageError: the file cannot be written.
            SpecError: it belongs to another user.
        """
        line = ReadingLine(
            time_s=time.time(),
            boot=reading.moment.boot,
            running_s=reading.moment.running_s,
            stable=_arm(reading.stable),
            candidate=_arm(reading.candidate),
        )
        with told(self.path):
            try:
                file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            except PermissionError:
                raise SpecError(f"{self.path}: cannot be appended to; run this as the gateway's user") from None
            try:
                fcntl.flock(file, fcntl.LOCK_EX)  # another judge may be appending
                if not self._is_due(reading):
                    return False
                os.write(file, self._break() + line.model_dump_json().encode() + b"\n")
            finally:
                os.close(file)
        return True

    def _is_due(self, reading: Reading) -> bool:
        """Whether the last reading is five seconds old, or of an earlier start of the box."""
        before = self.kept().readings
        if not before or before[-1].moment.boot != reading.moment.boot:
            return True
        return before[-1].moment.until(reading.moment) >= BLOCK_S - SLACK_S

    def _break(self) -> bytes:
        """The end of a line that was cut short."""
        content = self.path.read_bytes()
        return b"\n" if content and not content.endswith(b"\n") else b""


def _arm(counters: Counters) -> ArmLine:
    given = (counters.requests, counters.errors, counters.over_budget)
    requests, errors, over_budget = (None if count is None else round(count) for count in given)
    return ArmLine(requests=requests, errors=errors, over_budget=over_budget)


def _reading(line: ReadingLine) -> Reading:
    stable, candidate = (Counters(arm.requests, arm.errors, arm.over_budget) for arm in (line.stable, line.candidate))
    return Reading(Moment(line.boot, line.running_s), stable, candidate)
