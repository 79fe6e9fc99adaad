"""A repository of heads in groups of four, and changes of its heads; a test file takes the fixtures that it needs."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from slipway.repository import BaseHeads, assemble
from slipway.repository import heads as heads_of_a_base
from tests.support.colours import contents
from tests.support.heads import open_heads, write_base, write_head, write_heads

COUNT = 12
Runs = list[Path]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(heads_of_a_base, "GROUP", 4)
    return write_base(tmp_path / "base")


@pytest.fixture
def runs(base: Path, tmp_path: Path) -> Runs:
    return write_heads(tmp_path / "heads", base, COUNT)


@pytest.fixture
def repository(base: Path, runs: Runs, tmp_path: Path) -> Path:
    assemble([], tmp_path / "repository", bases=open_heads(base, runs))
    return tmp_path / "repository"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the heads that were opened since."""
    names: list[str] = []
    opens = BaseHeads.open

    def spy(self: BaseHeads, name: str) -> object:
        names.append(name)
        return opens(self, name)

    monkeypatch.setattr(BaseHeads, "open", spy)
    return names


def group_of(repository: Path, head: str) -> set[str]:
    (group,) = (folder for folder in repository.glob("heads_*") if (folder / "1/heads" / head).is_dir())
    return {folder.name for folder in (group / "1/heads").iterdir()}


def assert_as_made_anew(repository: Path, base: Path, runs: Runs, **options: Any) -> None:
    """It is, byte for byte, what these heads give where nothing was assembled before."""
    anew = repository.with_name("anew")
    assemble([], anew, bases=open_heads(base, runs), **options)
    assert contents(repository) == contents(anew)


def damage(path: Path) -> None:
    """Another file with another byte, of equal size and time."""
    status, content = path.stat(), path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def added(base: Path, runs: Runs) -> Runs:
    return [*runs, write_head(runs[0].parent / "new", base, name="new", seed=99)]


def changed(base: Path, runs: Runs) -> Runs:
    shutil.rmtree(runs[3])
    write_head(runs[3], base, name="h0003", seed=99)
    return runs


def removed(_: Path, runs: Runs) -> Runs:
    return runs[:3] + runs[4:]
