"""`slipway turn` from the comparison on: who or what decides on a candidate, its trial, and its promotion."""

import re
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from slipway.cli import turn_release, up
from slipway.cli.turn_status import READY
from slipway.operations.gateway.routes import Traffic, write_routes
from slipway.operations.gateway.settings import read_settings
from slipway.operations.release.judge import ReleaseVerdict
from slipway.operations.release.trial import Judged, Trial
from tests.support import turn_fixtures
from tests.support.scripts import run_here
from tests.support.turn_fixtures import called, waiting
from tests.support.turns import TurnFolder

served, turn = turn_fixtures.served, turn_fixtures.turn


@pytest.fixture
def judged(turn: TurnFolder, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`judged("fine")` lets the candidate's server answer, and its disagreements have this verdict.

    `counts` is the verdict of the counts. Without `is_compared` nothing was compared. `hours` is the age of the trial.
    `rollback=1` lets the judge roll back.
    """
    turn.add_rows()
    run = up.step

    def step(title: str, words: tuple[str, ...]) -> int:
        if words[:2] in (("release", "compare"), ("release", "weight"), ("release", "judge")):
            called.append(" ".join(words[:2]))
            if words[1] == "judge" and codes.get("rollback"):
                Trial.open(turn.folder / "gateway/gateway.yaml").note("rollback", by="judge", traffic=Traffic())
            return codes.get(words[1], 0)
        return run(title, words)

    codes: dict[str, int] = {}

    def judged(
        verdict: str, *, counts: str = "too_few", is_compared: bool = True, hours: float = 0, **exit_codes: int
    ) -> None:
        def with_verdict(trial: Trial) -> Judged:
            found = look(trial)
            *others, last = found.judgement.series
            said = {"verdict": ReleaseVerdict(verdict), "reason": f"it is {verdict}"}
            others = [one.model_copy(update={"verdict": ReleaseVerdict(counts)}) for one in others]
            series = (*others, last.model_copy(update=said)) if is_compared else tuple(others)
            whole = {**said, "series": series, "hours": hours, "expired": verdict == "too_few" and hours >= 24}
            return replace(found, judgement=found.judgement.model_copy(update=whole))

        codes.update(exit_codes)
        monkeypatch.setattr(Trial, "judged", with_verdict)

    look = Trial.judged
    monkeypatch.setattr(turn_release, "answering", lambda *_: {})
    monkeypatch.setattr(up, "step", step)
    return judged


def test_a_candidate_that_lost_by_labels_never_gets_a_request(turn: TurnFolder, judged: Callable[..., None]) -> None:
    judged("worse")
    code, told = turn.run("--approved-by", "A. Lee")
    assert (code, told["record"]["outcome"], told["record"]["reason"]) == (1, "worse", "it is worse")
    assert called[-1] == "release compare"
    fleet = turn.folder / "fleet.yaml"
    fleet.write_text(fleet.read_text().replace("turn: {", "turn: {approval: automatic, "))
    done = turn.done("run", "--approved-by", "A. Lee")
    assert "0 labelled images that the active run does not have, labelled since the turn before" in done.stdout
    turn.add_rows(seed=7, labelled_s=time.time() + 60)
    done = turn.done("run")
    assert "a person approves a turn (the turn before promoted nothing)" in done.stdout
    assert done.returncode == 2


def test_without_a_comparison_no_user_gets_an_answer_of_the_candidate(
    turn: TurnFolder, judged: Callable[..., None]
) -> None:
    judged("too_few")
    done = turn.done("run", "--approved-by", "A. Lee")
    assert (done.returncode, called[-1]) == (2, "release compare")
    collect = "let slipway journal run gateway/gateway.yaml collect "
    found = re.search(
        r"the journal has (\d+) images of shades, \1 of them not compared yet: "
        rf"slipway release compare gateway/gateway.yaml --images \1, and {collect}[1-9]",
        done.stdout,
    )
    assert found is not None, done.stdout
    everything = "INSERT OR IGNORE INTO compared SELECT id, ?, 0, label, 1, 1.0 FROM rows"
    with turn.open() as store:
        store.write(everything, [(turn.new_bundle.id,)])
    decided = f"all {found[1]} images of shades that the journal has are compared: {collect}"
    assert decided in turn.done("run").stdout
    step, waits_for = waiting(turn)
    assert step == "comparison"
    assert decided in waits_for
    turn.add_rows(seed=9)
    assert waiting(turn) == ("comparison", READY), "the next comparison takes the new images"
    with turn.open() as store:
        store.write(everything, [(turn.new_bundle.id,)])
        rows = store.query("SELECT row FROM compared JOIN labels USING (row) ORDER BY row LIMIT 5")
        store.write("UPDATE compared SET label = 'other' WHERE row = ?", rows)
        store.write("DELETE FROM labels WHERE row = ?", rows[2:])
    assert waiting(turn) == ("comparison", READY), "the next comparison asks for three of them"
    with turn.open() as store:
        store.write("INSERT INTO asked VALUES (?, 'differs', 1.0)", rows)
    step, waits_for = waiting(turn)
    assert (
        "a person: people label what the versions differ in (2 of 5 labels given): slipway labels push "
        "gateway/gateway.yaml --classifier shades, later slipway labels pull " in waits_for
    )
    judged("too_few", is_compared=False)
    done = turn.done("run")
    assert "nothing was compared: " in done.stdout
    assert (done.returncode, called[-1]) == (2, "release compare")
    judged("worse", is_compared=False)
    assert turn.run()[1]["record"]["outcome"] == "worse", "by the counts of its copies"
    assert "release weight" not in called


def test_a_fine_candidate_is_tried_and_a_person_promotes_it(turn: TurnFolder, judged: Callable[..., None]) -> None:
    judged("fine")
    done = turn.done("run", "--approved-by", "A. Lee")
    assert done.returncode == 2
    assert called[-3:] == ["release compare", "release weight", "release judge"]
    assert "a person promotes it: slipway release promote gateway/gateway.yaml --approved-by NAME" in done.stdout
    judged("fine", judge=1)
    code, told = turn.run()
    assert (code, told["record"]["outcome"]) == (1, None), "a verb that fails does not decide the turn"
    judged("fine", judge=1, rollback=1)
    code, told = turn.run()
    assert (code, told["record"]["outcome"]) == (1, "worse")


def test_the_status_of_a_trial_says_who_or_what_decides(turn: TurnFolder, judged: Callable[..., None]) -> None:
    judged("fine")
    turn.done("run", "--approved-by", "A. Lee")
    gateway = turn.folder / "gateway/gateway.yaml"
    assert waiting(turn) == ("comparison", READY), "nobody has given it a weight"
    write_routes(read_settings(gateway), Traffic(weight_percent=5))
    promote = "a person promotes it: slipway release promote gateway/gateway.yaml --approved-by NAME"
    assert waiting(turn) == ("verdict", f"a person: the candidate is fine, and {promote}")
    judged("too_few")
    judging = "while turn run judges: it is too_few"
    assert waiting(turn) == ("verdict", f"traffic, and labels or compared images, {judging}")
    judged("too_few", counts="fine")
    assert waiting(turn) == ("verdict", f"labels or compared images, {judging}")
    end = "end the trial: slipway release rollback gateway/gateway.yaml"
    judged("too_few", hours=24)
    assert waiting(turn) == ("verdict", f"a person: it is too_few; {end}")
    judged("worse")
    assert waiting(turn) == ("verdict", f"{READY}: it is worse")
    record = Trial.open(gateway).record
    by_hand = record.settings.model_copy(update={"approval": "automatic", "rollback": "human"})
    record.model_copy(update={"settings": by_hand}).keep()
    assert waiting(turn) == ("verdict", f"a person: it is worse; {end}")
    judged("fine")
    assert waiting(turn) == ("verdict", f"{READY}: it is fine")
    judged("fine", hours=24)
    assert waiting(turn) == ("verdict", f"a person: the candidate is fine, and {promote}"), "too late for the judge"


def test_a_candidate_that_somebody_took_back_gets_requests_by_a_person_alone(
    turn: TurnFolder, judged: Callable[..., None]
) -> None:
    judged("fine", weight=1)
    assert turn.done("run", "--approved-by", "A. Lee").returncode == 1
    run_here("release", "rollback", "gateway/gateway.yaml", "--reason", "smoke", cwd=turn.folder, check=False)
    called.clear()
    done = turn.done("run")
    assert done.returncode == 2
    assert "rolled the candidate back at" in done.stdout
    assert "smoke" in done.stdout
    assert "release weight" not in called
