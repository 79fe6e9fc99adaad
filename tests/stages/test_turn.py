"""`slipway turn` for a head: new data with a new class, a new run, the old test split, and a candidate's repository."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from slipway.cli import turn_build, up
from slipway.cli.turn_status import READY
from slipway.contract import Fleet, Lane
from slipway.contract.evidence.gate import OldTest
from slipway.engines.old_test_split import compare_on_old_test, open_run
from slipway.operations.gateway.settings import read_settings
from slipway.operations.release.lock import only_operator
from slipway.operations.release.record import read_record
from slipway.operations.release.trial import Trial
from slipway.operations.turn.proposal import Proposal
from slipway.training.data.grow_dataset import Grown
from tests.support import turn_fixtures
from tests.support.scripts import refused
from tests.support.shades import INT8
from tests.support.turn_fixtures import called, waiting
from tests.support.turns import FLEET, FOREIGN, TurnFolder

served, turn = turn_fixtures.served, turn_fixtures.turn


def test_without_a_reason_or_an_approval_nothing_is_trained(turn: TurnFolder) -> None:
    turn.add_rows(known=3, foreign=0)
    code, told = turn.run(action="propose")
    assert (code, told["reasons"]) == (2, 0)
    assert turn.done("run", "--approved-by", "A. Lee").returncode == 2
    done = turn.done("run", "--reason", "a drill")
    assert "--reason TEXT needs --approved-by NAME" in done.stderr
    turn.add_rows(seed=6)
    code, told = turn.run(action="propose")
    assert code == 0
    (reason,) = [one for one in told["evidence"] if one["is_reason"]]
    assert reason["trigger"] == "new labels"
    assert f"with new classes: {FOREIGN[0]}" in reason["said"]
    assert Proposal.read(turn.folder / "gateway/journal/turn/shades/proposal.json").plain() | {"reasons": 1} == told
    done = turn.done("run")
    assert done.returncode == 2
    assert "a person approves a turn (turn.approval: human): give --approved-by NAME" in done.stdout
    assert called == []
    assert turn.run(action="status")[1]["record"] is None


def test_a_turn_makes_a_candidate_with_the_new_class_last_and_stops_where_a_person_is_needed(turn: TurnFolder) -> None:
    turn.add_rows()
    done = turn.done("run", "--approved-by", "A. Lee")
    assert done.returncode == 2, done.stdout + done.stderr
    assert called == ["labels dataset", "head", "turn gate", "release candidate"]
    assert "start the candidate's server, or give --serve: slipway serve" in done.stdout
    assert "then: slipway turn run gateway/gateway.yaml fleet.yaml shades" in done.stdout
    grown = Grown.read(turn.folder / "runs/shades-2/data/grown.json")
    assert grown.new_classes == (FOREIGN[0],)
    assert turn.new_bundle.labels == (*turn.bundle.labels, FOREIGN[0])
    assert (turn.folder / "fleet.yaml").read_text() == f"{FLEET}release:\n  candidate:\n    shades: runs/shades-2\n"
    release = read_record(turn.folder / "cpu", gateway=turn.folder / "gateway/gateway.yaml")
    assert release is not None
    assert release.candidate.bundles == {"shades": turn.new_bundle.id}
    assert Lane.read(turn.folder / "cpu/lane.json").classifiers == {"shades": turn.bundle.id}
    step, waits_for = waiting(turn)
    assert step == "candidate's server"
    assert waits_for.startswith("a person: start the candidate's server, or give --serve: slipway serve ")
    record = turn.run(action="status")[1]["record"]
    assert (record["approved_by"], record["old_run"], record["run"], record["outcome"]) == (
        *("A. Lee", "runs/shades", "runs/shades-2"),
        None,
    )
    called.clear()
    again = turn.done("run")
    assert again.returncode == 2
    assert called == ["head"], "the verb head finds by itself that all is current"
    assert "✓ new data: current" in again.stdout
    assert "✓ old test split: current" in again.stdout
    assert "✓ candidate: current" in again.stdout
    (turn.folder / "fleet.yaml").write_text(FLEET.replace("runs/shades", "runs/shades-2"))
    assert "make the run active that is served" in turn.done("run").stderr, "the fleet file alone promotes nothing"
    step, waits_for = waiting(turn)
    assert step == "end"
    assert waits_for.startswith("a person: fleet.yaml: shades: the active run runs/shades-2 is bundle ")


@pytest.mark.parametrize(
    "stages",
    [
        ("turn gate",),
        pytest.param(("labels dataset", "head", "turn gate", "release candidate"), marks=pytest.mark.nightly),
    ],
)
def test_a_turn_that_is_ended_after_each_stage_goes_on_with_the_next(
    turn: TurnFolder, monkeypatch: pytest.MonkeyPatch, stages: tuple[str, ...]
) -> None:
    turn.add_rows()
    run = up.step
    for last in stages:
        called.clear()

        def step(title: str, words: tuple[str, ...], last: str = last) -> int:
            code = run(title, words)
            if called[-1] == last:
                raise KeyboardInterrupt
            return code

        monkeypatch.setattr(up, "step", step)
        assert turn.done("run", "--approved-by", "A. Lee").returncode == 130
        if len(stages) > 1:
            assert [one for one in called if one != "head"] in ([last], []), "what is current is not repeated"
    monkeypatch.setattr(up, "step", run)
    called.clear()
    if len(stages) == 1:
        assert waiting(turn) == ("candidate", READY)
        folder = read_settings(turn.folder / "gateway/gateway.yaml").folder
        with only_operator(folder, "turn of cats", file="turn.lock"):
            step, waits_for = waiting(turn)
        assert step == "candidate"
        assert re.match(r"a run that is at work: .* \(turn of cats\) since 20.*, in process \d+$", waits_for)
    assert turn.done("run").returncode == 2
    assert "labels dataset" not in called
    assert len([*(turn.folder / "runs").iterdir()]) == 2, "one new run, whoever calls it"


def test_status_says_what_a_person_mends_and_what_ends_a_turn_after_the_promotion(turn: TurnFolder) -> None:
    turn.add_rows()
    turn.done("run", "--approved-by", "A. Lee")
    gateway = turn.folder / "gateway/gateway.yaml"
    release = Trial.open(gateway).record
    settings = yaml.safe_load(gateway.read_text())
    del settings["candidate"]
    gateway.write_text(yaml.safe_dump(settings))
    step, waits_for = waiting(turn)
    assert step == "candidate's server"
    assert waits_for.startswith("a person: gateway/gateway.yaml: candidate: not given; write the ports")
    shutil.rmtree(turn.folder / "cpu")
    shutil.copytree(release.candidate.path, turn.folder / "cpu")
    assert waiting(turn) == ("end", f"{READY}, which makes runs/shades-2 active in fleet.yaml")
    (turn.folder / "fleet.yaml").write_text(FLEET.replace("runs/shades", "runs/shades-2"))
    assert waiting(turn) == ("end", f"{READY}, which ends the turn")
    code, told = turn.run()
    assert (code, told["record"]["outcome"]) == (0, "promoted")


def test_two_turns_at_once_are_refused(turn: TurnFolder) -> None:
    turn.add_rows()
    folder = read_settings(turn.folder / "gateway/gateway.yaml").folder
    with only_operator(folder, "turn of cats", file="turn.lock"):
        done = turn.done("run", "--approved-by", "A. Lee")
    assert done.returncode == 1
    assert "changes this release (turn of cats) since" in done.stderr
    assert called == []


def test_without_a_turn_there_is_none_to_end(turn: TurnFolder) -> None:
    done = turn.done("end", "--reason", "the labels were wrong")
    assert done.returncode == 1
    begin = "slipway turn run gateway/gateway.yaml fleet.yaml shades"
    assert f"no turn is open, so none can end; begin one with {begin}" in done.stderr


@pytest.mark.nightly
def test_a_turn_that_is_given_up_leaves_its_run_and_the_next_one_takes_another_name(turn: TurnFolder) -> None:
    turn.add_rows()
    turn.done("run", "--approved-by", "A. Lee")
    code, told = turn.run("--reason", "the labels were wrong", action="end")
    assert (code, told["outcome"]) == (0, "ended")
    assert turn.done("end", "--reason", "again").returncode == 1
    _, told = turn.run("--approved-by", "B. Lee")
    assert told["record"]["run"] == "runs/shades-3"
    fleet = Fleet.read(turn.folder / "fleet.yaml")
    assert fleet.release is not None
    assert fleet.release.candidate == {"shades": "runs/shades-3"}
    assert len([*(turn.folder / "gateway/journal/turn/shades").glob("turn-*.json")]) == 1


@pytest.mark.nightly
def test_a_stage_that_fails_says_how_the_turn_is_given_up(turn: TurnFolder) -> None:
    turn.add_rows()
    turn.done("run", "--approved-by", "A. Lee")
    spec = turn.folder / "runs/shades-2/spec.yaml"
    spec.write_text(spec.read_text().replace("max_loss_points: 40.0", "max_loss_points: 0.5"))
    called.clear()
    done = turn.done("run")
    assert called == ["head"], "the engine's own gate has too few images"
    assert done.returncode == 1
    assert "or give the turn up: slipway turn end gateway/gateway.yaml fleet.yaml shades --reason TEXT" in done.stdout


def test_a_loss_on_the_old_test_split_ends_in_words(turn: TurnFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    turn.add_rows()
    found: list[OldTest] = []

    def read(path: Path) -> OldTest:
        result = OldTest.parse(turn_build_read(path).plain(), source="test")
        overall = result.overall.model_copy(update={"verdict": verdict})
        found.append(result)
        return result.model_copy(update={"overall": overall, "engine_sha256": engine or result.engine_sha256})

    turn_build_read, why_gate = OldTest.read, turn_build.why_gate
    monkeypatch.setattr(turn_build.OldTest, "read", read)
    verdict, engine = "too few images to tell", ""
    monkeypatch.setattr(turn_build, "why_gate", lambda *_: None if engine else why_gate(*_))
    done = turn.done("run", "--approved-by", "A. Lee")
    assert done.returncode == 2
    assert "too few images to prove that runs/shades-2 loses nothing" in done.stdout
    assert "slipway turn run gateway/gateway.yaml fleet.yaml shades --accept REASON" in done.stdout
    assert "release candidate" not in called
    step, waits_for = waiting(turn)
    assert step == "old test split"
    assert "slipway turn run gateway/gateway.yaml fleet.yaml shades --accept REASON" in waits_for
    assert turn.done("run", "--accept", "a drill").returncode == 2
    assert called[-1] == "release candidate"
    accepted = turn.run(action="status")[1]["record"]["accepted"]
    assert (accepted["reason"], accepted["engine_sha256"]) == ("a drill", found[0].engine_sha256)
    engine = "f" * 64
    done = turn.done("run")
    assert "too few images to prove that runs/shades-2 loses nothing" in done.stdout, "it was for one engine alone"
    verdict = "fail"
    done = turn.done("run")
    assert done.returncode == 1
    assert "runs/shades-2 loses on the old test split" in done.stderr
    assert found[0].overall.images == 14


def test_the_old_test_split_is_compared_image_by_image(turn: TurnFolder) -> None:
    turn.add_rows()
    turn.done("run", "--approved-by", "A. Lee")
    old, new = (open_run(turn.folder / run, INT8) for run in ("runs/shades", "runs/shades-2"))
    same = compare_on_old_test(old, old)
    assert (same.overall.lost, same.overall.gained, same.verdict) == (0, 0, "pass")
    found = compare_on_old_test(old, new)
    assert found.overall.images == same.overall.images
    assert found.classes.keys() == set(old.bundle.labels), "the old classes alone"
    assert "its labels do not begin with those of" in refused(
        "turn", "gate", "runs/shades-2", "runs/shades", "--engine", INT8, cwd=turn.folder
    )


@pytest.mark.parametrize(
    ("fleet", "said"),
    [
        (FLEET.replace("{shades: runs/shades}", '"runs/*"'), "heads that a pattern finds cannot be tried"),
        (FLEET + "lane: gpu\n", "a turn builds for the cpu lane"),
        (FLEET.replace("shades: runs/shades", "shades: runs/shades, other: runs/other"), ""),
    ],
)
def test_what_a_turn_cannot_be_made_for_is_named(turn: TurnFolder, fleet: str, said: str) -> None:
    turn.add_rows()
    (turn.folder / "fleet.yaml").write_text(fleet)
    done = turn.done("propose")
    assert said in done.stderr
    assert bool(said) is (done.returncode == 1)


@pytest.mark.nightly
def test_a_run_that_is_not_served_is_refused(turn: TurnFolder) -> None:
    turn.add_rows()
    turn.done("run", "--approved-by", "A. Lee")
    (turn.folder / "fleet.yaml").write_text(FLEET.replace("runs/shades", "runs/shades-2"))
    done = turn.done("propose")
    assert "make the run active that is served" in done.stderr
