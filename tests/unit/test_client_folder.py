"""The folder tool's CSV: whatever byte a run is killed at, the next one keeps whole answers and asks for the rest."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.cli import classify
from slipway.client import Candidate, RequestError, Result
from slipway.contract import SpecError
from tests.support.scripts import run_here

TOOL = Path(__file__).parents[2] / "clients" / "classify_folder.py"
NAMES = [
    "a.jpg",
    "b/c.jpg",
    "two\nlines.jpg",
    "two\r\nlines.jpg",
    'a "quoted", name.jpg',
    "ü.jpg",
    os.fsdecode(b"\xff.jpg"),
]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return classify


def answered(name: str, status: int = 0) -> Result:
    return Result(name, "x.0", status=status, label="red", score=0.9, class_id=2, candidates=(Candidate("a", 0.1, 0),))


def write(tool: ModuleType, path: Path, results: list[Result], model: str = "colours") -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, tool.FIELDS)
        writer.writeheader()
        writer.writerows(tool.row(result.source, result, model=model) for result in results)


def test_whatever_byte_a_run_is_killed_at_the_next_keeps_the_rows_that_are_whole(
    tool: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "out.csv"
    write(tool, path, [answered(name) for name in NAMES])
    whole = path.read_bytes()
    ends, kept_before = [], -1
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        kept = tool.keep_answers(path, model="colours")
        assert list(kept) == NAMES[: len(kept)]
        assert whole.startswith(path.read_bytes())
        if len(kept) > kept_before:
            ends.append(end)
            kept_before = len(kept)
    assert kept_before == len(NAMES)
    assert ends[-1] == len(whole)


def test_rows_with_a_status_stay_and_rows_with_an_error_are_asked_again(tool: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    results = [answered("good.jpg"), answered("cut.jpg", 3), Result("late.jpg", "x.1", error=RequestError("late"))]
    write(tool, path, [*results, answered("good.jpg")])
    assert tool.keep_answers(path, model="colours") == {"good.jpg": True, "cut.jpg": False}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["good.jpg", "cut.jpg"]
    assert json.loads(rows[0]["candidates"]) == [{"label": "a", "score": 0.1, "class_id": 0}]
    assert (rows[1]["status"], rows[1]["status_name"]) == ("3", "corrupt")


def test_answers_of_another_model_are_not_mixed_in(tool: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write(tool, path, [answered("a.jpg")], model="shapes")
    before = path.read_bytes()
    with pytest.raises(SpecError, match="has answers of model 'shapes', not 'colours'; give another --out"):
        tool.keep_answers(path, model="colours")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@given(st.binary(min_size=1, max_size=200))
def test_a_file_of_somebody_else_is_not_overwritten(
    tool: ModuleType, tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("out") / "notes.txt"
    path.write_bytes(b"x" + data)
    with pytest.raises(SpecError, match="not a CSV file of this tool"):
        tool.keep_answers(path, model="colours")
    assert path.read_bytes() == b"x" + data


def test_lines_that_an_editor_ended_in_its_own_way_are_still_rows(tool: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write(tool, path, [answered("a.jpg"), answered("b.jpg")])
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    assert list(tool.keep_answers(path, model="colours")) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--deadline-s", "0.001"], "deadline_s is 0.001; use 0.01 to"),
        (["--url", "127.0.0.1:8001"], "use grpc://host:8001 or http://host:8000"),
        (["--model", "../x"], "a-z, 0-9 and _"),
        (["--batch-size", "0"], "batch_size is 0; use a whole number"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_written(tmp_path: Path, arguments: list[str], message: str) -> None:
    words = (tmp_path, "--model", "colours", "--out", tmp_path / "out.csv", *arguments)
    done = run_here("classify", *words, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert not (tmp_path / "out.csv").exists()


def test_help_teaches_and_says_what_the_exit_status_means() -> None:
    done = subprocess.run([sys.executable, TOOL, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "again, after Ctrl-C: continues" in done.stdout
    assert "exit status: 0 all images answered" in done.stdout
