"""One exchange of names: readers find a whole repository at any time, and whoever is killed leaves the old one."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.contract import Manifest, ManifestError, SpecError
from slipway.repository import Classifier, assemble, plan
from slipway.repository.step import Content
from slipway.system import files
from slipway.system.files import clear_leftovers, complete_folder
from slipway.system.targets import FolderKind
from tests.support.colours import COLOURS, copy_colours, open_colours, replaced


@pytest.fixture
def other(tmp_path: Path) -> Classifier:
    return copy_colours(tmp_path / "in", bundle=replaced("labels.txt", b"blue", b"azure"))


def which(folder: Path) -> tuple[int, int]:
    """The folder that stands there now, and not another that had its inode before."""
    status = folder.stat()
    return status.st_ino, status.st_ctime_ns


class Reader(threading.Thread):
    """Opens `out` again and again. A failure counts unless the folder was exchanged meanwhile."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self.out, self.ended = out, threading.Event()
        self.seen: list[str] = []
        self.failures: list[str] = []

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                self._read()
            except Exception as error:
                self.failures.append(repr(error))

    def _read(self) -> None:
        before = which(self.out)
        try:
            self.seen.append(str(Manifest.open(self.out, kind="repository").own_sha256))
        except ManifestError:
            if which(self.out) == before:
                raise


def test_a_reader_sees_the_old_or_the_new_repository_whole(tmp_path: Path, other: Classifier) -> None:
    out, pair = tmp_path / "out", (open_colours(COLOURS), other)
    manifests = set()
    for classifier in pair:
        assemble([classifier], out)
        manifests.add(str(Manifest.open(out, kind="repository").own_sha256))
    reader = Reader(out)
    reader.start()
    for number in range(50):
        assemble([pair[number % 2]], out)
    reader.ended.set()
    reader.join()
    assert reader.failures == []
    assert set(reader.seen) == manifests
    assert len(reader.seen) > 20


def test_where_names_cannot_be_exchanged_the_folder_is_replaced_all_the_same_and_it_is_said(
    tmp_path: Path, other: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    assemble([open_colours(COLOURS)], tmp_path / "out")
    with pytest.warns(RuntimeWarning, match="out: this file system cannot exchange two folders in one step"):
        assemble([other], tmp_path / "out")
    assert (tmp_path / "out/colours_full/labels.txt").read_text() == "azure\ngreen\nred\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_the_exchange_itself_works_here_and_says_what_is_wrong(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert files._exchange(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one/other").exists()
    assert (tmp_path / "other/one").exists()
    with pytest.raises(FileNotFoundError):
        files._exchange(tmp_path / "one", tmp_path / "nowhere")


def killed_in_a_child(work: Callable[[], object]) -> None:
    """Run `work`, which ends by SIGKILL, in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def kill_self(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("written", [0, 3, 8])
@pytest.mark.parametrize("before", [True, False])
def test_who_is_killed_while_writing_leaves_the_old_repository_and_the_next_run_clears_up(
    written: int, before: bool, tmp_path: Path, other: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, left, write = tmp_path / "out", iter(range(written)), Content.write
    if before:
        assemble([open_colours(COLOURS)], out)
        manifest = Manifest.open(out, kind="repository")

    def until_killed(content: Content, path: Path) -> None:
        write(content, path)
        if next(left, None) is None:
            kill_self()

    with monkeypatch.context() as patched:
        patched.setattr(Content, "write", until_killed)
        killed_in_a_child(lambda: assemble([other], out))
    assert len([path for path in tmp_path.iterdir() if path.name.startswith(".out.unfinished-")]) == 1
    assert out.exists() == before
    if before:
        assert Manifest.open(out, kind="repository") == manifest
    assemble([other], out)
    assert Manifest.open(out, kind="repository").inputs["colours/bundle"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_who_is_killed_after_the_exchange_leaves_the_new_repository_and_the_next_run_clears_up(
    tmp_path: Path, other: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assemble([open_colours(COLOURS)], out)
    with monkeypatch.context() as patched:
        patched.setattr(files.shutil, "rmtree", kill_self)
        killed_in_a_child(lambda: assemble([other], out))
    assert (out / "colours_full/labels.txt").read_text() == "azure\ngreen\nred\n"
    Manifest.open(out, kind="repository")
    assemble([other], out)  # nothing changes, and what the killed one left goes all the same
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.filterwarnings("ignore:.*cannot exchange two folders:RuntimeWarning")
def test_who_is_killed_between_two_renames_has_its_old_repository_back_with_the_next_run(
    tmp_path: Path, other: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename = tmp_path / "out", os.rename
    assemble([open_colours(COLOURS)], out)
    old = Manifest.open(out, kind="repository")

    def until_killed(source: Path, target: Path) -> None:
        rename(source, target)
        kill_self()

    with monkeypatch.context() as patched:
        patched.setattr(files, "_exchange", lambda *_: False)
        patched.setattr(os, "rename", until_killed)
        killed_in_a_child(lambda: assemble([other], out))
    assert not out.exists()
    clear_leftovers(out)
    assert Manifest.open(out, kind="repository") == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_two_who_write_the_same_folder_do_not_meet(tmp_path: Path, other: Classifier) -> None:
    out = tmp_path / "out"
    with complete_folder(out, kind="repository") as staging:
        (staging / "lane.json").touch()
        with pytest.raises(SpecError, match=r"out: another process is writing it .*; wait until it ends"):
            assemble([other], out)
    assert [path.name for path in out.iterdir()] == ["lane.json"]


def test_a_folder_of_somebody_s_own_with_a_name_like_ours_stays(tmp_path: Path) -> None:
    """Only what begins with `.out.unfinished-` is taken for a leftover of `out`."""
    for name in (".out", ".out.settings", ".out.2.unfinished-", "out.unfinished-x", ".outer.unfinished-x"):
        (tmp_path / name).mkdir()
    assemble([open_colours(COLOURS)], tmp_path / "out")
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("kind", ["bundle", "repository"])
def test_a_folder_with_the_name_of_a_former_one_stays_if_somebody_else_made_it(
    kind: FolderKind, tmp_path: Path
) -> None:
    own = tmp_path / ".out.former/thesis.txt"
    own.parent.mkdir()
    own.write_text("chapter 1")
    for keep in (False, True):
        with complete_folder(tmp_path / "out", kind=kind, keep_former=keep) as staging:
            assert [*staging.iterdir()] == []
            (staging / "manifest.json").write_text(f'{{"kind": "{kind}"}}')
        assert own.read_text() == "chapter 1"


def test_where_folders_cannot_be_locked_leftovers_stay_and_the_work_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(9, "Bad file descriptor")  # what NFS says of a folder

    (tmp_path / ".out.unfinished-1").mkdir()
    monkeypatch.setattr(files.fcntl, "flock", unsupported)
    assemble([open_colours(COLOURS)], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.unfinished-1", "out"]


def test_files_that_cannot_be_linked_are_copied(
    tmp_path: Path, other: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # what fs.protected_hardlinks says of somebody else's file

    out = tmp_path / "out"
    assemble([open_colours(COLOURS)], out)
    monkeypatch.setattr(plan.os, "link", refused)
    assemble([other], out)
    Manifest.open(out, kind="repository")
