"""A small box with a turn to make, and what its stages and its status say."""

import shutil
from pathlib import Path

import pytest

from slipway.cli import up
from tests.support.scripts import step_here
from tests.support.turns import TurnFolder

called: list[str] = []
"""Verbs of the stages that ran in the test."""


def copied(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TurnFolder:
    """A copy of the files, for one test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = TurnFolder(shutil.copytree(served, tmp_path / "turn"))
    made.write_gateway()
    called.clear()
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("turn")
    TurnFolder.make(folder)
    return folder


@pytest.fixture
def turn(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TurnFolder:
    """A copy of the files; stages run in this process. `called` has their verbs."""
    made = copied(served, tmp_path, monkeypatch)

    def step(title: str, words: tuple[str, ...]) -> int:
        called.append(" ".join(words[:2]) if words[0] in ("labels", "release", "turn") else words[0])
        return step_here(title, words, cwd=made.folder)

    monkeypatch.setattr(up, "step", step)
    return made


def waiting(turn: TurnFolder) -> tuple[str, str]:
    """The step of the open turn and what it waits for, by `turn status`."""
    code, told = turn.run(action="status")
    assert code == 0
    found = told["waiting"]
    assert found["go_on"] == "slipway turn run gateway/gateway.yaml fleet.yaml shades"
    return found["step"], found["waits_for"]
