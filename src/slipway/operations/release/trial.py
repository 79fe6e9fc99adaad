"""A trial: the gateway's settings, the record of the release, and the evidence so far."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from slipway.contract import SlipwayError, SpecError
from slipway.operations.gateway.plan import GatewayPlan
from slipway.operations.gateway.routes import Traffic, make_folder, read_traffic
from slipway.operations.gateway.settings import GatewaySettings, ServerPorts
from slipway.operations.journal.store import DATABASE, Store
from slipway.operations.release.apply_weights import put_in_force
from slipway.operations.release.compatibility import answering
from slipway.operations.release.counts import Disagreements, blocks_of
from slipway.operations.release.disagreements import Tally, pairs_of, tally
from slipway.operations.release.judge import ReleaseJudgement, ReleaseVerdict, judge
from slipway.operations.release.lock import only_operator
from slipway.operations.release.metrics import ArmCounts, ArmName, counts, reading
from slipway.operations.release.readings import Readings, present
from slipway.operations.release.record import (
    Action,
    Deed,
    ReleaseRecord,
    RepositoryFacts,
    now,
    read_record,
    record_path,
)
from slipway.system.text import command, few


@dataclass(frozen=True)
class Judged:
    """A verdict, and what was wrong with the readings that it comes from."""

    judgement: ReleaseJudgement
    blocks: int
    restarts: int
    out_of_order: int
    damaged: int
    tallies: dict[str, Tally] = field(default_factory=dict)
    """Counts of the images on which the versions differ, by classifier."""
    unread: str = ""
    """Reason why the series of disagreements is absent, or could not be read."""

    @property
    def remarks(self) -> list[str]:
        said = {
            "the gateway's counters went down, and their blocks count nothing": self.restarts,
            "readings were not later than the one before, and were passed over": self.out_of_order,
            "lines of the readings are damaged": self.damaged,
        }
        remarks = [f"{what}: {count}" for what, count in said.items() if count]
        remarks += [f"{name}: {found}" for name, found in self.tallies.items()]
        return [*remarks, *([self.unread] if self.unread else [])]


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
            SpecError: the settings are wrong, no candidate was written, or it was written on another box.
        """
        settings = GatewayPlan.open(source).settings
        repository = stable_repository(settings)
        record = read_record(repository, gateway=source)
        if record is None:
            raise SpecError(
                f"{repository}: no release is open; name the candidate in the fleet file (release:), and write it by "
                + command("slipway release candidate", source, "FLEET")
            )
        if Path(record.stable.path) != repository:
            raise SpecError(
                f"{record_path(repository)}: a record of {record.stable.path}, from another box or before the folder "
                "was moved, and its trial cannot go on; begin another, which keeps this record: "
                + command("slipway release candidate", source, "FLEET")
            )
        return cls(source, settings, record)

    def again(self) -> Self:
        """Return the trial in its present state."""
        return type(self).open(self.source)

    @property
    def is_open(self) -> bool:
        """Whether the record is still of this release, and no other candidate was written since."""
        record = read_record(Path(self.record.stable.path), gateway=self.source)
        return record is not None and (record.opened, record.candidate) == (self.record.opened, self.record.candidate)

    def require_open(self) -> None:
        """Raises SpecError if another candidate was written since, or the record is gone."""
        if not self.is_open:
            if not (path := record_path(Path(self.record.stable.path))).exists():
                raise SpecError(
                    f"{path}: the record of the release is gone, and without it the release cannot go on; if the "
                    "candidate has requests, first take them away: "
                    f"{command('slipway release rollback', self.source)}; then begin its trial again: "
                    + command("slipway release candidate", self.source, "FLEET")
                )
            raise SpecError(
                f"{self.source}: another candidate was written since {self.record.opened}, and its evidence starts "
                "anew; " + command("slipway release judge", self.source, "--watch")
            )

    @property
    def traffic(self) -> Traffic:
        return read_traffic(self.settings)

    def counts(self) -> dict[ArmName, ArmCounts]:
        """Counts since the gateway started.

        Raises:
            SpecError: the candidate's repository is gone, as on a restored box.
            ServingError: the gateway does not answer.
        """
        return counts(self.settings, self.record.models)

    def look(self) -> Judged:
        """Read the counters, keep them, and judge by all readings.

        Raises:
            ServingError: the gateway does not answer.
        """
        make_folder(self.settings.folder)
        self._readings.append(reading(self.counts(), present()))
        return self.judged()

    def judged(self) -> Judged:
        """Judge by the readings so far, and by disagreements where the gateway has a journal.

        A journal that cannot be read is a series without images, so that nothing passes; and what the counts alone show
        to be worse waits for no journal.
        """
        kept = self._readings.kept()
        told, settings = blocks_of(kept.readings), self.record.settings.judge
        judgement = judge(told.blocks, settings=settings)
        tallies, unread = dict[str, Tally](), ""
        if judgement.verdict is not ReleaseVerdict.WORSE:
            disagreements, tallies, unread = self._disagreements()
            judgement = judge(told.blocks, settings=settings, disagreements=disagreements)
        return Judged(
            judgement, len(told.blocks), told.restarts, told.out_of_order, kept.damaged, tallies=tallies, unread=unread
        )

    def _disagreements(self) -> tuple[list[Disagreements], dict[str, Tally], str]:
        """Return the disagreements for the judge, their counts, and a remark on them."""
        again = command("slipway release compare", self.source)
        if self.settings.observe is None:
            return [], {}, "disagreements are not judged, since the gateway keeps no journal (observe:)"
        if not (pairs := pairs_of(self.record)):
            return [], {}, "disagreements are not judged: an engine alone is tried, or an image has several labels"
        nothing = [Disagreements(0, 0, 0, 0, classifier=pair.classifier) for pair in pairs]
        if not (self.settings.journal / DATABASE).is_file():
            run = command("slipway journal run", self.source)
            return nothing, {}, f"no journal yet; {run} makes one, then: {again}"
        try:
            with Store.of(self.settings, make=False) as store:
                tallies = {pair.classifier: tally(store, pair) for pair in pairs}
        except SlipwayError as error:
            return nothing, {}, f"the journal cannot be read: {error}"
        missing = [name for name, found in tallies.items() if not found.compared]
        said = f"{few(missing)}: not compared yet; {again}" if missing else ""
        return [found.told(name) for name, found in tallies.items()], tallies, said

    def divide(self, changes: Mapping[str, int | str | None], *, action: Deed, by: str) -> tuple[Traffic, float]:
        """Change fields of `Traffic`; returns what is in force then, and how many seconds that took.

        The other fields stay as they are once no other operator is at work: the judge may have set the weight to 0.

        Raises:
            SpecError: another operator is at work, another candidate was written, the candidate may not get requests,
                or a change is invalid.
            ServingError: the gateway does not answer, or the candidate does not answer as it should.
        """
        with only_operator(self.settings.folder, action):
            self.require_open()
            traffic = Traffic.parse({**self.traffic.model_dump(), **changes}, source="command line")
            if traffic.to_candidate:
                self.require_candidate()
            seconds = put_in_force(self.settings, traffic)
            self.note(action, by=by, traffic=traffic)
        return traffic, seconds

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

    def require_candidate(self) -> ServerPorts:
        """The candidate's ports; raises SpecError unless it may be asked."""
        candidate = self.settings.candidate
        if candidate is None:
            raise SpecError(
                f"{self.source}: candidate: not given; write the ports of the candidate's slipway serve, such as "
                "{grpc: 8101, http: 8100, status: 8103}"
            )
        if self.record.is_promoted:
            raise SpecError(
                "the candidate is promoted: both servers answer the same; write the next one by "
                + command("slipway release candidate", self.source, self.record.fleet)
            )
        if problems := answering(candidate, self.record.candidate.bundles):
            said = [f"{name} {problem}" for name, problem in problems.items()]
            serve = command("slipway serve", self.record.candidate.path, *candidate.options)
            reload = command("slipway reload", "--status-port", str(candidate.status))
            raise SpecError(
                f"the candidate at port {candidate.grpc} may not get requests: {few(said)}; start its server: {serve}; "
                f"or, if it runs: {reload}"
            )
        return candidate

    @property
    def _readings(self) -> Readings:
        return Readings(self.settings.folder / self.record.readings)


def stable_repository(settings: GatewaySettings) -> Path:
    if settings.repository is None:  # GatewayPlan.open has refused that
        raise SpecError("repository: not given")
    return Path(settings.repository).resolve()
