"""A turn without training: reasons, the fleet file, the old test split, and who may begin one."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from slipway.cli.turn_fleet import make_active, name_candidate
from slipway.cli.turn_release import server_stages
from slipway.contract import Fleet, ServingError, SpecError
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.turn import FleetTurn
from slipway.operations.gateway.settings import ServerPorts
from slipway.operations.journal.store import sha256_of
from slipway.operations.release.lock import only_operator
from slipway.operations.turn.proposal import (
    Proposal,
    TriggerEvidence,
    calendar,
    drift,
    lost_accuracy,
    new_labels,
    watched_of,
)
from slipway.operations.turn.record import LOCK, TurnRecord, read_turn, turn_folder
from slipway.operations.turn.waiting import waits_for_a_person
from slipway.serving import Ports
from slipway.system.yaml_edit import with_value
from tests.support.journal_rows import add_rows, journal_in, made_row
from tests.support.watch_rows import watch_settings

BOX = Path("team box.yaml")
FLEET = """\
# Our fleet. Ask A. Lee before changing it.
classifiers:
  digits:
    active: runs/digits   # in service since May
  parity: {active: 'runs/parity'}
bases:
  lite0:
    base: runs/lite0
    heads: {pets: runs/pets, "cars": runs/cars}
"""


def test_a_damaged_record_of_a_turn_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "turn.json").write_text("")
    with pytest.raises(SpecError, match=r"turn\.json away, and a new turn may begin"):
        read_turn(tmp_path)


def test_a_person_is_waited_for_by_a_new_proposal_and_by_an_open_turn_that_nobody_works_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    settings = watch_settings(tmp_path / "journal")
    folder = turn_folder(settings.journal, "digits")

    def waits() -> bool:
        return waits_for_a_person(settings, "digits")

    def propose(time: str, *, is_reason: bool = True) -> Proposal:
        evidence = TriggerEvidence(trigger="calendar", is_reason=is_reason, said="91 days old")
        proposal = Proposal(classifier="digits", bundle="b" * 64, time=f"2026-01-{time}+00:00", evidence=(evidence,))
        proposal.keep(folder)
        return proposal

    assert not waits()
    propose("01T04:00:00", is_reason=False)
    assert not waits()
    proposal = propose("02T04:00:00")
    assert waits()
    opened = "2026-01-02T09:00:00+00:00"
    names = {"classifier": "digits", "old_run": "runs/digits", "run": "runs/digits-2"}
    turn = TurnRecord(opened=opened, approved_by="ann", proposal=proposal, **names)
    turn.keep(folder)
    assert waits(), "the turn is open, and nobody works on it"
    with only_operator(settings.folder, "turn of digits", file=LOCK):
        assert not waits()
    propose("03T04:00:00")
    turn.end("worse").model_copy(update={"ended": "2026-01-03T09:00:00+00:00"}).keep(folder)
    assert not waits(), "the proposal of a day on which the turn was open is over with it"
    propose("04T04:00:00")
    assert waits()
    (folder / "turn.json").write_text("{")
    assert waits(), "a damaged file is one that a person mends"


def written(tmp_path: Path, text: str = FLEET) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    return path


def test_the_candidate_is_added_and_every_other_line_stays(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert name_candidate(path, "digits", "runs/digits-2")
    assert path.read_text() == f"{FLEET}release:\n  candidate:\n    digits: runs/digits-2\n"
    assert not name_candidate(path, "digits", "runs/digits-2")
    assert name_candidate(path, "digits", "runs/digits-3")
    assert path.read_text() == f"{FLEET}release:\n  candidate:\n    digits: runs/digits-3\n"


def test_the_settings_of_a_release_stay_when_its_candidate_changes(tmp_path: Path) -> None:
    release = "release: {candidate: {digits: runs/digits-2}, weight: 5}  # carefully\n"
    path = written(tmp_path, FLEET + release)
    name_candidate(path, "digits", "runs/digits,3")
    assert path.read_text() == FLEET + release.replace("runs/digits-2", "'runs/digits,3'")
    assert Fleet.read(path).release.candidate == {"digits": "runs/digits,3"}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "{classifiers: {digits: {active: runs/digits}}}\n",
        FLEET + "release: {candidate: {parity: runs/parity-2}}\n",
        "classifiers: {digits: {active: &run runs/digits}}\nrelease: {candidate: {digits: *run}}\n",
    ],
)
def test_what_cannot_be_changed_safely_stays_and_the_lines_to_write_are_said(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(
        SpecError, match=r"cannot be changed safely; write this .*\n.*\n +candidate:\n +digits: runs/new"
    ):
        name_candidate(path, "digits", "runs/new")
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("keys", "before"),
    [
        (("classifiers", "digits", "active"), "runs/digits "),
        (("classifiers", "parity", "active"), "'runs/parity'"),
        (("bases", "lite0", "heads", "cars"), "runs/cars"),
    ],
)
def test_a_run_is_made_active_wherever_it_stands(keys: Sequence[str], before: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    path.chmod(0o640)
    assert make_active(path, keys, "runs/new")
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_text() == FLEET.replace(before, before.replace(before.strip(), "runs/new"), 1)
    assert not make_active(path, keys, "runs/new")


def test_a_value_is_text_whatever_it_looks_like() -> None:
    for value in ("1.5", "true", "a: b", "x]", "it's", "#5", "runs/ü"):
        changed = with_value("a: {b: c}  # d\n", ("a", "b"), value, source="test")
        assert changed is not None
        assert changed.endswith("}  # d\n")


def dataset(*images: bytes) -> Dataset:
    listed = [
        LabelledImage(path=str(n), class_ids=(0,), sha256=sha256_of(i), split="test") for n, i in enumerate(images)
    ]
    return Dataset(root="", labels=("zero", "one"), images=tuple(listed))


def test_labelled_images_that_the_active_run_lacks_are_a_reason_from_a_number_on(tmp_path: Path) -> None:
    images = [str(number).encode() for number in range(4)]
    with journal_in(tmp_path, make=True) as store:
        made = [made_row(f"{n}", sha256=sha256_of(image)) for n, image in enumerate([*images, images[3]])]
        rows = add_rows(store, made, images=images)
        said = [(row, "ann", label) for row, label in zip(rows, ("zero", "one", "two", "two", "two"), strict=True)]
        store.write("INSERT INTO labels VALUES (?, ?, ?, 1.0)", said)
        found = new_labels(store, "digits", dataset(images[0]), FleetTurn(new_labels=3))
        assert found.is_reason
        assert found.said.startswith("3 labelled images")
        assert "with new classes: two" in found.said
        assert not new_labels(store, "digits", dataset(images[0]), FleetTurn(new_labels=4)).is_reason
        store.write("UPDATE labels SET labelled_s = 5.0 WHERE row = ?", [(rows[1],)])
        after = new_labels(store, "digits", dataset(images[0]), FleetTurn(new_labels=3), since_s=2.0)
        assert after.said.startswith("1 labelled images")
        assert not after.is_reason
        assert "not looked at" in new_labels(store, "digits", dataset(), FleetTurn(new_labels=None)).said


def test_the_age_of_a_run_is_a_reason_from_a_number_of_days_on() -> None:
    now = datetime(2026, 11, 30, tzinfo=UTC)
    made = (now - timedelta(days=91)).isoformat()
    assert calendar(made, FleetTurn(), now=now).is_reason
    assert not calendar(made, FleetTurn(every_days=92), now=now).is_reason
    assert not calendar(made, FleetTurn(every_days=None), now=now).is_reason
    assert not calendar(None, FleetTurn(), now=now).is_reason
    ahead = calendar((now + timedelta(days=2)).isoformat(), FleetTurn(), now=now)
    assert not ahead.is_reason
    assert "which is yet to come; look at the clocks" in ahead.said


class Facts:
    """What the watch knows, as far as a proposal looks at it."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


def watched(*, alarm: bool, unknown: int, lost: bool = False, recalls: Sequence[str] = ()) -> Any:
    counted = [
        Facts(class_id=-1, latest_rows=unknown, reference_rows=2),
        Facts(class_id=0, latest_rows=100 - unknown, reference_rows=98),
    ]
    estimate = Facts(value=0.82, low=0.78, high=0.86, labels=175)
    return Facts(
        drift=Facts(alarm=Facts(event="distance over 0.62", since_row=98) if alarm else None),
        predicted=counted,
        accuracy=Facts(estimate=estimate, reference=0.992, points=2.0, alarm=lost),
        recalls=[Facts(label=label, alarm=True) for label in recalls],
    )


@pytest.mark.parametrize(("alarm", "unknown", "is_reason"), [(True, 9, True), (True, 4, False), (False, 40, False)])
def test_drift_is_a_reason_only_with_more_unknown_answers(alarm: bool, unknown: int, is_reason: bool) -> None:
    found = drift(watched(alarm=alarm, unknown=unknown), FleetTurn(), missing="")
    assert found.is_reason is is_reason
    assert "2.0% on the test split" in found.said
    never = drift(watched(alarm=alarm, unknown=unknown), FleetTurn(), missing="", has_unknown=False)
    assert not never.is_reason
    assert "the classifier never answers unknown" in never.said


def test_a_proved_loss_of_accuracy_or_of_a_class_is_a_reason() -> None:
    assert not lost_accuracy(watched(alarm=True, unknown=0), FleetTurn(), missing="").is_reason
    assert (
        "82.0% (78.0% to 86.0%) by 175"
        in lost_accuracy(watched(alarm=True, unknown=0, lost=True), FleetTurn(), missing="").said
    )
    assert lost_accuracy(watched(alarm=True, unknown=0, lost=True), FleetTurn(), missing="").is_reason
    found = lost_accuracy(watched(alarm=False, unknown=0, recalls=["seven"]), FleetTurn(), missing="")
    assert found.is_reason
    assert "seven" in found.said
    assert not lost_accuracy(None, FleetTurn(), missing="not watched").is_reason


def test_the_watch_of_another_bundle_is_no_evidence() -> None:
    assert watched_of(None, bundle="a" * 64, settings_file=BOX) == (
        None,
        "not watched (watch: in team box.yaml, slipway watch run 'team box.yaml')",
    )
    other: Any = Facts(bundle="b" * 64, watched=1)
    assert watched_of(other, bundle="a" * 64, settings_file=BOX)[0] is None
    assert watched_of(other, bundle="b" * 64, settings_file=BOX)[0] == 1
    bare: Any = Facts(bundle="b" * 64, watched=None, classifier="digits")
    assert watched_of(bare, bundle="b" * 64, settings_file=BOX) == (
        None,
        "no reference; with the run that made the bundle: slipway watch reference 'team box.yaml' RUN "
        "--classifier digits",
    )


def test_drift_that_is_not_watched_yet_is_said_with_the_verb_that_says_why() -> None:
    undrifted: Any = Facts(bundle="b" * 64, watched=Facts(drift=None))
    found, missing = watched_of(undrifted, bundle="b" * 64, settings_file=BOX)
    said = drift(found, FleetTurn(), missing=missing).said
    assert said == "not watched yet; slipway watch status 'team box.yaml' says why"


def test_a_candidate_s_server_that_ends_is_told_at_once(tmp_path: Path) -> None:
    ports = Ports.free()
    given = ServerPorts(grpc=ports.grpc, http=ports.http, status=ports.status)
    trial: Any = Facts(record=Facts(candidate=Facts(bundles={"digits": "a" * 64}, path=str(tmp_path / "nowhere"))))
    with pytest.raises(ServingError, match=r"the candidate's server ended; .*candidate\.log says why"):
        list(server_stages(trial, given, serve=True, run=tmp_path))
    assert "nowhere" in (tmp_path / "candidate.log").read_text()
    assert (tmp_path / "candidate.pid").read_text().strip().isdecimal()


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"new_label": 5}, "turn.new_label: unknown key; the valid keys here are"),
        ({"every_days": 0}, "turn.every_days: "),
        ({"approval": "nobody"}, "turn.approval: "),
    ],
)
def test_wrong_settings_are_named(turn: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Fleet.parse({"classifiers": {"a": {"active": "runs/a"}}, "turn": turn}, source="fleet.yaml")
