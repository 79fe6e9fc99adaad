"""Assembling again: the plan says what changes, what is there is linked and not written, and damage is repaired."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slipway.contract import Manifest, ManifestError
from slipway.repository import Classifier, RepositoryPlan, assemble, plan_repository
from tests.support.colours import COLOURS, contents, copy_colours, open_colours, replaced
from tests.support.scripts import ROOT, run_here


@pytest.fixture
def other(tmp_path: Path) -> Classifier:
    """Another classifier over the same preprocess and engine steps."""
    return copy_colours(tmp_path / "in/other", spec={"name": "other"}, bundle=replaced("labels.txt", b"blue", b"azure"))


def changes(plan: RepositoryPlan) -> dict[str, list[str]]:
    """Change to the names of the folders; of steps, to their kinds."""
    found: dict[str, list[str]] = {}
    for folder in plan.folders:
        found.setdefault(folder.change, []).append(re.sub("_[0-9a-f]{12}$", "", folder.name))
    return {change: sorted(names) for change, names in found.items()}


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of the last change of every file and folder."""
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in (folder, *folder.rglob("*"))
    }


def test_the_first_time_everything_is_added(tmp_path: Path) -> None:
    plan = plan_repository([open_colours(COLOURS)], tmp_path / "out")
    assert changes(plan) == {"added": ["colours", "colours_full", "engine", "post", "preprocess"]}
    plan.write()
    sizes = {folder.name: folder.size for folder in plan.folders}
    for name, size in sizes.items():
        assert size == sum(path.stat().st_size for path in (tmp_path / "out" / name).rglob("*") if path.is_file())


def test_planning_writes_nothing(tmp_path: Path, other: Classifier) -> None:
    plan_repository([other], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assemble([open_colours(COLOURS)], tmp_path / "out")
    before = identities(tmp_path)
    plan_repository([other], tmp_path / "out")
    assert identities(tmp_path) == before


def test_the_second_time_nothing_is_touched(tmp_path: Path) -> None:
    assemble([open_colours(COLOURS)], tmp_path / "out")
    before = identities(tmp_path)
    plan = plan_repository([open_colours(COLOURS)], tmp_path / "out")
    assert plan.changes_nothing
    assert changes(plan) == {"unchanged": ["colours", "colours_full", "engine", "post", "preprocess"]}
    plan.write()
    assert identities(tmp_path) == before


def test_a_new_classifier_is_written_and_the_others_files_stay_the_same_files(
    tmp_path: Path, other: Classifier
) -> None:
    out = tmp_path / "out"
    assemble([open_colours(COLOURS)], out)
    before = identities(out)
    plan = plan_repository([open_colours(COLOURS), other], out)
    assert changes(plan)["added"] == ["other", "other_full", "post"]
    assert changes(plan)["unchanged"] == ["colours", "colours_full", "engine", "post", "preprocess"]
    plan.write()
    after = identities(out)
    files = {path for path in before if (out / path).is_file()} - {"lane.json", "manifest.json"}
    assert {path: after[path] for path in files} == {path: before[path] for path in files}
    assert len(files) > 15
    Manifest.open(out, kind="repository")
    assemble([open_colours(COLOURS), other], tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


def test_a_classifier_that_goes_takes_along_what_nobody_else_needs(tmp_path: Path, other: Classifier) -> None:
    out = tmp_path / "out"
    assemble([open_colours(COLOURS), other], out)
    plan = plan_repository([open_colours(COLOURS)], out)
    assert changes(plan)["removed"] == ["other", "other_full", "post"]
    assert all(folder.size > 0 for folder in plan.folders if folder.change == "removed")
    plan.write()
    assemble([open_colours(COLOURS)], tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


def test_an_ensemble_over_new_steps_is_changed(tmp_path: Path) -> None:
    assemble([open_colours(COLOURS)], tmp_path / "out")
    newer = copy_colours(tmp_path / "newer", spec={"serving": {"threads": 2}})
    assert changes(plan_repository([newer], tmp_path / "out")) == {
        "added": ["engine", "preprocess"],
        "changed": ["colours", "colours_full"],
        "removed": ["engine", "preprocess"],
        "unchanged": ["post"],
    }


def graph_of(repository: Path) -> Path:
    (graph,) = repository.glob("engine_*/1/model.onnx")
    return graph


def damage(path: Path) -> None:
    """One flipped bit, of a digit, so that JSON stays JSON; size and time stay."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[next(at for at in range(len(data) // 2, len(data)) if data[at] in b"0123456789")] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def link_elsewhere(path: Path) -> None:
    shutil.move(path, path.parents[3] / "moved")
    path.symlink_to(path.parents[3] / "moved")


DEFECTS = {
    "damaged": damage,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "missing": lambda path: path.unlink(),
    "a link": link_elsewhere,
    "a stranger beside it": lambda path: (path.parent / "stranger.txt").write_text(""),
    "a link beside it": lambda path: (path.parent / "stranger").symlink_to("/etc"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_folder_that_is_not_what_it_was_is_changed_and_made_good(defect: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assemble([open_colours(COLOURS)], out)
    good = contents(out)
    DEFECTS[defect](graph_of(out))
    plan = plan_repository([open_colours(COLOURS)], out)
    assert not plan.changes_nothing
    assert changes(plan) == {"changed": ["engine"], "unchanged": ["colours", "colours_full", "post", "preprocess"]}
    plan.write()
    assert contents(out) == good
    assert not graph_of(out).is_symlink()
    Manifest.open(out, kind="repository")


@pytest.mark.parametrize("path", ["lane.json", "manifest.json"])
def test_a_damaged_file_at_the_root_is_written_anew(path: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assemble([open_colours(COLOURS)], out)
    good = contents(out)
    damage(out / path)
    assert not plan_repository([open_colours(COLOURS)], out).changes_nothing
    assemble([open_colours(COLOURS)], out)
    assert contents(out) == good


def test_a_stranger_at_the_root_goes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assemble([open_colours(COLOURS)], out)
    (out / "notes.txt").write_text("mine")
    assemble([open_colours(COLOURS)], out)
    Manifest.open(out, kind="repository")


def test_an_empty_folder_that_triton_would_take_for_a_model_goes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assemble([open_colours(COLOURS)], out)
    (out / "empty").mkdir()
    plan = plan_repository([open_colours(COLOURS)], out)
    assert changes(plan)["removed"] == ["empty"]
    plan.write()
    assert not (out / "empty").exists()


def test_a_file_that_was_damaged_after_the_plan_is_not_linked(tmp_path: Path, other: Classifier) -> None:
    out = tmp_path / "out"
    assemble([open_colours(COLOURS)], out)
    plan = plan_repository([open_colours(COLOURS), other], out)
    graph = graph_of(out)
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    plan.write()
    Manifest.open(out, kind="repository")


def test_a_source_that_changes_while_it_is_copied_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    classifier = copy_colours(tmp_path / "in")
    plan = plan_repository([classifier], tmp_path / "out")
    damage(tmp_path / "in/engine/model.onnx")
    with pytest.raises(ManifestError, match=r"in/engine/model.onnx: changed while the repository was assembled"):
        plan.write()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_large_files_are_not_read_before_they_are_copied(tmp_path: Path) -> None:
    plan = plan_repository([open_colours(COLOURS)], tmp_path / "out")
    elsewhere = {path.rpartition("/")[2] for path, content in plan.files.items() if isinstance(content.source, str)}
    assert "model.onnx" in elsewhere


FLEET = """
classifiers:
  colours: {active: {bundle: in/colours/bundle, engine: [in/colours/engine]}}
  other: {active: {bundle: in/other/bundle, engine: [in/other/engine]}}
multi: {page: [colours, other]}
"""


@pytest.fixture
def fleet(tmp_path: Path, other: Classifier) -> Path:
    assert other.name == "other"
    shutil.copytree(COLOURS, tmp_path / "in/colours")
    (tmp_path / "fleet.yaml").write_text(FLEET)
    return tmp_path


def script(folder: Path, *options: str) -> tuple[str, dict[str, object]]:
    done = run_here("assemble", "fleet.yaml", "--out", "out", "--json", *options, cwd=folder)
    return done.stdout, json.loads(done.stdout.splitlines()[-1])


def test_the_script_prints_the_plan_and_a_dry_run_writes_nothing(fleet: Path) -> None:
    said, result = script(fleet, "--dry-run")
    assert not (fleet / "out").exists()
    assert result["written"] is False
    for part in (
        "colours: bundle",
        "in/other/engine: openvino fp32 (reference)",
        "page: colours, other from one decode",
    ):
        assert part in said
    assert "9 added" in said
    assert "nothing was written" in said
    folders = result["folders"]
    assert isinstance(folders, list)
    assert {folder["change"] for folder in folders} == {"added"}


def test_the_script_says_that_nothing_changed_and_touches_nothing(fleet: Path) -> None:
    said, result = script(fleet)
    assert result["written"] is True
    assert result["multi"] == {"page": ["colours", "other"]}
    before = identities(fleet)
    said, result = script(fleet)
    assert "nothing changed, and nothing was written" in said
    assert "9 unchanged" in said
    assert result["written"] is False
    assert identities(fleet) == before


def test_a_disk_that_is_full_is_an_error_in_words_and_leaves_what_was_there(fleet: Path) -> None:
    script(fleet)
    before = identities(fleet / "out")
    (fleet / "fleet.yaml").write_text("serving: {threads: 2}\n" + FLEET)
    limited = ("prlimit", "--fsize=2000:2000")  # not a preexec_fn: a fork of the tests has gRPC's threads
    command = (*limited, sys.executable, str(ROOT / "build/assemble.py"), "fleet.yaml", "--out", "out")
    done = subprocess.run(command, cwd=fleet, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "assemble.py: out: cannot be written: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert identities(fleet / "out") == before
    assert sorted(path.name for path in fleet.iterdir()) == ["fleet.yaml", "in", "out"]
