"""`judge --watch`: it outlives looks that fail, its rollback waits for other operators, and it ends with its trial."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.cli import release as verb
from slipway.contract import ServingError, SpecError, StorageError
from slipway.operations.gateway.routes import Traffic, read_traffic, write_routes
from slipway.operations.gateway.settings import GatewaySettings, read_settings
from slipway.operations.release import promotion
from slipway.operations.release import trial as trial_module
from slipway.operations.release.lock import only_operator
from slipway.operations.release.promotion import replace_repository, roll_back_worse
from slipway.operations.release.record import read_record, record_path
from slipway.operations.release.trial import Judged, Trial
from slipway.system.text import command
from tests.support.releases import ReleaseFolder, colours_run, tempered


def in_force(settings: GatewaySettings, traffic: Traffic) -> float:
    """As a running gateway would take it up."""
    write_routes(settings, traffic)
    return 0.0


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReleaseFolder:
    """An open release with 5 % of the requests; neither its servers nor its gateway run."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(promotion, "put_in_force", in_force)
    monkeypatch.setattr(promotion, "answering", lambda *_: {})
    monkeypatch.setattr(verb, "POLL_S", 0.0)
    made = ReleaseFolder(tmp_path, new=tempered(2.0))
    made.open_release()
    write_routes(read_settings(made.gateway), Traffic(weight_percent=5))
    return made


def judged(release: ReleaseFolder, verdict: str, *, hours: float = 0.0) -> Judged:
    found = Trial.open(release.gateway).judged()
    changes = {
        "verdict": type(found.judgement.verdict)(verdict),
        "hours": hours,
        "expired": verdict == "too_few" and hours >= 24,
    }
    return replace(found, judgement=found.judgement.model_copy(update=changes))


def looks(monkeypatch: pytest.MonkeyPatch, *found: Judged | Exception | Callable[[], Judged]) -> None:
    """Let the next looks find these."""
    left = list(found)

    def look(_: Trial) -> Judged:
        one = left.pop(0)
        if isinstance(one, Exception):
            raise one
        return one if isinstance(one, Judged) else one()

    monkeypatch.setattr(Trial, "look", look)


def weight(release: ReleaseFolder) -> int:
    return read_traffic(read_settings(release.gateway)).weight_percent


def test_a_watch_goes_on_after_looks_that_fail_and_rolls_back(
    release: ReleaseFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = SpecError("not an edge"), StorageError("the disk is full"), OSError(24, "Too many open files")
    looks(monkeypatch, judged(release, "too_few"), *failures, judged(release, "worse"))
    assert release("judge", "--watch") == 1
    said = capsys.readouterr().out
    assert "not read: not an edge" in said
    assert "not read: the disk is full" in said
    assert "Too many open files" in said
    assert "rolled back" in said
    assert weight(release) == 0


def test_the_first_look_of_a_watch_waits_too_but_not_for_what_no_waiting_mends(
    release: ReleaseFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = ServingError("does not answer"), StorageError("the disk is full"), OSError(24, "Too many open files")
    for failure in failures:
        looks(
            monkeypatch,
            failure,
            SpecError("not an edge"),
            judged(release, "too_few", hours=25),
            judged(release, "fine"),
        )
        assert release("judge", "--watch") == 0
        assert f"not read: {failure}\n" in capsys.readouterr().out
    looks(monkeypatch, SpecError("not an edge"))
    with pytest.raises(SpecError, match="not an edge"):
        release("judge", "--watch")
    record_path(release.stable).unlink()
    with pytest.raises(SpecError, match="no release is open"):
        release("judge", "--watch")


def test_the_rollback_of_a_watch_is_tried_until_the_weights_can_be_written(
    release: ReleaseFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = [StorageError("the disk is full")]

    def put_in_force(settings: GatewaySettings, traffic: Traffic) -> float:
        if full:
            raise full.pop()
        return in_force(settings, traffic)

    monkeypatch.setattr(promotion, "put_in_force", put_in_force)
    looks(monkeypatch, judged(release, "worse"))
    assert release("judge", "--watch") == 1
    assert "not rolled back yet: the disk is full" in capsys.readouterr().out
    assert weight(release) == 0


def test_the_rollback_of_the_judge_waits_for_another_operator_and_takes_back_its_weight(release: ReleaseFolder) -> None:
    trial, settings = Trial.open(release.gateway), read_settings(release.gateway)
    evidence = judged(release, "worse").judgement
    write_routes(settings, Traffic())
    with ThreadPoolExecutor(1) as pool:
        with only_operator(settings.folder, "weight"):
            done = pool.submit(roll_back_worse, trial, evidence)
            assert wait([done], timeout=0.3).not_done
            write_routes(settings, Traffic(weight_percent=25))
        assert done.result(timeout=10) is not None
    assert weight(release) == 0
    record = read_record(release.stable, gateway=release.gateway)
    assert record is not None
    assert [action.by for action in record.actions] == ["judge"]


def test_the_judge_takes_back_no_promotion_of_a_person(release: ReleaseFolder) -> None:
    replace_repository(release.stable, release.candidate)
    assert roll_back_worse(Trial.open(release.gateway), judged(release, "worse").judgement) is None
    assert weight(release) == 5


def test_a_worse_candidate_is_rolled_back_although_the_weights_on_file_are_damaged(
    release: ReleaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (read_settings(release.gateway).folder / "traffic.json").write_text("{")
    looks(monkeypatch, judged(release, "too_few"), judged(release, "worse"))
    assert release("judge", "--watch") == 1
    assert weight(release) == 0


def test_a_watch_guards_a_candidate_with_requests_beyond_its_hours(
    release: ReleaseFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expired = judged(release, "too_few", hours=25)
    looks(monkeypatch, expired, expired, judged(release, "worse", hours=26))
    assert release("judge", "--watch") == 1
    assert "end its trial: slipway release rollback" in capsys.readouterr().out
    assert weight(release) == 0
    looks(monkeypatch, expired)
    assert release("judge", "--watch") == 2, "without requests there is nothing to guard"


def test_after_its_hours_the_verdict_fine_alone_promotes_nothing(
    release: ReleaseFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_routes(read_settings(release.gateway), Traffic())
    release.write_fleet(approval="automatic", rollback="human")
    release.open_release()
    write_routes(read_settings(release.gateway), Traffic(weight_percent=5))
    looks(monkeypatch, judged(release, "fine", hours=25))
    assert release("judge", "--watch") == 0
    assert "proposed: slipway release promote" in capsys.readouterr().out
    looks(monkeypatch, judged(release, "too_few", hours=25))
    assert release("judge", "--watch") == 2, "who rolls back by hand has the watch end"


def test_a_change_of_one_share_keeps_the_weight_that_the_judge_has_just_taken_away(
    release: ReleaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read_settings(release.gateway)

    @contextmanager
    def after_a_rollback(*given: str) -> Iterator[None]:
        write_routes(settings, Traffic())
        with only_operator(*given):  # type: ignore[arg-type]
            yield

    monkeypatch.setattr(trial_module, "only_operator", after_a_rollback)
    monkeypatch.setattr(trial_module, "put_in_force", in_force)
    monkeypatch.setattr(trial_module, "answering", lambda *_: {})
    release("mirror", "5")
    assert read_traffic(settings) == Traffic(mirror_percent=5)


def test_a_watch_ends_when_another_candidate_is_written(
    release: ReleaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another() -> Judged:
        write_routes(read_settings(release.gateway), Traffic())
        colours_run(release.folder / "runs/newer", tempered(3.0))
        release.write_fleet(candidate={"colours": "runs/newer"})
        release.open_release()
        write_routes(read_settings(release.gateway), Traffic(weight_percent=5))
        return judged(release, "too_few")

    looks(monkeypatch, judged(release, "too_few"), another, judged(release, "worse"))
    with pytest.raises(SpecError, match=r"another candidate was written since .*; slipway release judge"):
        release("judge", "--watch")
    assert weight(release) == 5, "the new candidate is not rolled back by the counts of the old one"


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}"])
def test_a_watch_says_which_record_is_damaged_how_and_what_to_do(
    release: ReleaseFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    path, found = record_path(release.stable), judged(release, "too_few")
    whole = path.read_text()

    def broken() -> Judged:
        path.write_text(damage)
        return found

    def mended(_: float) -> None:
        said = capsys.readouterr().out
        if "not read" in said:
            assert f"not read: {path}: " in said
            assert f"take them away: {command('slipway release rollback', release.gateway)}; " in said
            assert f"then move {path} away, and begin the trial again: " in said
            assert f"{command('slipway release candidate', release.gateway, 'FLEET')}\n" in said
            assert "the candidate is not judged until that is mended" in said
            path.write_text(whole)

    monkeypatch.setattr(verb.time, "sleep", mended)
    looks(monkeypatch, broken, judged(release, "worse"))
    assert release("judge", "--watch") == 1
    assert path.read_text() != whole, "the watch has read the mended record, and rolled back"
    assert weight(release) == 0


def test_a_watch_whose_record_is_gone_speaks_of_no_other_candidate(
    release: ReleaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, found = record_path(release.stable), judged(release, "too_few")

    def gone() -> Judged:
        path.unlink()
        return found

    looks(monkeypatch, gone)
    with pytest.raises(SpecError, match=r"the record of the release is gone.*slipway release rollback.*FLEET"):
        release("judge", "--watch")
