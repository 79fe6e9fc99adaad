"""Heads assembled again: unchanged groups are taken over, and the bytes are those of a new repository."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.contract import Fleet, ManifestError, ServingError
from slipway.repository import assemble, open_bases, plan_repository, taken_over
from slipway.serving.contents import Contents
from tests.support import taken_over as fixtures
from tests.support.colours import contents, reseal
from tests.support.damage import flip_byte
from tests.support.heads import ENGINE, open_heads, write_head
from tests.support.taken_over import COUNT, Runs, added, assert_as_made_anew, changed, damage, group_of, removed

base, runs, repository, opened = fixtures.base, fixtures.runs, fixtures.repository, fixtures.opened


@pytest.mark.parametrize("change", [added, changed, removed])
def test_one_changed_head_is_opened_alone_and_gives_the_same_bytes(
    base: Path, runs: Runs, repository: Path, opened: list[str], change: Callable[[Path, Runs], Runs]
) -> None:
    now = change(base, runs)
    assemble([], repository, bases=open_heads(base, now))
    assert opened == {added: ["new"], changed: ["h0003"], removed: []}[change]
    assert_as_made_anew(repository, base, now)


def test_a_group_that_loses_its_last_head_leaves_the_others_as_they_are(
    base: Path, runs: Runs, repository: Path
) -> None:
    gone = group_of(repository, "h0003")
    now = [run for run in runs if run.name not in gone]
    assemble([], repository, bases=open_heads(base, now))
    assert_as_made_anew(repository, base, now)


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
    base: Path, runs: Runs, repository: Path, opened: list[str]
) -> None:
    multi = {"some": ("h0000", "h0003")}
    assemble([], repository, bases=open_heads(base, runs), multi=multi)
    assert sorted(opened) == ["h0000", "h0003"]
    assert_as_made_anew(repository, base, runs, multi=multi)


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
    flip_byte(path, -1)
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
    assert_as_made_anew(repository, base, [*runs, *more])


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
