"""Heads assembled again: unchanged groups are taken over, and the bytes are those of a new repository."""

import ctypes
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slipway.contract import Fleet, Manifest, ManifestError, RepositoryError, ServingError
from slipway.contract.manifest import hashes
from slipway.lint.models import read_model
from slipway.repository import BaseHeads, assemble, open_bases, plan, plan_repository, taken_over
from slipway.repository import heads as heads_of_a_base
from slipway.repository.taken_over import Present
from slipway.serving.contents import Contents
from slipway.system.files import identity
from tests.support.colours import contents
from tests.support.heads import ENGINE, open_heads, write_base, write_head, write_heads

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


def reseal(repository: Path) -> None:
    path = repository / "manifest.json"
    Manifest.read(path).model_copy(update={"outputs": hashes(repository), "own_sha256": None}).write(path)


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


@pytest.mark.parametrize("change", [added, changed, removed])
def test_one_changed_head_is_opened_alone_and_gives_the_same_bytes(
    base: Path, runs: Runs, repository: Path, opened: list[str], change: Callable[[Path, Runs], Runs]
) -> None:
    now = change(base, runs)
    assemble([], repository, bases=open_heads(base, now))
    assert opened == {added: ["new"], changed: ["h0003"], removed: []}[change]
    anew = repository.with_name("anew")
    assemble([], anew, bases=open_heads(base, now))
    assert contents(repository) == contents(anew)


def test_a_group_that_loses_its_last_head_leaves_the_others_as_they_are(
    base: Path, runs: Runs, repository: Path, opened: list[str], tmp_path: Path
) -> None:
    gone = group_of(repository, "h0003")
    now = [run for run in runs if run.name not in gone]
    assemble([], tmp_path / "anew", bases=open_heads(base, now))
    opened.clear()
    assemble([], repository, bases=open_heads(base, now))
    assert contents(repository) == contents(tmp_path / "anew")


def test_nothing_is_opened_where_nothing_changed(base: Path, runs: Runs, repository: Path, opened: list[str]) -> None:
    plan = plan_repository([], repository, bases=open_heads(base, runs))
    assert plan.changes_nothing
    assert opened == []


def test_other_code_opens_every_head(
    base: Path, runs: Runs, repository: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taken_over, "code_sha256", lambda: "0" * 64)
    plan_repository([], repository, bases=open_heads(base, runs))
    assert len(opened) == COUNT


def test_a_damaged_repository_is_not_taken_over_and_is_mended(
    base: Path, runs: Runs, repository: Path, opened: list[str]
) -> None:
    good = contents(repository)
    (labels,) = repository.glob("heads_*/1/heads/h0003/labels.txt")
    damage(labels)
    assemble([], repository, bases=open_heads(base, runs))
    assert len(opened) == COUNT
    assert contents(repository) == good


def test_other_options_of_the_base_open_every_head(
    base: Path, runs: Runs, repository: Path, opened: list[str], tmp_path: Path
) -> None:
    heads = {run.name: str(run) for run in runs}
    given = {"base": str(base), "heads": heads, "serving": {"max_batch_size": 4}}
    fleet = Fleet.parse({"bases": {"base": given}}, source="test")
    plan_repository([], repository, bases=open_bases(fleet, root=tmp_path))
    assert len(opened) == COUNT


def test_heads_that_another_ensemble_runs_are_opened(
    base: Path, runs: Runs, repository: Path, opened: list[str], tmp_path: Path
) -> None:
    multi = {"some": ("h0000", "h0003")}
    assemble([], repository, bases=open_heads(base, runs), multi=multi)
    assert sorted(opened) == ["h0000", "h0003"]
    assemble([], tmp_path / "anew", bases=open_heads(base, runs), multi=multi)
    assert contents(repository) == contents(tmp_path / "anew")


@pytest.mark.parametrize("lost", ["bundle/manifest.json", f"engines/{ENGINE}/manifest.json"])
def test_a_head_without_a_manifest_is_an_error(base: Path, runs: Runs, repository: Path, lost: str) -> None:
    bases = open_heads(base, runs)
    (runs[3] / lost).unlink()
    with pytest.raises(ManifestError, match="h0003"):
        plan_repository([], repository, bases=bases)


def test_a_server_reads_only_what_changed_and_still_finds_damage(base: Path, runs: Runs, repository: Path) -> None:
    first = Contents.open(repository)
    assemble([], repository, bases=open_heads(base, changed(base, runs)))
    second = Contents.open(repository, like=first)
    assert second.same_as(first) == {run.name for run in runs} - {"h0003"}
    assert second.known == Contents.open(repository).known
    untouched = min(second.same_as(first))
    path = next(repository.glob(f"heads_*/1/heads/{untouched}/head.npz"))
    weights = path.read_bytes()
    path.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(ManifestError, match=r"head\.npz: changed since"):
        Contents.open(repository, like=second)


def test_heads_move_to_other_groups_without_being_opened(
    base: Path, runs: Runs, repository: Path, opened: list[str]
) -> None:
    groups = len([*repository.glob("heads_*")])
    more = [write_head(runs[0].parent / f"new{n}", base, name=f"new{n}", seed=n) for n in range(5)]
    assemble([], repository, bases=open_heads(base, [*runs, *more]))
    assert sorted(opened) == [run.name for run in more]
    assert len([*repository.glob("heads_*")]) > groups
    anew = repository.with_name("anew")
    assemble([], anew, bases=open_heads(base, [*runs, *more]))
    assert contents(repository) == contents(anew)


def test_a_server_checks_a_group_that_lost_a_head(base: Path, runs: Runs, repository: Path) -> None:
    first = Contents.open(repository)
    group = group_of(repository, "h0003") - {"h0003"}
    assemble([], repository, bases=open_heads(base, removed(base, runs)))
    second = Contents.open(repository, like=first)
    assert second.same_as(first) == {run.name for run in runs} - {"h0003", min(group)}, "one of the group runs its step"
    assert dict(second.steps) == dict(Contents.open(repository).steps)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (r"step \{.*\}\n(?=\}\n)", ""),
        (r'"heads_[0-9a-f]{12}"', '"heads_0123456789ab"'),
        (r'"heads_[0-9a-f]{12}"', '"heads_*"'),
    ],
)
def test_a_server_refuses_a_sealed_repository_whose_ensembles_run_nothing_that_is_there(
    text: str, wrong: str, repository: Path
) -> None:
    first = Contents.open(repository)
    config = repository / "h0003/config.pbtxt"
    changed, count = re.subn(text, wrong, config.read_text(), flags=re.DOTALL)
    assert count
    config.write_text(changed)
    reseal(repository)
    with pytest.raises(ServingError, match="h0003"):
        Contents.open(repository, like=first)


def test_a_server_takes_no_head_of_a_group_without_their_folders_for_the_same(
    base: Path, runs: Runs, repository: Path
) -> None:
    first = Contents.open(repository)
    assemble([], repository, bases=open_heads(base, changed(base, runs)))
    heads = group_of(repository, "h0003")
    (group,) = (folder for folder in repository.glob("heads_*") if (folder / "1/heads/h0003").is_dir())
    shutil.rmtree(group / "1/heads")
    (group / "1/heads").write_text("no folder")
    reseal(repository)
    assert Contents.open(repository, like=first).same_as(first).isdisjoint(heads)


def test_a_lane_without_classifiers_has_no_ensembles_of_theirs(repository: Path) -> None:
    lane = Contents.open(repository).lane
    assert "h0003_full" in lane.ensembles
    assert lane.without({"h0003"}).ensembles.keys() == lane.ensembles.keys() - {"h0003", "h0003_full"}


@pytest.fixture
def kept(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the former repository is kept, as one of many models is."""
    monkeypatch.setattr(plan, "MANY_FOLDERS", 0)
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
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
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
    found = plan._kept(str(tmp_path / "former"), "", folders=set(), same=same, mode=0o755)
    assert [*found] == ["linked"], "a disk without links may give one inode to two files"
    assert contents(tmp_path / "former") == {"linked": b"linked"}


def test_a_writer_that_is_killed_over_a_former_repository_leaves_the_present_one(
    base: Path, runs: Runs, repository: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assemble([], repository, bases=open_heads(base, added(base, runs)))
    present = contents(repository)
    with monkeypatch.context() as patched:
        patched.setattr(plan, "lint", lambda *_, **__: os._exit(9))
        if not (child := os.fork()):
            try:
                assemble([], repository, bases=open_heads(base, runs))
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert contents(repository) == present
    assert not kept.exists(), "it was being changed"
    anew = repository.with_name("anew")
    for out in (repository, anew):
        assemble([], out, bases=open_heads(base, runs))
    assert contents(repository) == contents(anew)
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
