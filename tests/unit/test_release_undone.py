"""Promotions and rollbacks that fail or are killed midway: the stable server ends with what its record says."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import Lane, ServingError, StorageError
from slipway.operations.gateway.settings import ServerPorts
from slipway.operations.release import compatibility, promotion
from slipway.operations.release.promotion import Approval, former_repository, promote, replace_repository, roll_back
from slipway.operations.release.trial import Trial
from slipway.serving.probe import BusyError
from tests.support.releases import ReleaseFolder, tempered


class StableServer:
    """Stands for the stable server: it serves the folder as it was at the last reload."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.failing: list[str] = []
        """What the next checks of its answers find, one each."""
        self.reload()

    def reload(self, *_: object, **__: object) -> str:
        self.serves = Lane.read(self._folder / "lane.json").classifiers
        return "switched colours"

    def answering(self, _: ServerPorts, bundles: dict[str, str]) -> dict[str, str]:
        if self.failing:
            return {"colours": self.failing.pop()}
        return {name: "answers otherwise" for name in bundles if self.serves[name] != bundles[name]}


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReleaseFolder:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = ReleaseFolder(tmp_path, new=tempered(2.0))
    made.open_release()
    return made


@pytest.fixture
def server(release: ReleaseFolder, monkeypatch: pytest.MonkeyPatch) -> StableServer:
    made = StableServer(release.stable)
    monkeypatch.setattr(promotion, "request_reload", made.reload)
    monkeypatch.setattr(promotion, "answering", made.answering)
    monkeypatch.setattr(promotion, "put_in_force", lambda *_: 0.0)  # the gateway does not run
    return made


def promoted(release: ReleaseFolder) -> None:
    trial = Trial.open(release.gateway)
    promote(trial, Approval(by="A. Lee", reason=None, evidence=trial.judged().judgement))


def on_disk(release: ReleaseFolder) -> dict[str, str]:
    return Lane.read(release.stable / "lane.json").classifiers


def test_a_promotion_that_fails_after_its_reload_leaves_stable_serving_the_former(
    release: ReleaseFolder, server: StableServer
) -> None:
    server.failing = ["does not answer: Deadline Exceeded"]
    with pytest.raises(ServingError, match=r"not promoted, and the former repository is back in .* and served"):
        promoted(release)
    assert server.serves == on_disk(release) == {"colours": release.old.id}


def test_a_second_reload_that_fails_is_said_and_rollback_mends_it(
    release: ReleaseFolder, server: StableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reload of the promotion outlasts the wait, and is done all the same."""

    def slow(*_: object, **__: object) -> str:
        server.serves = {"colours": release.new.id}
        raise ServingError("timed out")

    with monkeypatch.context() as patch:
        patch.setattr(promotion, "request_reload", slow)
        said = r"back in .*, but its server may not serve it \(timed out\); slipway release rollback .*: timed out"
        with pytest.raises(ServingError, match=said):
            promoted(release)
    assert server.serves == {"colours": release.new.id}
    assert roll_back(Trial.open(release.gateway), by="A. Lee").reloaded is not None
    assert server.serves == {"colours": release.old.id}


def test_a_rollback_that_was_killed_before_its_reload_is_mended_by_the_next(
    release: ReleaseFolder, server: StableServer
) -> None:
    promoted(release)
    replace_repository(release.stable, former_repository(release.stable))  # and killed here
    assert server.serves == {"colours": release.new.id}
    assert roll_back(Trial.open(release.gateway), by="A. Lee").reloaded is not None
    assert server.serves == {"colours": release.old.id}


def test_a_rollback_before_the_promotion_reloads_nothing(release: ReleaseFolder, server: StableServer) -> None:
    assert roll_back(Trial.open(release.gateway), by="A. Lee").reloaded is None
    assert server.serves == {"colours": release.old.id}


@pytest.mark.parametrize("former", ["missing", "another"])
def test_a_former_repository_that_is_not_of_the_record_is_not_put_back(
    release: ReleaseFolder, server: StableServer, former: str
) -> None:
    replace_repository(release.stable, release.candidate)  # assembled, and not promoted
    if former == "another":
        shutil.copytree(release.candidate, former_repository(release.stable))
    server.failing = ["does not answer"]
    with pytest.raises(ServingError, match="still holds the candidate, since the former repository cannot be put back"):
        promoted(release)
    assert on_disk(release) == {"colours": release.new.id}


def test_a_full_disk_while_a_promotion_is_undone_is_said(
    release: ReleaseFolder, server: StableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [replace_repository, replace_repository]

    def full(target: Path, source: Path) -> None:
        if not folders:
            raise StorageError("the disk is full")
        folders.pop()(target, source)

    monkeypatch.setattr(promotion, "replace_repository", full)
    server.failing = ["does not answer"]
    with pytest.raises(ServingError, match=r"not promoted, and .* cannot be put back: the disk is full; the reason"):
        promoted(release)


def test_a_server_whose_queue_is_full_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [BusyError("full"), BusyError("full"), {"BUNDLE": "abc"}]

    def ask(*_: object, **__: object) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(compatibility, "over_grpc", ask)
    monkeypatch.setattr(compatibility, "BUSY_PAUSE_S", 0.0)
    ports = ServerPorts(grpc=1, http=2, status=3)
    assert compatibility.answering(ports, {"colours": "abc"}) == {}
    monkeypatch.setattr(compatibility, "BUSY_S", 0.0)
    answers[:] = [BusyError("full")]
    assert compatibility.answering(ports, {"colours": "abc"}) == {"colours": "does not answer: full"}
