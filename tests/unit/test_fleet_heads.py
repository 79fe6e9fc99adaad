"""The heads of a base in a fleet file: a pattern, a list or a mapping finds their runs, or says what it lacks."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import Fleet, RepositoryError, SpecError
from slipway.repository import BaseHeads, open_bases
from tests.support.colours import COLOURS
from tests.support.heads import write_base, write_head


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base` and the heads `heads/a` and `heads/b`."""
    folder = tmp_path_factory.mktemp("fleet [1]")  # no pattern of ours
    write_base(folder / "base")
    for name in ("a", "b"):
        write_head(folder / "heads" / name, folder / "base", name=name)
    return folder


def opened(root: Path, heads: Any) -> BaseHeads:
    fleet = Fleet.parse({"bases": {"tiny": {"base": "base", "heads": heads}}}, source="fleet.yaml")
    (own,) = open_bases(fleet, root=root)
    return own


@pytest.mark.parametrize("heads", ["heads/*", ["heads/a", "heads/b"], ["heads/a", "*/b", "heads/a"], "ROOT/heads/*"])
def test_a_pattern_or_a_list_finds_runs_which_keep_their_names(made: Path, heads: Any) -> None:
    if isinstance(heads, str):
        heads = heads.replace("ROOT", str(made).replace("[", "[[]"))
    assert opened(made, heads).runs == {name: made / "heads" / name for name in ("a", "b")}


def test_a_folder_is_found_by_its_name_with_signs_of_a_pattern_or_a_dot(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "copy")
    (tmp_path / "copy/heads/a").rename(tmp_path / "copy/heads/pets[v2]")
    (tmp_path / "copy/heads/b").rename(tmp_path / "copy/heads/.b")
    assert opened(tmp_path / "copy", "heads/pets[v2]").runs == {"a": tmp_path / "copy/heads/pets[v2]"}
    assert opened(tmp_path / "copy", "heads/*").runs.keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        ("none/*", r"none/\*: finds no run of slipway head; make one"),
        ("heads/**x/*", "finds no run of slipway head"),
        ("heads", r"heads: finds no run of slipway head; for the runs in this folder, write heads/\*"),
        (["heads/*", "none"], "none: finds no run of slipway head"),
        ("", "bases.tiny.heads: name at least one head: by a pattern"),
        ([], "bases.tiny.heads: name at least one head: by a pattern"),
        ({}, "bases.tiny.heads: name at least one head: by a pattern"),
        (5, "bases.tiny.heads: name at least one head: by a pattern"),
        ({"A-b": "heads/a"}, "heads.names.A-b.*: use 1 to 63 characters"),
    ],
)
def test_heads_that_are_not_there_are_refused_with_what_to_write(made: Path, heads: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        opened(made, heads)


def test_two_heads_of_one_name_are_named_by_their_folders(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "copy")
    shutil.copytree(made / "heads/a", tmp_path / "copy/heads/c")
    with pytest.raises(RepositoryError, match=r"heads/a and .*heads/c: heads of one name, a; give one of them another"):
        opened(tmp_path / "copy", "heads/*")


def test_a_run_that_does_not_stand_on_the_base_is_named_before_its_form_is_missed(made: Path, tmp_path: Path) -> None:
    other = write_base(tmp_path / "other", seed=1)
    write_head(tmp_path / "head", other, name="foreign")
    shutil.rmtree(tmp_path / "head/engines")
    heads = opened(made, {"foreign": str(tmp_path / "head"), "whole": str(COLOURS)})
    with pytest.raises(RepositoryError, match=r"a head on base tiny .* but .*base is base .*; fit it again"):
        heads.open("foreign")
    with pytest.raises(RepositoryError, match="a whole classifier, which needs no base: name it below classifiers"):
        heads.open("whole")
