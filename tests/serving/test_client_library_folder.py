"""The folder tool as a user runs it: every image once in the CSV, whatever stopped it before."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.client_sides import COLOURS, address, encode
from tests.support.processes import running_process

TOOL = Path(__file__).parents[2] / "clients" / "classify_folder.py"
IMAGES = 3000
Command = Callable[..., list[str]]


@pytest.fixture
def command(example_server: Any, tmp_path: Path) -> Command:
    """As in a terminal: a job in the background is started with Ctrl-C ignored."""

    def command(*arguments: str, protocol: str = "grpc") -> list[str]:
        python = ["env", "--default-signal=INT", sys.executable, str(TOOL), str(tmp_path / "images")]
        answers = ["--model", "colours", "--out", str(tmp_path / "answers.csv")]
        return [*python, *answers, "--url", address(example_server, protocol), *arguments]

    return command


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def images(folder: Path, count: int) -> None:
    """So many files in nested folders, named by their colour."""
    for index in range(count):
        colour = sorted(COLOURS)[index % 3]
        path = folder / str(index % 10) / f"{index}_{colour}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        first = folder / str(index % 3) / f"{index % 3}_{colour}.png"
        if path == first:
            path.write_bytes(encode(colour, kind="PNG"))
        else:
            os.link(first, path)


def colour_of(name: str) -> str:
    return name.rpartition("_")[2].removesuffix(".png")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_every_image_is_a_row_and_the_same_command_again_asks_for_what_is_new(
    command: Command, tmp_path: Path, protocol: str
) -> None:
    images(tmp_path / "images", 30)
    (tmp_path / "images/0/cut.jpg").write_bytes(encode("red")[:300])
    (tmp_path / "images/gone.jpg").symlink_to("nowhere")
    (tmp_path / "images/two\nlines_red.png").write_bytes(encode("red"))
    done = run(command("--json", protocol=protocol))
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])["summary"]
    assert (summary["images"], summary["answered"], summary["not_answered"], summary["kept"]) == (33, 31, 2, 0)
    assert summary["images_per_s"] > 0
    by_name = {row["file"]: row for row in rows(tmp_path / "answers.csv")}
    assert len(by_name) == len(rows(tmp_path / "answers.csv")) == 33
    assert by_name.pop("0/cut.jpg")["status_name"] == "corrupt"
    assert "No such file" in by_name.pop("gone.jpg")["error"]
    for name, row in by_name.items():
        assert (row["label"], row["status"], row["model"], row["error"]) == (colour_of(name), "0", "colours", "")
        assert len(json.loads(row["candidates"])) == 1

    (tmp_path / "images/gone.jpg").unlink()
    (tmp_path / "images/gone.jpg").write_bytes(encode("blue"))
    (tmp_path / "images/new_green.png").write_bytes(encode("green"))
    done = run(command(protocol=protocol))
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("33 of 34 answered; ")
    assert sorted(row["file"] for row in rows(tmp_path / "answers.csv")) == sorted(
        [*by_name, "0/cut.jpg", "gone.jpg", "new_green.png"]
    )


def test_a_run_that_is_killed_or_interrupted_is_continued_without_a_loss_or_a_repetition(
    command: Command, tmp_path: Path
) -> None:
    images(tmp_path / "images", IMAGES)
    answers = tmp_path / "answers.csv"
    for ending, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        before_bytes = answers.stat().st_size if answers.exists() else 0
        with running_process(command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 120
            while not answers.exists() or answers.stat().st_size < before_bytes + 20_000:
                assert process.poll() is None
                assert time.monotonic() < deadline, f"{answers} does not grow"
                time.sleep(0.005)
            process.send_signal(ending)
            _, said = process.communicate(timeout=20)
        assert process.returncode == code
    assert "interrupted; the same command continues from here" in said
    whole = answers.read_bytes()
    answers.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 20])  # the last line is half written
    done = run(command("--json"))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])["summary"]
    assert (summary["images"], summary["answered"]) == (IMAGES, IMAGES)
    assert 100 < summary["kept"] < IMAGES
    found = rows(answers)
    assert len(found) == len({row["file"] for row in found}) == IMAGES
    assert [row for row in found if row["label"] != colour_of(row["file"])] == []


def test_nobody_listening_keeps_what_is_there_and_says_so(command: Command, tmp_path: Path) -> None:
    images(tmp_path / "images", 3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses for sure
        url = f"grpc://127.0.0.1:{taken.getsockname()[1]}"
        done = run(command("--url", url, "--reconnect-s", "0", "--json"))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"no tritonserver answers at {url}")
    assert "Traceback" not in done.stderr
    assert run(command()).returncode == 0


def test_a_folder_without_an_image_is_said(command: Command, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    done = run(command())
    assert done.returncode == 1
    (row,) = rows(tmp_path / "answers.csv")
    assert "a folder without an image in it" in row["error"]
