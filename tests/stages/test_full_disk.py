"""A disk that is full, read-only or forbidden is one sentence, and leaves what was there."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from slipway.contract import SpecError, StorageError
from slipway.engines import build_engine
from slipway.operations.journal.backup import back_up
from slipway.system.files import complete_folder
from slipway.system.targets import check_file, check_folder, storage_error, write_file
from slipway.training import train
from slipway.training.data.inspection import inspect
from slipway.training.learn.callbacks import WholeCheckpoints
from slipway.training.search.hyperparameters import search
from slipway.training.search.label_errors import find_label_errors
from tests.support.colour_training import small_spec, write_colours
from tests.support.journal_rows import add_rows, journal_in, made_row
from tests.support.targets import ABSENT, SPACE, STAGES, bundle, make_data, spec


@contextmanager
def mounted(disk: Path, options: str) -> Iterator[Path]:
    """A file system in memory."""
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)  # SQLite may still have its file open


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "full", "size=64k") as disk:
        yield disk


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "read only", "ro") as disk:
        yield disk


def test_a_full_disk_is_one_sentence_and_leaves_nothing(full: Path) -> None:
    with pytest.raises(StorageError) as raised:
        write_file(full / "page.html", "x" * 200_000)
    assert str(raised.value) == (
        f"{full / 'page.html'}: cannot be written: No space left on device; "
        "free some space, or give a path on another disk"
    )
    with pytest.raises(StorageError, match="out: cannot be written: No space left"):  # noqa: SIM117
        with complete_folder(full / "out", kind="bundle") as staging:
            (staging / "model.onnx").write_bytes(b"x" * 200_000)
    assert os.listdir(full) == []


def test_a_disk_without_a_free_block_is_refused_before_the_work(full: Path) -> None:
    with suppress(OSError), (full / "everything").open("wb", buffering=0) as file:
        while file.write(bytes(1024)):
            pass
    for check in (partial(check_folder, kind="bundle"), partial(check_file, mark="x", what="a page")):
        with pytest.raises(StorageError, match="out: cannot be written: No space left on device; free some space"):
            check(full / "a/out")
    assert os.listdir(full) == ["everything"]


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "compile"])
def test_every_stage_refuses_a_disk_that_cannot_be_written_before_it_works(stage: str, read_only: Path) -> None:
    run = STAGES[stage][1]
    if stage == "inspect":  # its data lie elsewhere
        data = make_data(read_only.parent)
        run = lambda out: inspect(spec(data), out)  # noqa: E731
    with pytest.raises(StorageError, match="out: cannot be written: Read-only file system; give a path on a disk"):
        run(read_only / "a/out")
    (read_only.parent / "file").touch()
    if stage != "inspect":
        with pytest.raises(StorageError, match="out: cannot be written: Not a directory; a part of the path is a file"):
            run(read_only.parent / "file/out")


def test_compile_refuses_a_disk_that_cannot_be_written(read_only: Path) -> None:
    with pytest.raises(StorageError, match="openvino-fp32: cannot be written: Read-only file system"):
        build_engine(bundle(), ABSENT, read_only, target="openvino", precision="fp32", reference=None)


def test_a_name_that_is_too_long_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="File name too long; give a shorter name"):
        check_folder(tmp_path / ("x" * 300), kind="bundle")
    with pytest.raises(StorageError, match="File name too long; give a shorter name"):
        check_file(tmp_path / ("x" * 300), mark="x", what="a page")


def test_a_copy_that_fails_names_where_it_was_copied_to() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/tmp/part", None, "/disk/last.ckpt")
    assert str(storage_error(error)).startswith("/disk/last.ckpt: No space left on device; free some space")


@pytest.mark.parametrize("error", [OSError(errno.ECONNRESET, "reset"), PermissionError(errno.EACCES, "of a socket")])
def test_an_error_that_is_not_of_files_keeps_its_traceback(error: OSError) -> None:
    assert storage_error(error) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_script_of_somebody_who_may_not_write_there_ends_in_one_sentence() -> None:
    code = (
        "import argparse, os; from pathlib import Path; from slipway.system.process import run; "
        "from slipway.system.files import complete_folder; parser = argparse.ArgumentParser(prog='stage'); "
        "os.setuid(65534); "
        "run(lambda _: complete_folder(Path('/usr/ours'), kind='bundle').__enter__(), parser)"
    )
    environment = {**os.environ, "HOME": "/tmp"}  # which somebody else may write, unlike root's
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    sentence = "stage: /usr/ours: cannot be written: Permission denied; change its permissions, or give another path\n"
    assert (done.returncode, done.stderr) == (1, sentence)


def test_a_contract_that_finds_the_disk_full_says_where(full: Path) -> None:
    with pytest.raises(StorageError, match=r"full/space\.json: cannot be written: No space left on device; free some"):
        SPACE.model_copy(update={"metric": "x" * 200_000}).write(full / "space.json")


def test_a_search_that_finds_the_disk_full_says_so(full: Path) -> None:
    with pytest.raises(StorageError, match=r"study\.db: cannot be written: database or disk is full; fix that"):
        search(spec(), SPACE, full / "search", trials=1, seed=0)


def test_a_backup_on_a_full_disk_names_that_disk_and_not_the_journals(full: Path, tmp_path: Path) -> None:
    with journal_in(tmp_path / "journal", make=True) as store:
        add_rows(store, [made_row(str(number)) for number in range(1000)])
        with pytest.raises(StorageError, match=r"full/backup: .*No space left on device; free some space, or"):
            back_up(store, full / "backup", progress=lambda _: None)
    assert os.listdir(full) == []


def test_a_full_disk_leaves_the_checkpoint_of_the_epoch_before(full: Path) -> None:
    files = WholeCheckpoints()
    files.save_checkpoint({"epoch": 1}, full / "last.ckpt")
    with pytest.raises(OSError, match="No space left on device"):
        files.save_checkpoint({"epoch": 2, "weights": torch.zeros(100_000)}, full / "last.ckpt")
    assert torch.load(full / "last.ckpt", weights_only=True) == {"epoch": 1}
    assert os.listdir(full) == ["last.ckpt"]


@pytest.mark.parametrize("name", ["checkpoint.resume", "errors.folds"])
def test_what_stands_where_a_stage_keeps_its_unfinished_work_is_not_touched(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "precious").write_text("precious")
    data = write_colours(tmp_path / "data")
    stage = train if name.endswith("resume") else find_label_errors
    options: dict[str, Any] = {} if stage is train else {"folds": 2, "seed": 0}
    with pytest.raises(SpecError, match=f"{name}: (.*); rename it"):
        stage(small_spec(data), (tmp_path / name).with_suffix(""), **options)
    assert os.listdir(tmp_path / name) == ["precious"]
