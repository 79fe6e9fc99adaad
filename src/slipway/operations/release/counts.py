"""Counts for the judge: both arms in blocks of five seconds, made from counters that only increase."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from slipway.errors import DataError

BLOCK_S = 5.0


@dataclass(frozen=True)
class Arm:
    """Requests of one arm, in a block or as counters since a start. None is a series that is missing, not zero.

    Raises:
        DataError: a count is negative, or a part is larger than the requests.
    """

    requests: int
    errors: int | None
    """Requests that ended with an error, a rejection or a time-out of the server."""
    over_budget: int | None
    """Requests that took longer than the classifier's latency budget."""

    def __post_init__(self) -> None:
        for name, count in (("errors", self.errors), ("over_budget", self.over_budget)):
            if count is not None and not 0 <= count <= self.requests:
                raise DataError(f"{name}: {count} of {self.requests} requests; give 0 to {self.requests}, or None")
        if self.requests < 0:
            raise DataError(f"requests: {self.requests}; give 0 or more")


@dataclass(frozen=True)
class TrialBlock:
    stable: Arm
    candidate: Arm
    seconds: float = BLOCK_S


@dataclass(frozen=True)
class Disagreements:
    """Images that both versions answered, and the labels of those on which they differ.

    Raises:
        DataError: there are more labels than differences, or more differences than images.
    """

    compared: int
    differing: int
    lost: int
    """Labelled images that only the stable version answered rightly."""
    won: int
    """Labelled images that only the candidate answered rightly."""
    neither: int = 0
    classifier: str = ""
    gone: int = 0
    """Images without a label that nobody can label, since they are no longer kept."""

    def __post_init__(self) -> None:
        labelled = self.lost + self.won + self.neither
        if min(self.lost, self.won, self.neither) < 0 or not labelled <= self.differing <= self.compared:
            raise DataError(
                f"{labelled} labels of {self.differing} differences in {self.compared} images; "
                "give no more labels than differences, and no more differences than images"
            )

    @property
    def unlabelled(self) -> int:
        """Labels that may still come."""
        return self.differing - self.lost - self.won - self.neither - self.gone


@dataclass(frozen=True)
class Moment:
    """A time by a clock that nobody sets."""

    boot: str
    """Id of this start of the box."""
    running_s: float
    """Seconds that the box has run since then."""

    def until(self, later: "Moment") -> float:
        """Seconds that the box ran from here to `later`, as far as is known: over a start of the box, those since."""
        return later.running_s - (self.running_s if later.boot == self.boot else 0.0)


@dataclass(frozen=True)
class Reading:
    """The counters of both arms at one time. A counter that is missing, or not a number, is None."""

    moment: Moment
    stable: "Counters"
    candidate: "Counters"


@dataclass(frozen=True)
class Counters:
    requests: float | None
    errors: float | None = None
    over_budget: float | None = None


@dataclass
class Told:
    """Blocks, and what was wrong with the readings that they come from."""

    blocks: list[TrialBlock] = field(default_factory=list)
    restarts: int = 0
    """Counters of an arm that went down: their block counts nothing of it."""
    out_of_order: int = 0
    """Readings that are not later than the one before, as in a file that was changed; they are passed over."""


def blocks_of(readings: Iterable[Reading]) -> Told:
    """Make a block of each two neighbouring readings.

    A counter that went down was started again, or one of the series that it adds up is gone: Envoy drops idle ones when
    a listener is replaced. The sums do not tell which, and after the latter a whole value would count old requests
    again, without their errors. So the arm has nothing in that block, and its series are missing there.

    A block whose number of requests is missing in an arm is none for that arm; a part that is missing at either end, or
    larger than the requests, is missing in the block.
    """
    told = Told()
    for before, after in pairwise(_in_order(readings, told)):
        stable, candidate = (
            _between(earlier, later, told)
            for earlier, later in ((before.stable, after.stable), (before.candidate, after.candidate))
        )
        told.blocks.append(TrialBlock(stable, candidate, seconds=before.moment.until(after.moment)))
    return told


def _in_order(readings: Iterable[Reading], told: Told) -> Iterator[Reading]:
    latest: Moment | None = None
    for reading in readings:
        if latest is None or latest.until(reading.moment) > 0:
            latest = reading.moment
            yield reading
        else:
            told.out_of_order += 1


def _between(before: Counters, after: Counters, told: Told) -> Arm:
    requests = _increase(before.requests, after.requests)
    parts = [_increase(before.errors, after.errors), _increase(before.over_budget, after.over_budget)]
    if any(increase is not None and increase < 0 for increase in (requests, *parts)):
        told.restarts += 1
        requests = None
    if requests is None:
        return Arm(0, None, None)
    errors, over_budget = (None if part is None or part > requests else part for part in parts)
    return Arm(requests, errors, over_budget)


def _increase(before: float | None, after: float | None) -> int | None:
    then, now = _whole(before), _whole(after)
    return None if now is None or then is None else now - then


def _whole(value: float | None) -> int | None:
    return None if value is None or not math.isfinite(value) or value < 0 else round(value)
