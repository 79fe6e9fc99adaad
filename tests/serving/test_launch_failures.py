"""Repositories and servers that cannot be served: one sentence with the reason, a non-zero exit, nothing left."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.lint_changes import MODEL

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"
Launch = Callable[..., Any]
Refused = Callable[..., str]
Changed = Callable[[str, str], Path]
HANGS_S = 300
"""A launcher that has not ended by then never would: the model that hangs sleeps for longer."""


@pytest.fixture
def refused(launch: Launch) -> Refused:
    """`refused(repository, *options)` is what the launcher said; it ended with 1 and left nothing."""

    def refused(repository: Path, *options: str | Path, **settings: Any) -> str:
        launched = launch(repository, *options, **settings)
        assert launched.process.wait(timeout=HANGS_S) == 1, launched.said()
        assert launched.leftovers() == []
        assert "Traceback (most recent call last):\n  File" not in launched.said()
        last = launched.said().splitlines()[-1]
        assert last.startswith("slipway serve: ")
        return str(last)

    return refused


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [("post", "raise ValueError('the dog')", "ValueError: the dog"), ("engine", "os._exit(3)", "is not healthy")],
    ids=["raises", "ends its process"],
)
def test_a_model_that_does_not_load_is_named_with_the_servers_own_reason(
    refused: Refused, changed_example: Changed, kind: str, body: str, says: str
) -> None:
    repository = changed_example(kind, MODEL.format(body=body))
    (name,) = (folder.name for folder in repository.glob(f"{kind}_*"))
    said = refused(repository)
    assert name in said
    assert says in said


def test_a_model_that_hangs_is_ended_after_the_time_out(refused: Refused, changed_example: Changed) -> None:
    repository = changed_example("preprocess", MODEL.format(body="time.sleep(10000)"))
    (name,) = (folder.name for folder in repository.glob("preprocess_*"))
    started = time.monotonic()
    said = refused(repository, "--timeout-s", "20")  # the server and the other steps are up long before
    assert time.monotonic() - started < 100, "the default, 120 s, was in force"
    assert f"{name} did not answer within its time" in said


def test_a_model_that_fails_on_every_image_is_never_called_ready(refused: Refused, changed_example: Changed) -> None:
    repository = changed_example("post", MODEL.format(body="pass").replace("return []", "raise KeyError('no answer')"))
    assert "KeyError: 'no answer'" in refused(repository)


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        ("post_*/1/labels.txt", lambda path: path.write_text("red\n"), "changed since this repository was made"),
        ("engine_*/1/model.onnx", Path.unlink, "missing"),
        ("colours/2/notes.txt", lambda path: path.parent.mkdir() or path.touch(), "not in the manifest"),
        ("outside", lambda path: path.symlink_to("/etc"), "a symbolic link"),
    ],
)
def test_a_file_that_differs_from_what_was_assembled_is_named(
    refused: Refused, tmp_path: Path, file: str, damage: Callable[[Path], object], says: str
) -> None:
    repository = shutil.copytree(EXAMPLE, tmp_path / "repository")
    path = next(repository.glob(file), repository / file)
    damage(path)
    assert f"{path}: {says}" in refused(repository)


@pytest.mark.parametrize("what", ["empty", "missing", "file", "bundle"])
def test_what_is_no_repository_is_refused(refused: Refused, tmp_path: Path, what: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    path = EXAMPLE.parents[1] / "tests/assets/colours/bundle" if what == "bundle" else tmp_path / what
    said = refused(path)
    assert f"{path}: " in said
    assert ("bundle, but kind repository is needed" if what == "bundle" else "of a complete repository") in said


def _server_on_path(folder: Path, script: str) -> dict[str, str]:
    """An environment whose tritonserver tells its options, and else runs `script`."""
    (folder / "bin").mkdir()
    options = '[ "$1" = --help ] && echo "  --model-repository <string>" && exit 0'
    (folder / "bin/tritonserver").write_text(f"#!/bin/sh\n{options}\n{script}\n")
    (folder / "bin/tritonserver").chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:/usr/bin:/bin"}


def test_the_server_on_path_is_taken_first_and_its_words_are_passed_on(refused: Refused, tmp_path: Path) -> None:
    environment = _server_on_path(tmp_path, "echo 'error: no GPU for you'; exit 3")
    assert "error: no GPU for you" in refused(EXAMPLE, environment=environment)


def test_a_server_that_ends_without_a_word_is_said_to_have_an_empty_log(refused: Refused, tmp_path: Path) -> None:
    assert "its log is empty" in refused(EXAMPLE, environment=_server_on_path(tmp_path, "exit 3"))


@pytest.mark.parametrize("port", ["-1", "0", "65536", "8000.5"])
@pytest.mark.parametrize("which", ["http", "grpc", "metrics"])
def test_a_port_that_cannot_be_one_is_refused_with_its_option(launch: Launch, which: str, port: str) -> None:
    launched = launch(EXAMPLE, f"--{which}-port={port}")
    assert launched.process.wait(timeout=HANGS_S) in {1, 2}
    assert f"--{which}-port" in launched.said()
    assert "Traceback" not in launched.said()


def test_one_port_for_two_is_refused(launch: Launch) -> None:
    launched = launch(EXAMPLE, "--http-port=18765", "--grpc-port=18765")
    assert launched.process.wait(timeout=HANGS_S) in {1, 2}
    assert "18765" in launched.said().splitlines()[-1]
    assert "Traceback" not in launched.said()


@pytest.mark.parametrize("seconds", ["nan", "0", "-5"])
def test_a_time_out_that_cannot_be_one_is_refused_with_its_option(launch: Launch, seconds: str) -> None:
    launched = launch(EXAMPLE, f"--timeout-s={seconds}")
    assert launched.process.wait(timeout=HANGS_S) in {1, 2}
    assert "--timeout-s" in launched.said()


def test_a_log_that_cannot_be_written_is_named(refused: Refused, tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere/log.txt") in refused(EXAMPLE, "--log", tmp_path / "nowhere/log.txt")


def test_the_log_is_kept_where_it_was_asked_for(refused: Refused, changed_example: Changed, tmp_path: Path) -> None:
    repository = changed_example("post", MODEL.format(body="raise ValueError('see the log')"))
    refused(repository, "--log", tmp_path / "server.log")
    assert "ValueError: see the log" in (tmp_path / "server.log").read_text()
