"""A trial: the gateway's settings, the record of the release, and the evidence so far."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from slipway.contract import SpecError
from slipway.operations.gateway.plan import GatewayPlan
from slipway.operations.gateway.routes import Traffic, make_folder, read_traffic
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.release.counts import blocks_of
from slipway.operations.release.fit import answering
from slipway.operations.release.force import put_in_force
from slipway.operations.release.judge import ReleaseJudgement, judge
from slipway.operations.release.lock import only_operator
from slipway.operations.release.metrics import ArmCounts, ArmName, counts, reading
from slipway.operations.release.readings import Readings
from slipway.operations.release.record import Action, Deed, ReleaseRecord, RepositoryFacts, now, read_record
from slipway.system.text import command, few


@dataclass(frozen=True)
class Judged:
    """A verdict, and what was wrong with the readings that it comes from."""

    judgement: ReleaseJudgement
    blocks: int
    restarts: int
    out_of_order: int
    damaged: int

    @property
    def remarks(self) -> list[str]:
        said = {
            "the gateway's counters began anew": self.restarts,
            "readings were not later than the one before, and were passed over": self.out_of_order,
            "lines of the readings are damaged": self.damaged,
        }
        return [f"{what}: {count}" for what, count in said.items() if count]


@dataclass(frozen=True)
class Trial:
    """The release at one gateway."""

    source: Path
    settings: GatewaySettings
    record: ReleaseRecord

    @classmethod
    def open(cls, source: Path) -> Self:
        """The release of the gateway whose settings are in the file `source`.

        Raises:
            SpecError: the settings are wrong, or no candidate was written.
        """
        settings = GatewayPlan.open(source).settings
        repository = stable_repository(settings)
        record = read_record(repository)
        if record is None:
            raise SpecError(
                f"{repository}: no release is open; name the candidate in the fleet file (release:), and write it by "
                + command("slipway release candidate", source, "FLEET")
            )
        return cls(source, settings, record)

    def again(self) -> Self:
        """The same trial, as it is now."""
        return type(self).open(self.source)

    @property
    def is_open(self) -> bool:
        """Whether the record is still of this release, and no other candidate was written since."""
        record = read_record(Path(self.record.stable.path))
        return record is not None and (record.opened, record.candidate) == (self.record.opened, self.record.candidate)

    def require_open(self) -> None:
        """Raises SpecError if another candidate was written since."""
        if not self.is_open:
            raise SpecError(
                f"{self.source}: another candidate was written since {self.record.opened}, and its evidence starts "
                "anew; " + command("slipway release judge", self.source, "--watch")
            )

    @property
    def traffic(self) -> Traffic:
        return read_traffic(self.settings)

    def counts(self) -> dict[ArmName, ArmCounts]:
        """Counts since the gateway started; raises ServingError if it does not answer."""
        return counts(self.settings, self.record.models)

    def look(self) -> Judged:
        """Read the counters, keep them, and judge by all readings.

        Raises:
            ServingError: the gateway does not answer.
        """
        make_folder(self.settings.folder)
        self._readings.append(reading(self.counts(), time_s=time.time()))
        return self.judged()

    def judged(self) -> Judged:
        """Judge by the readings so far."""
        kept = self._readings.kept()
        told = blocks_of(kept.readings)
        judgement = judge(told.blocks, settings=self.record.settings.judge)
        return Judged(judgement, len(told.blocks), told.restarts, told.out_of_order, kept.damaged)

    def divide(self, traffic: Traffic, *, action: Deed, by: str) -> float:
        """Put `traffic` in force; returns how many seconds that took.

        Raises:
            SpecError: another operator is at work, or the candidate may not get requests.
            ServingError: the gateway does not answer, or the candidate does not answer as it should.
        """
        with only_operator(self.settings.folder, action):
            if traffic.weight_percent or traffic.mirror_percent:
                self._require_a_candidate()
            seconds = put_in_force(self.settings, traffic)
            self.note(action, by=by, traffic=traffic)
        return seconds

    def note(
        self,
        action: Deed,
        *,
        by: str,
        traffic: Traffic,
        reason: str | None = None,
        stable: RepositoryFacts | None = None,
        evidence: ReleaseJudgement | None = None,
    ) -> None:
        """Write an action into the record. The caller holds the lock."""
        done = Action(
            time=now(),
            action=action,
            by=by,
            weight_percent=traffic.weight_percent,
            mirror_percent=traffic.mirror_percent,
            reason=reason,
            stable=stable,
            evidence=evidence,
        )
        self.again().record.with_action(done).keep()

    def _require_a_candidate(self) -> None:
        candidate = self.settings.candidate
        if candidate is None:
            raise SpecError(
                f"{self.source}: candidate: not given; write the ports of the candidate's slipway serve, such as "
                "{grpc: 8101, http: 8100, status: 8103}"
            )
        if self.record.is_promoted:
            raise SpecError(
                "the candidate is promoted: both servers answer the same; write the next one by slipway release "
                f"candidate {self.source} FLEET"
            )
        if problems := answering(candidate, self.record.candidate.bundles):
            said = [f"{name} {problem}" for name, problem in problems.items()]
            raise SpecError(
                f"the candidate at port {candidate.grpc} may not get requests: {few(said)}; run slipway serve "
                f"{self.record.candidate.path} on the ports of candidate: in {self.source}, or slipway reload it"
            )

    @property
    def _readings(self) -> Readings:
        return Readings(self.settings.folder / self.record.readings)


def stable_repository(settings: GatewaySettings) -> Path:
    if settings.repository is None:  # GatewayPlan.open has refused that
        raise SpecError("repository: not given")
    return Path(settings.repository).resolve()
