"""The former repository becomes the next one, and whatever changes meanwhile is noticed."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slipway.contract import Manifest, ManifestError, RepositoryError
from slipway.lint import lint
from slipway.lint.models import Unchanged, read_model
from slipway.repository import assemble, plan_repository, write
from slipway.repository.taken_over import Present
from slipway.system.files import identity
from tests.support import taken_over as fixtures
from tests.support.colours import contents, reseal
from tests.support.damage import flip_byte
from tests.support.heads import open_heads
from tests.support.taken_over import Runs, added, assert_as_made_anew, changed, damage, group_of

base, runs, repository, opened = fixtures.base, fixtures.runs, fixtures.repository, fixtures.opened


@pytest.fixture
def kept(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the former repository is kept, as one of many models is."""
    monkeypatch.setattr(write, "MANY_FOLDERS", 0)
    return repository.with_name(f".{repository.name}.former")


def test_a_former_repository_is_made_the_next_one_and_leaves_nothing_of_its_own(
    base: Path, runs: Runs, repository: Path, kept: Path
) -> None:
    before = contents(repository)
    now = added(base, runs)
    assemble([], repository, bases=open_heads(base, now))
    assert contents(kept) == before
    (kept / "left/1").mkdir(parents=True)
    (kept / "left/1/over.txt").write_text("over")
    damage(kept / "h0000/config.pbtxt")
    folder = os.open(kept / "h0001", os.O_RDONLY)  # while it is open, no other folder gets its inode
    try:
        assemble([], repository, bases=open_heads(base, runs))
        assert (repository / "h0001").stat().st_ino == os.fstat(folder).st_ino, "not made again"
    finally:
        os.close(folder)
    assert contents(repository) == before
    assert not (repository / "left").exists()


def modes(repository: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in repository.rglob("*") if path.is_dir()}


def test_folders_of_a_former_repository_get_the_modes_of_new_ones(
    base: Path, runs: Runs, repository: Path, kept: Path
) -> None:
    usual = modes(repository)
    assemble([], repository, bases=open_heads(base, added(base, runs)))
    for path in [*kept.rglob("*")]:
        if path.is_dir():
            path.chmod(0o700)
    assemble([], repository, bases=open_heads(base, runs))
    assert modes(repository) == usual


def test_a_former_repository_that_may_not_be_written_is_used_all_the_same(
    base: Path, runs: Runs, repository: Path, kept: Path
) -> None:
    before = contents(repository)
    assemble([], repository, bases=open_heads(base, added(base, runs)))
    for path in [*kept.rglob("*")]:
        if path.is_dir():
            path.chmod(0o500)
    with where_permissions_count():
        assemble([], repository, bases=open_heads(base, runs))
    assert contents(repository) == before
    assert not [path for path in repository.parent.iterdir() if "unfinished" in path.name]


@pytest.mark.parametrize(
    "file", ["{neighbour}/config.pbtxt", "heads_*/1/heads/{neighbour}/head.npz", "{other}/1/bundle.txt"]
)
def test_a_file_that_changed_after_it_was_hashed_is_not_taken_over(
    file: str, base: Path, runs: Runs, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, opens = group_of(repository, "h0003"), Present.open
    other = min({run.name for run in runs} - group)
    (path,) = repository.glob(file.format(neighbour=min(group - {"h0003"}), other=other))

    def open_and_change(repository: Path) -> Present | None:
        present = opens(repository)
        flip_byte(path, -1)
        return present

    monkeypatch.setattr(Present, "open", open_and_change)
    with pytest.raises(ManifestError, match="changed while the repository was assembled"):
        assemble([], repository, bases=open_heads(base, changed(base, runs)))


@pytest.mark.parametrize("same", [False, True])
def test_a_plan_is_not_written_over_a_repository_that_another_process_assembled_meanwhile(
    same: bool, base: Path, runs: Runs, repository: Path
) -> None:
    planned = plan_repository([], repository, bases=open_heads(base, runs if same else runs[1:]))
    assert planned.changes_nothing == same
    assemble([], repository, bases=open_heads(base, runs[2:]))
    meanwhile = contents(repository)
    with pytest.raises(RepositoryError, match="assembled by another process meanwhile; assemble again"):
        planned.write()
    assert contents(repository) == meanwhile


@pytest.mark.parametrize("alone", [False, True])
def test_heads_of_a_sealed_repository_without_their_ensembles_are_opened(
    alone: bool, base: Path, runs: Runs, repository: Path, opened: list[str]
) -> None:
    good, neighbours = contents(repository), group_of(repository, "h0003") - {"h0003"}
    shutil.rmtree(repository / f"{min(neighbours)}_full")
    reseal(repository)
    if alone:
        changed(base, runs)
    assemble([], repository, bases=open_heads(base, runs))
    assert min(neighbours) in opened
    assert alone or contents(repository) == good


@contextmanager
def where_permissions_count() -> Iterator[None]:
    """Without the capabilities of root, who may write everywhere; for this thread."""
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable; twice
    assert libc.capget(header, before) == 0
    assert libc.capset(header, (ctypes.c_uint32 * 6)(0, *before[1:3], 0, *before[4:])) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


def test_a_file_of_a_former_repository_that_is_no_hard_link_is_not_kept(tmp_path: Path) -> None:
    for name in ("linked", "alone"):
        (tmp_path / "former" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "former" / name).write_text(name)
    os.link(tmp_path / "former/linked", tmp_path / "present")
    same = {name: identity(tmp_path / "former" / name) for name in ("linked", "alone")}
    found = write._kept(str(tmp_path / "former"), "", folders=set(), same=same, mode=0o755)
    assert [*found] == ["linked"], "a disk without links may give one inode to two files"
    assert contents(tmp_path / "former") == {"linked": b"linked"}


def test_a_writer_that_is_killed_over_a_former_repository_leaves_the_present_one(
    base: Path, runs: Runs, repository: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assemble([], repository, bases=open_heads(base, added(base, runs)))
    present = contents(repository)
    with monkeypatch.context() as patched:
        patched.setattr(write, "lint", lambda *_, **__: os._exit(9))
        if not (child := os.fork()):
            try:
                assemble([], repository, bases=open_heads(base, runs))
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert contents(repository) == present
    assert not kept.exists(), "it was being changed"
    assemble([], repository, bases=open_heads(base, runs))
    assert_as_made_anew(repository, base, runs)
    assert not [path for path in repository.parent.iterdir() if "unfinished" in path.name]


@pytest.mark.parametrize("around", ["", "# model_name: 'heads_*'\n", '# model_name: "heads_0123456789ab"\n'])
def test_a_configuration_is_read_with_the_name_of_its_own_group(around: str, tmp_path: Path) -> None:
    names = ["heads_0123456789ab", "heads_ba9876543210", "heads_*"]
    for name in names:
        text = f'{around}ensemble_scheduling {{ step {{ model_name: "base_1" }} step {{ model_name: "{name}" }} }}\n'
        (tmp_path / "pets").mkdir(exist_ok=True)
        (tmp_path / "pets/config.pbtxt").write_text(text)
        steps = read_model(tmp_path / "pets").config.ensemble_scheduling.step
        assert [step.model_name for step in steps] == ["base_1", name]


def test_a_file_that_differs_from_the_manifest_that_was_just_written_is_found(repository: Path) -> None:
    written = Manifest.read(repository / "manifest.json")
    unchanged = Unchanged(manifest=written)
    assert lint(repository, unchanged=unchanged) == []
    damage(repository / "h0000/1/bundle.txt")
    (repository / "h0001/more.txt").touch()
    found = {(finding.file, finding.rule) for finding in lint(repository, unchanged=unchanged)}
    assert {("h0000/1/bundle.txt", "file-changed"), ("h0001/more.txt", "file-added")} <= found
