"""A release without a running gateway: operators, candidates, rollback and promotion, and what is refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import Fleet, Lane, ServingError, SpecError
from slipway.operations.gateway.routes import Traffic, read_traffic, write_routes
from slipway.operations.gateway.settings import read_settings
from slipway.operations.release.compatibility import _check_class_ids, check_candidate
from slipway.operations.release.lock import LOCK, holder_of, only_operator
from slipway.operations.release.promotion import Approval, former_repository, promote, replace_repository
from slipway.operations.release.record import read_record, record_path
from slipway.operations.release.trial import Trial
from slipway.repository import open_fleet, plan_repository
from slipway.system.text import command
from slipway.system.yaml_json import dump_yaml
from tests.support.colours import replaced
from tests.support.releases import ReleaseFolder, colours_run, tempered

BOTH = {"colours", "colours_full"}


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReleaseFolder:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return ReleaseFolder(tmp_path, new=tempered(2.0))


def test_two_operators_at_once_are_refused_with_the_first_one_s_name(tmp_path: Path) -> None:
    said = r"changes this release \(promote\) since 20.*, in process \d+"
    with only_operator(tmp_path, "promote"), pytest.raises(SpecError, match=said), only_operator(tmp_path, "weight"):
        pass
    with only_operator(tmp_path, "weight"):
        pass


def test_who_holds_a_lock_is_said_and_a_killed_process_does_not(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    with only_operator(tmp_path, "promote"):
        words = (tmp_path / LOCK).read_bytes()
        assert "changes this release (promote) since 20" in (holder_of(tmp_path) or "")
    assert holder_of(tmp_path) is None
    (tmp_path / LOCK).write_bytes(words)
    assert holder_of(tmp_path) is None, "as after a kill, while another process has its number"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"candidate": {"shapes": "runs/new"}}, "release.candidate names shapes; the classifiers are colours"),
        ({"candidate": {}}, "release.candidate: "),
        ({"candidate": {"colours": "runs/new"}, "wieght": 5}, "release.wieght: unknown key; the valid keys here are"),
        ({"candidate": {"colours": "runs/new"}, "weight": 101}, "release.weight: "),
        ({"candidate": {"colours": "runs/new"}, "approval": "nobody"}, "release.approval: "),
        ({"candidate": {"colours": "runs/new"}, "judge": {"error_ratio": 3}}, "error_ratio must be smaller"),
    ],
)
def test_a_wrong_release_is_refused_with_its_key(given: dict[str, Any], message: str) -> None:
    data = {"classifiers": {"colours": {"active": "runs/old"}}, "release": given}
    with pytest.raises(SpecError, match=message):
        Fleet.parse(data, source="fleet.yaml")


def test_the_candidate_s_fleet_has_its_run_active_and_else_the_same() -> None:
    classifiers = {"a": {"active": "runs/a", "keep": ["runs/a0"]}, "b": {"active": "runs/b"}}
    bases = {"base": {"base": "runs/base", "heads": {"c": "heads/c", "d": "heads/d"}}}
    given = {"classifiers": classifiers, "bases": bases}
    fleet = Fleet.parse({**given, "release": {"candidate": {"a": "runs/a2", "d": "heads/d2"}}}, source="test")
    classifiers["a"]["active"] = "runs/a2"
    bases["base"]["heads"]["d"] = "heads/d2"  # type: ignore[index]
    assert fleet.with_candidate() == Fleet.parse(given, source="test")
    with pytest.raises(SpecError, match="has no release:"):
        fleet.with_candidate().with_candidate()


def test_a_candidate_is_written_beside_the_stable_repository_and_recorded(release: ReleaseFolder) -> None:
    release.open_release()
    assert Lane.read(release.stable / "lane.json").classifiers == {"colours": release.old.id}
    assert Lane.read(release.candidate / "lane.json").classifiers == {"colours": release.new.id}
    record = read_record(release.stable, gateway=release.gateway)
    assert record is not None
    assert record.models == BOTH
    assert not record.is_promoted
    assert json.loads(record_path(release.stable).read_text())["classifiers"] == ["colours"]
    release.open_release()
    assert len([*release.folder.glob("cpu.release-*.json")]) == 1, "the record before is kept"


def test_what_stable_serves_already_is_not_a_candidate(release: ReleaseFolder) -> None:
    release.write_fleet(candidate={"colours": "runs/old"})
    with pytest.raises(SpecError, match="serves these runs already"):
        release.open_release()
    assert read_record(release.stable, gateway=release.gateway) is None


def test_a_candidate_with_other_class_ids_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def rename(part: Path) -> None:
        if (part / "labels.txt").exists():  # a bundle, and not its engine
            replaced("labels.txt", b"blue", b"azure")(part)

    renamed = ReleaseFolder(tmp_path, new=rename)
    with pytest.raises(SpecError, match="colours: class id 0 is 'blue' and would become 'azure'"):
        renamed.open_release()
    assert read_record(renamed.stable, gateway=renamed.gateway) is None


def test_a_candidate_from_whose_data_a_class_has_disappeared_is_refused(tmp_path: Path) -> None:
    for version, labels in (("stable", "blue\ngreen\nred\n"), ("candidate", "blue\ngreen\n")):
        (tmp_path / version / "colours_full").mkdir(parents=True)
        (tmp_path / version / "colours_full/labels.txt").write_text(labels)
    with pytest.raises(SpecError, match="the candidate has 2 classes and the stable version 3; red would no longer be"):
        _check_class_ids("colours", tmp_path / "stable", tmp_path / "candidate")


def test_what_else_differs_from_stable_is_refused(release: ReleaseFolder) -> None:
    release.open_release()
    with pytest.raises(SpecError, match=r"colours differ from .* and are not in release.candidate"):
        check_candidate(release.stable, release.candidate, tried=())
    lane = Lane.read(release.candidate / "lane.json")
    lane.model_copy(update={"classifiers": {"shapes": release.new.id}}).write(release.candidate / "lane.json")
    with pytest.raises(SpecError, match=r"serves shapes, shapes_full, which .* does not"):
        check_candidate(release.stable, release.candidate, tried=("colours",))
    lane.model_copy(update={"lane": "gpu"}).write(release.candidate / "lane.json")
    with pytest.raises(SpecError, match="of the gpu lane, and"):
        check_candidate(release.stable, release.candidate, tried=("colours",))


def test_another_candidate_waits_until_the_present_one_has_no_requests(release: ReleaseFolder) -> None:
    write_routes(read_settings(release.gateway), Traffic(weight_percent=5))
    with pytest.raises(SpecError, match="a candidate has requests now"):
        release.open_release()


@pytest.mark.parametrize("action", ["status", "weight", "mirror", "judge", "promote", "rollback"])
def test_without_an_open_release_every_action_says_how_to_open_one(release: ReleaseFolder, action: str) -> None:
    with pytest.raises(SpecError, match="no release is open; name the candidate in the fleet file"):
        release(action)


def test_on_a_restored_box_each_verb_says_that_the_trial_begins_again(release: ReleaseFolder) -> None:
    release.open_release()
    (release.candidate / "lane.json").unlink()  # half of a folder is none
    rollback = re.escape(command("slipway release rollback", release.gateway))
    again = re.escape(command("slipway release candidate", release.gateway, release.fleet))
    said = f"cpu-candidate: the candidate's repository is gone, .*: {rollback}; then .*: {again}"
    for words in (["status"], ["judge"], ["promote", "--approved-by", "A. Lee"]):
        with pytest.raises(SpecError, match=said):
            release(*words)
    shutil.rmtree(release.candidate)
    with pytest.raises(SpecError, match=said):
        release("judge")
    record = record_path(release.stable)
    record.write_text(record.read_text().replace(str(release.stable), "/elsewhere/cpu"))
    for words in (["status"], ["judge"], ["weight", "0"], ["promote", "--approved-by", "A. Lee"], ["rollback"]):
        with pytest.raises(SpecError, match=r"cpu\.release\.json: a record of /elsewhere/cpu, from another box"):
            release(*words)
    release.open_release()
    opened = read_record(release.stable, gateway=release.gateway)
    assert opened is not None
    assert opened.stable.path == str(release.stable)
    assert len(list(release.folder.glob("cpu.release-*.json"))) == 1


def test_a_gateway_that_does_not_answer_is_said_and_rollback_is_written_for_its_next_start(
    release: ReleaseFolder,
) -> None:
    release.open_release()
    gateway = read_settings(release.gateway)
    for words in (["status"], ["weight", "0"], ["judge"], ["promote", "--approved-by", "A. Lee"]):
        with pytest.raises(ServingError, match=r"does not answer.*; is the gateway running"):
            release(*words)
    write_routes(gateway, Traffic(weight_percent=5))
    with pytest.raises(ServingError, match="weight 0 is written, and in force once the gateway answers again"):
        release("rollback")
    assert read_traffic(gateway) == Traffic()
    record = read_record(release.stable, gateway=release.gateway)
    assert record is not None
    assert [action.action for action in record.actions] == ["rollback"]


@pytest.mark.parametrize("damaged", [False, True])
def test_the_status_shows_the_record_and_the_weight_on_file_while_the_gateway_is_silent(
    release: ReleaseFolder, capsys: pytest.CaptureFixture[str], damaged: bool
) -> None:
    release.open_release()
    gateway = read_settings(release.gateway)
    write_routes(gateway, Traffic(weight_percent=5))
    if damaged:
        (gateway.folder / "traffic.json").write_text("{")
    capsys.readouterr()
    with pytest.raises(ServingError, match="is the gateway running"):
        release("status", "--json")
    said = capsys.readouterr().out.splitlines()
    assert ("weight and mirror unknown" if damaged else "weight 5 %, mirror 0 %, by the file") in said[1]
    told = json.loads(said[-1])
    assert (told["counts"], told.get("weight_percent")) == (None, None if damaged else 5)
    assert told["record"]["candidate"]["bundles"] == {"colours": release.new.id}


def test_a_server_that_does_not_answer_as_the_candidate_gets_no_requests(release: ReleaseFolder) -> None:
    release.open_release()
    serve = re.escape(command("slipway serve", release.candidate))
    said = (
        r"the candidate at port \d+ may not get requests: colours does not answer.*; start its server: "
        rf"{serve} --grpc-port \d+ .*; or, if it runs: slipway reload --status-port \d+"
    )
    with pytest.raises(SpecError, match=said):
        release("weight", "10")
    text = release.gateway.read_text().partition("candidate:")[0]
    release.gateway.write_text(text + dump_yaml({"repository": str(release.stable)}))
    with pytest.raises(SpecError, match="candidate: not given; write the ports"):
        release("weight", "10")


@pytest.mark.parametrize("out", ["cpu", "cpu.former"])
def test_a_candidate_is_never_written_over_what_stable_serves_or_served(release: ReleaseFolder, out: str) -> None:
    before = (release.stable / "manifest.json").read_bytes()
    with pytest.raises(SpecError, match="the stable repository or the one before it; give another folder"):
        release("candidate", str(release.fleet), "--out", str(release.folder / out))
    assert (release.stable / "manifest.json").read_bytes() == before
    assert not (release.folder / "cpu.former").exists()


@pytest.mark.parametrize("lost", ["record", "no record", "repository", "traffic"])
def test_a_rollback_takes_the_requests_away_whatever_is_lost(release: ReleaseFolder, lost: str) -> None:
    release.open_release()
    given = read_settings(release.gateway)
    write_routes(given, Traffic(weight_percent=5))
    if lost == "record":
        record_path(release.stable).write_text("")
    elif lost == "no record":
        record_path(release.stable).unlink()
    elif lost == "repository":
        shutil.rmtree(release.stable)
    else:
        (given.folder / "traffic.json").write_text("")
        with pytest.raises(
            SpecError, match=re.escape(f"{command('slipway release rollback', release.gateway)} writes it again")
        ):
            read_traffic(given)
    with pytest.raises(ServingError, match="weight 0 is written"):
        release("rollback")
    assert read_traffic(given) == Traffic()


def test_a_promotion_needs_a_person_or_a_reason(release: ReleaseFolder) -> None:
    release.open_release()
    with pytest.raises(SpecError, match="a person approves a promotion"):
        release("promote")
    with pytest.raises(SpecError, match="--without-verdict needs --reason"):
        release("promote", "--without-verdict", "--approved-by", "A. Lee")


def test_a_stable_server_that_cannot_reload_keeps_its_repository(release: ReleaseFolder) -> None:
    release.open_release()
    trial = Trial.open(release.gateway)
    approval = Approval(by="A. Lee", reason=None, evidence=trial.judged().judgement)
    with pytest.raises(
        ServingError, match=r"not promoted, and the former repository is back in .*is your server running"
    ):
        promote(trial, approval)
    assert Lane.read(release.stable / "lane.json").classifiers == {"colours": release.old.id}
    assert not trial.again().record.actions


def test_a_promotion_that_was_killed_is_undone_by_rollback(release: ReleaseFolder) -> None:
    """Killed after the folder was replaced, and before the server was reloaded; neither server runs here."""
    release.open_release()
    replace_repository(former_repository(release.stable), release.stable)
    replace_repository(release.stable, release.candidate)
    with pytest.raises(
        ServingError, match=r"the former repository is back in .*, but its server does not serve it yet"
    ):
        release("rollback")
    assert Lane.read(release.stable / "lane.json").classifiers == {"colours": release.old.id}
    assert read_traffic(read_settings(release.gateway)) == Traffic()


def test_a_repository_replaces_another_whole(release: ReleaseFolder) -> None:
    release.open_release()
    record = read_record(release.stable, gateway=release.gateway)
    assert record is not None
    replace_repository(former_repository(release.stable), release.stable)
    replace_repository(release.stable, release.candidate)
    assert record.is_promoted
    again = re.escape(command("slipway release candidate", release.gateway, release.fleet))
    with pytest.raises(SpecError, match=f"both servers answer the same; write the next one by {again}"):
        Trial.open(release.gateway).require_candidate()
    replace_repository(release.stable, former_repository(release.stable))
    assert not record.is_promoted


def test_after_its_promotion_the_fleet_file_gives_the_same_repository(release: ReleaseFolder) -> None:
    release.open_release()
    record = read_record(release.stable, gateway=release.gateway)
    assert record is not None
    fleet = Fleet.read(release.fleet).with_candidate()
    replace_repository(release.stable, release.candidate)
    planned = plan_repository(open_fleet(fleet, root=release.folder), release.stable)
    assert planned.changes_nothing


def test_a_candidate_that_was_written_again_is_not_promoted(release: ReleaseFolder) -> None:
    release.open_release()
    trial = Trial.open(release.gateway)
    colours_run(release.folder / "runs/newer", tempered(3.0))
    release.write_fleet(candidate={"colours": "runs/newer"})
    release.open_release()
    approval = Approval(by="A. Lee", reason=None, evidence=trial.judged().judgement)
    with pytest.raises(SpecError, match=r"not the repository of the record, it was written again since; write the"):
        promote(trial, approval)
