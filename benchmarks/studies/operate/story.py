"""The events in their order; each step is a verb as a user runs it."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from benchmarks.studies.operate.box import Box, wait_until
from benchmarks.studies.operate.digits import NEW, Scans, shuffled, spoil_data, write_data
from benchmarks.studies.operate.files import write_first, write_fleet, write_gateway, write_head
from benchmarks.studies.operate.labelling import PERSON, Labelling
from benchmarks.studies.operate.result import OperateAlarm, OperateEstimate, OperateResult, OperateStudio
from benchmarks.studies.operate.stream import SentImage, Stream
from slipway.contract import Manifest, SlipwayError
from slipway.contract.evidence.origin import Origin
from slipway.contract.evidence.studies import Part
from slipway.operations.journal.store import Store
from slipway.operations.watch.accuracy import Estimate
from slipway.operations.watch.facts import Drift, Facts

RATE_PER_S, NEW_SHARE = 40.0, 0.15
QUIET_LABELS, LABELS = 20, 120
QUIET_S, LOOK_S, SHADOW_S, AFTER_S = 25.0, 3.0, 5.0, 10.0
SHIFTED = 1000
"""Requests with the new class before people are asked for labels."""
COMPARED = 200
"""Fewest rows of the stable head before both are compared."""
WORSE, STOPS_FOR_A_PERSON = 1, 2
"""Exit codes of `slipway release judge` and `slipway turn run`."""


class LineFacts(Facts):
    """The facts on one classifier in the JSON line of `slipway watch status`, which has more keys."""

    model_config = Part.model_config


class StatusLine(Part):
    classifiers: tuple[LineFacts, ...]


@dataclass(frozen=True)
class Told:
    """All that the story observed."""

    answers: list[SentImage]
    marks_s: dict[str, float]
    """Seconds since the first request at which each stage began."""
    drift: Drift
    estimate: Estimate
    """The accuracy that the watch estimated with the labels."""
    considered: float
    """True share of right answers among the rows that the estimate is based on."""
    alarm_requests: int
    alarm_s: float
    labels: int
    in_studio: OperateStudio | None
    """Facts of the labelling in Label Studio; None if labels came by CSV files."""
    parity: dict[str, int]
    heads: dict[str, str]
    """Name of each head by the id of its bundle."""
    steps_s: dict[str, float]

    def accuracy(self, start: str, end: str) -> float:
        """Return the share of right answers to the requests between two marks."""
        found = [one.is_correct for one in self.answers if self.marks_s[start] <= one.sent_s < self.marks_s[end]]
        return sum(found) / len(found)

    def result(self, origin: Origin, *, seconds: float) -> OperateResult:
        """Return the result of the study, which took `seconds`."""
        assert self.drift.alarm is not None, "the story waited for it"
        accuracy = {
            "before": self.accuracy("before", "shifted"),
            "shifted": self.accuracy("shifted", "canary"),
            "after": self.accuracy("after", "spoilt"),
        }
        gained, lost = accuracy["after"] - accuracy["shifted"], accuracy["before"] - accuracy["shifted"]
        result = OperateResult(
            **origin.fields(),
            seed=0,
            client_shares_the_cores=True,
            rate_per_s=RATE_PER_S,
            new_share=NEW_SHARE,
            accuracy=accuracy,
            recovered_share=gained / lost,
            alarm=OperateAlarm(
                seconds=self.alarm_s,
                requests=self.alarm_requests,
                sampled_rows=self.drift.alarm.row - self.drift.alarm.since_row,
                event=self.drift.alarm.event,
            ),
            estimate=OperateEstimate(**self.estimate.fields(), truth=self.considered),
            labels=self.labels,
            labels_by="Label Studio" if self.in_studio else "CSV",
            requests=len(self.answers),
            failed=sum(one.label is None for one in self.answers),
            parity=self.parity,
            spoilt_answers=sum(self.heads.get(one.bundle or "") == "spoilt" for one in self.answers),
            marks_s=self.marks_s,
            steps_s=self.steps_s,
            seconds=seconds,
        )
        return result.model_copy(update={"label_studio": self.in_studio}) if self.in_studio else result


def tell(box: Box, scans: Scans) -> Told:
    """Run everything, from the first data to the rollback of the spoilt head."""
    run = box.folder
    first_release(box, scans)
    with ExitStack() as stack:
        stack.enter_context(
            box.serving("stable", run / "repository", box.stable, options=f"--gateway {run}/gateway.yaml")
        )
        stack.enter_context(box.beside("journal", f"journal run {run}/gateway.yaml"))
        box.verb("reference", f"watch reference {run}/gateway.yaml {run}/digits")
        stack.enter_context(box.beside("watch", f"watch run {run}/gateway.yaml"))
        stream = stack.enter_context(_stream(box, shuffled(scans.before, new_share=0, seed=1)))
        story = Story(box, scans, stream)
        story.quiet()
        story.shift()
        story.label()
        story.learn()
        story.try_candidate()
        story.spoil()
        return story.told()


def first_release(box: Box, scans: Scans) -> None:
    """Make a base, a head on it, and the repository of both."""
    run = box.folder
    print(f"{run}/data: {write_data(scans, run / 'data', seed=0)} photographed digits, 0 to 8")
    write_first(run)
    write_head(run / "digits.yaml", data=run / "data")
    write_fleet(run, active="digits", candidate="digits")
    write_gateway(run, box)
    box.verb("train", f"train {run}/network.yaml --out {run}/network")
    box.verb("base", f"base {run}/base.yaml --out {run}/strokes")
    box.verb("head", f"head {run}/digits.yaml --base {run}/strokes --out {run}/digits")
    box.verb("assemble", f"assemble {run}/fleet.yaml --out {run}/repository")
    box.verb("key", f"gateway --new-key {run}/clients.key")


def _stream(box: Box, images: Iterator[tuple[str, bytes]]) -> Stream:
    key = (box.folder / "clients.key").read_text(encoding="utf-8").strip()
    return Stream(f"grpc://127.0.0.1:{box.own.grpc}", model="digits", key=key, rate_per_s=RATE_PER_S, images=images)


class Story:
    """The steps after the first release; each keeps its observations."""

    def __init__(self, box: Box, scans: Scans, stream: Stream) -> None:
        self._box, self._run, self._scans, self._stream = box, box.folder, scans, stream
        self._marks: dict[str, float] = {"before": 0.0}
        self._gateway = f"{box.folder}/gateway.yaml"
        self._labelling = Labelling(box, truth=stream.true_label)
        self._alarm = (0, 0.0)
        self._facts: Facts | None = None
        self._considered = 0.0

    def quiet(self) -> None:
        """Send only digits 0 to 8, and label a few images as on any day."""
        time.sleep(QUIET_S)
        self._labelling.wait()
        self._box.verb("labels of a quiet day", f"labels select {self._gateway} --labels {QUIET_LABELS}")

    def shift(self) -> None:
        """Send nines until the alarm. People label the images of the quiet day meanwhile."""
        self._mark("shifted", f"from now on {NEW_SHARE:.0%} of the images are nines")
        self._stream.images = shuffled(self._scans.before, new_share=NEW_SHARE, seed=2)
        self._answer()
        wait_until(self._alarms, what="the watch alarms")
        seconds = self._stream.now_s - self._marks["shifted"]
        self._alarm = (len(self._stream.since(self._marks["shifted"])), seconds)
        self._mark("alarm", "the watch alarms")
        wait_until(lambda: len(self._stream.since(self._marks["shifted"])) > SHIFTED, what="enough images came")

    def label(self) -> None:
        """Label the images that the watch asks for; the data's own truth answers for the people."""
        self._box.verb("which images are labelled", f"labels select {self._gateway} --labels {LABELS}")
        self._answer()
        time.sleep(LOOK_S)
        line = self._box.verb("what the watch says", f"watch status {self._gateway}")
        self._facts = StatusLine.parse(line, source="slipway watch status").classifiers[0]
        with Store.open(self._run / "journal", make=False, settings_file=self._run / "gateway.yaml") as store:
            rows = store.query("SELECT client_id, label FROM rows JOIN considered ON considered.row = rows.id")
        self._considered = sum(self._stream.true_label(client_id) == label for client_id, label in rows) / len(rows)
        self._mark("labelled", f"{self._labelling.labels} labels")

    def learn(self) -> None:
        """Begin a turn: new data, a head that knows nines, and a candidate's repository. It stops for a person."""
        turn = f"{self._gateway} {self._run}/fleet.yaml digits"
        self._box.verb("reasons to train again", f"turn propose {turn}")
        words = f'turn run {turn} --approved-by "{PERSON}" --accept "300 test images prove little"'
        self._box.verb("new head", words, allowed=(STOPS_FOR_A_PERSON,))

    def try_candidate(self) -> None:
        """Try the new head beside the old one: in the shadow, compared, with half of the requests, and promoted."""
        turn = f"{self._gateway} {self._run}/fleet.yaml digits"
        with self._serving("digits-2"):
            self._box.verb("shadow", f"release mirror {self._gateway} 100")
            time.sleep(SHADOW_S)
            self._compare("digits-2", stable="digits")
            self._box.verb("canary", f"release weight {self._gateway} 50")
            self._mark("canary", "half of the requests go to the new head")
            self._box.verb("verdict", f"turn run {turn}", allowed=(STOPS_FOR_A_PERSON,))
            self._box.verb("promotion", f'release promote {self._gateway} --approved-by "{PERSON}"')
            self._stream.images = shuffled(self._scans.after, new_share=NEW_SHARE, seed=3)
            self._mark("after", "the new head answers images that nobody has labelled")
        self._box.verb("end of the turn", f"turn run {turn}")
        self._box.verb("new reference", f"watch reference {self._gateway} {self._run}/digits-2")
        time.sleep(AFTER_S)

    def spoil(self) -> None:
        """Try a head whose labels were mixed up, as by a shifted column of a data set, and roll it back."""
        self._mark("spoilt", "a head with wrong labels is tried")
        run = self._run
        spoil_data(run / "digits-2/data", run / "spoilt.csv")
        write_head(run / "digits-3.yaml", data=run / "digits-2/data", table=run / "spoilt.csv")
        self._box.verb("spoilt head", f"head {run}/digits-3.yaml --base {run}/strokes --out {run}/digits-3")
        write_fleet(run, active="digits-2", candidate="digits-3")
        self._box.verb("spoilt candidate", f"release candidate {self._gateway} {run}/fleet.yaml")
        with self._serving("digits-3"):
            self._box.verb("canary of the spoilt head", f"release weight {self._gateway} 10")
            self._mark("tenth", "a tenth of the requests go to it")
            self._compare("digits-3", stable="digits-2")
            self._box.verb("judge of the spoilt head", f"release judge {self._gateway}", allowed=(WORSE,))
            self._mark("rolled back", "it has no requests any more")
            time.sleep(SHADOW_S)
        self._mark("end", "the end")

    def told(self) -> Told:
        """Return all that the story observed."""
        watched = self._facts.watched if self._facts else None
        drift, estimate = (watched.drift, watched.accuracy.estimate) if watched else (None, None)
        if drift is None or drift.alarm is None or estimate is None:
            raise SlipwayError("the watch gave no evidence or no estimate: see watch.log")
        requests, seconds = self._alarm
        heads = {"digits": "first", "digits-2": "new", "digits-3": "spoilt"}
        with Store.open(self._run / "journal", make=False, settings_file=self._run / "gateway.yaml") as store:
            parity = dict(store.query("SELECT parity, count(*) FROM rows GROUP BY parity"))
        return Told(
            answers=self._stream.answers[:],
            marks_s=self._marks,
            drift=drift,
            estimate=estimate,
            considered=self._considered,
            alarm_requests=requests,
            alarm_s=seconds,
            labels=self._labelling.labels,
            in_studio=self._labelling.in_studio(),
            parity=parity,
            heads={
                Manifest.open(self._run / one / "bundle", kind="bundle").bundle or "": name
                for one, name in heads.items()
            },
            steps_s=self._box.steps,
        )

    def _serving(self, name: str) -> AbstractContextManager[None]:
        """Serve the candidate beside the block."""
        return self._box.serving(name, self._run / "repository-candidate", self._box.candidate)

    def _compare(self, name: str, *, stable: str) -> None:
        """Ask the candidate for images of the journal; where it differs from the stable head, the truth decides."""
        wait_until(lambda: self._has_rows(stable), what="the journal has images that the stable head answered")
        self._box.verb(f"compare {name}", f"release compare {self._gateway} --images 300 --per-second 60 --ask 30")
        self._answer()

    def _has_rows(self, stable: str) -> bool:
        """Whether the journal, which lags on a busy machine, has come to images that the stable head answered."""
        bundle = Manifest.open(self._run / stable / "bundle", kind="bundle").bundle
        with Store.open(self._run / "journal", make=False, settings_file=self._run / "gateway.yaml") as store:
            ((rows,),) = store.query(
                "SELECT count(*) FROM rows WHERE bundle = ? AND replayed_bundle = bundle", (bundle,)
            )
        return int(rows) >= COMPARED

    def _answer(self) -> None:
        """Label every image that is asked for."""
        self._labelling.answer(new_class=None if "after" in self._marks else NEW)

    def _alarms(self) -> bool:
        return 'slipway_watch_drift_alarm{classifier="digits"} 1.0' in self._box.metrics()

    def _mark(self, name: str, what: str) -> None:
        self._marks[name] = self._stream.now_s
        print(f"\n── {self._stream.now_s:.0f} s: {what}", flush=True)
