"""What is no repository, or hardly one: findings, and never a traceback."""

import ast
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.lint import lint
from slipway.lint.literals import UNKNOWN, Literals
from slipway.lint.models import CONFIG_BYTES
from tests.support.seeded_defects import good


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return shutil.copytree(good("example"), tmp_path / "repository")


def model_folder(repository: Path) -> Path:
    (folder,) = repository.glob("post_*")
    return folder


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (bytes(range(256)) * 40, "config-not-utf8"),
        (b"\0" * 100, "config-syntax"),
        (b"input { " * 100_000, "config-unknown-field"),
        (b"[" * 500_000, "config-syntax"),
        (b"parameters { " * 5, "config-unknown-field"),
        (b'name: "' + b"x" * 900_000, "config-syntax"),
        (b"max_batch_size: 99999999999999999999", "config-syntax"),
        (b"max_batch_size: -2147483648", "batch-size"),
        (b"# " + b"x" * 10_000_000, "config-too-large"),
        (b"dims: " * (CONFIG_BYTES // 6), "config-unknown-field"),
        (b'name: "a\\000b\\nc"', "name-differs"),
        (b'input { name: "\\xff" }', "config-syntax"),
        (b'default_model_filename: "a\\000b" backend: "python"', "model-file-missing"),
        (b'backend: "python" input { dims: 9223372036854775807 dims: 9223372036854775807 }', "tensor-incomplete"),
    ],
    ids=lambda value: str(value[:24])[:24],
)
def test_a_configuration_of_junk_is_a_finding_and_quickly(repository: Path, data: bytes, rule: str) -> None:
    (model_folder(repository) / "config.pbtxt").write_bytes(data)
    started = time.process_time()
    found = lint(repository)
    assert time.process_time() - started < 10.0
    about = {finding.rule for finding in found if finding.model == model_folder(repository).name}
    assert rule in about, found


@given(st.binary(max_size=200))
def test_no_bytes_of_a_configuration_are_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("junk")
    (folder / "a/1").mkdir(parents=True)
    (folder / "a/config.pbtxt").write_bytes(data)
    (folder / "a/1/model.py").write_bytes(data)
    for finding in lint(folder):
        assert str(finding).isprintable()


def test_the_same_words_in_every_file_are_findings(repository: Path) -> None:
    for path in [path for path in repository.rglob("*") if path.is_file()]:
        path.write_bytes(b"{" * 5000)
    found = lint(repository)
    assert {"config-syntax", "manifest-broken", "lane-unreadable"} <= {finding.rule for finding in found}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"lane": "cpu", "classifiers": {"../../etc": "0"}, "shm_default_bytes": 1048576}',
        '{"lane": "cpu", "classifiers": {"a": "0"}, "multi": {"b": ["c"]}, "shm_default_bytes": 99999999}',
        '{"lane": "tpu"}',
        "null",
        "",
    ],
)
def test_a_lane_of_junk_is_a_finding(repository: Path, text: str) -> None:
    (repository / "lane.json").write_text(text)
    assert any(finding.file in ("lane.json", "../../etc", "a", "b") for finding in lint(repository))


def test_what_is_no_folder_and_what_is_empty_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for path, says in (("file", "Not a directory"), ("none", "No such file"), ("empty", "has no folder")):
        (finding,) = lint(tmp_path / path)
        assert finding.rule == "repository-empty"
        assert says in finding.reason
        assert path in finding.reason


def loop(repository: Path) -> None:
    (repository / "loop").symlink_to("loop")
    (model_folder(repository) / "1/up").symlink_to("../..")
    (model_folder(repository) / "2").symlink_to("2")


def round_and_round(repository: Path) -> None:
    (repository / "again").symlink_to(".")


def configuration_is_a_pipe(repository: Path) -> None:
    (model_folder(repository) / "config.pbtxt").unlink()
    os.mkfifo(model_folder(repository) / "config.pbtxt")


def pipes_everywhere(repository: Path) -> None:
    for name in ("1/model.py", "1/labels.txt", "1/decision.json", "1/bundle.txt"):
        (model_folder(repository) / name).unlink()
        os.mkfifo(model_folder(repository) / name)


def folders_in_the_place_of_files(repository: Path) -> None:
    for path in [path for path in repository.rglob("*") if path.is_file()]:
        path.unlink()
        path.mkdir()


def a_configuration_that_links_to_itself(repository: Path) -> None:
    (model_folder(repository) / "config.pbtxt").unlink()
    (model_folder(repository) / "config.pbtxt").symlink_to("config.pbtxt")


def names_that_are_no_text(repository: Path) -> None:
    os.mkdir(os.fsencode(repository) + b"/\xff\xfe")
    os.close(os.open(os.fsencode(model_folder(repository)) + b"/1/\xff.py", os.O_CREAT))
    (repository / "a\nb\x1b[31m").mkdir()


def python_of_junk(repository: Path) -> None:
    (model_folder(repository) / "1/model.py").write_text("(" * 50_000)
    (model_folder(repository) / "1/deep.py").write_text("x = " + "-" * 100_000 + "1")
    (model_folder(repository) / "1/nul.py").write_bytes(b"a = 1\0")


STRANGE: tuple[Callable[[Path], None], ...] = (
    loop,
    round_and_round,
    configuration_is_a_pipe,
    pipes_everywhere,
    folders_in_the_place_of_files,
    a_configuration_that_links_to_itself,
    names_that_are_no_text,
    python_of_junk,
)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("make", STRANGE, ids=lambda make: make.__name__)
def test_strange_files_are_findings(make: Callable[[Path], None], sealed: bool, repository: Path) -> None:
    make(repository)
    if not sealed:
        for name in ("manifest.json", "lane.json"):
            (repository / name).rename(repository.with_name(name))
    found = lint(repository)
    assert found
    assert all(str(finding).isprintable() for finding in found)


def test_folders_in_great_depth_are_no_traceback(repository: Path) -> None:
    (model_folder(repository) / "1").joinpath(*["d" * 50] * 60).mkdir(parents=True)
    assert lint(repository) == []


def test_an_empty_configuration_is_found_by_the_ensembles_that_need_its_tensors(repository: Path) -> None:
    (model_folder(repository) / "config.pbtxt").write_bytes(b"")
    said = {finding.model for finding in lint(repository) if finding.rule == "map-unknown"}
    assert said == {"colours", "colours_full"}


@pytest.fixture
def somebody_else() -> Iterator[None]:
    """Not the owner of the files: root would read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.parametrize(
    "what", ["post", "post/1", "post/config.pbtxt", "post/1/labels.txt", "lane.json", "manifest.json"]
)
def test_what_may_not_be_read_is_a_finding(repository: Path, what: str, request: pytest.FixtureRequest) -> None:
    for parent in repository.parents:
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    path = model_folder(repository) / what.partition("/")[2] if what.startswith("post") else repository / what
    path.chmod(0)
    request.getfixturevalue("somebody_else")
    found = lint(repository)
    os.seteuid(os.getuid())
    path.chmod(0o755)
    assert found
    assert any("ermission denied" in finding.reason or "cannot be read" in finding.reason for finding in found), found


def test_values_that_only_running_the_code_would_tell_are_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "sizes.json").write_text(json.dumps({"batch": 8, "nested": {"a": [1, 2]}}))
    source = """
SIZES = json.loads((HERE / "sizes.json").read_text())
CIRCLE = CIRCLE
MODE = "cpu"
"""
    literals = Literals(ast.parse(source), tmp_path)

    def value(text: str) -> object:
        return literals.value(ast.parse(text, mode="eval").body)

    assert value('SIZES["batch"]') == 8
    assert value('SIZES["nested"]["a"][1]') == 2
    assert value('None if MODE == "cpu" else 0') is None
    assert value("[types.FLOAT, types.UINT8]") == ["FLOAT", "UINT8"]
    for unknown in (
        "CIRCLE",
        "somewhere",
        'SIZES["none"]',
        "max(1, 2)",
        'json.loads("x")',
        "None if f() == 1 else 2",
        "1 + 1",
    ):
        assert value(unknown) is UNKNOWN, unknown
