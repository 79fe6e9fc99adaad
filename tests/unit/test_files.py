"""`complete_folder`: a folder appears whole or not at all."""

import contextlib
import os
from pathlib import Path

import pytest

from slipway.contract import ManifestError, SlipwayError
from slipway.system.files import complete_folder


def write(folder: Path, text: str) -> None:
    (folder / "inspection.json").touch()
    (folder / "below").mkdir()
    (folder / "below/file").write_text(text)


def test_a_complete_folder_appears_with_its_contents(tmp_path: Path) -> None:
    target = tmp_path / "new/parents/target"
    with complete_folder(target, kind="inspection") as staging:
        assert staging.parent == target.parent
        write(staging, "whole")
        assert not target.exists()
    assert (target / "below/file").read_text() == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def write_and_raise(folder: Path, error: type[BaseException]) -> None:
    write(folder, "half")
    raise error


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("error", [ValueError, ManifestError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_folder_leaves_nothing_and_the_old_one_whole(
    tmp_path: Path, error: type[BaseException], existing: bool
) -> None:
    target = tmp_path / "target"
    if existing:
        target.mkdir()
        write(target, "old")
    with pytest.raises(error), complete_folder(target, kind="inspection") as staging:
        write_and_raise(staging, error)
    assert [path.name for path in tmp_path.iterdir()] == (["target"] if existing else [])
    assert not existing or (target / "below/file").read_text() == "old"


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "inspection.json").touch()
    (target / "only in the old one").touch()
    with complete_folder(target, kind="inspection") as staging:
        write(staging, "new")
        assert (target / "only in the old one").exists()
    assert sorted(path.name for path in target.iterdir()) == ["below", "inspection.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_replacement_that_fails_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    target.mkdir()
    write(target, "old")
    rename = os.rename

    def fail_on_the_new_one(source: Path, destination: Path) -> None:
        if Path(destination) == target and not Path(source).name.endswith(".old"):
            raise KeyboardInterrupt
        rename(source, destination)

    monkeypatch.setattr("slipway.system.files._exchange", lambda *_: False)
    monkeypatch.setattr(os, "rename", fail_on_the_new_one)
    exchange = pytest.warns(RuntimeWarning, match="cannot exchange two folders in one step")
    with exchange, pytest.raises(KeyboardInterrupt), complete_folder(target, kind="inspection") as staging:
        write(staging, "new")
    assert (target / "below/file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_file_in_the_place_of_the_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("a file")
    with contextlib.suppress(SlipwayError), complete_folder(tmp_path / "target", kind="bundle") as staging:
        write(staging, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
