"""The two client scripts as a user runs them, against a real tritonserver."""

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton_http
from PIL import Image

from tests.support.client_sides import COLOURS, encode

CLIENTS = Path(__file__).parents[2] / "clients"
SIZES = [(48, 48), (64, 200), (300, 120)]
BAD = {"bad/cut.jpg": "corrupt", "bad/empty.jpg": "empty", "bad/text.jpg": "unsupported format"}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["grpc", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(transport: str, example_server: Any) -> str:
    return str(getattr(example_server, f"{transport}_url"))


@pytest.fixture
def run(transport: str, tmp_path: Path) -> Run:
    """Run the transport's script with the given arguments, from a copy of the folder: it needs nothing else of ours."""
    folder = tmp_path / "copied_clients"
    shutil.copytree(CLIENTS, folder, ignore=shutil.ignore_patterns("__pycache__"))

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, folder / f"classify_{transport}.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)

    return run


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Nine JPEG and nine PNG files of mixed sizes, named by their colour, in nested folders."""
    for colour in COLOURS:
        for index, size in enumerate(SIZES):
            for kind in ("jpeg", "png"):
                path = tmp_path / "good" / colour / kind / f"{colour}_{index}.{kind}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode(colour, size, kind))
    return tmp_path / "good"


@pytest.fixture
def mixed(good: Path) -> Path:
    """The good images, and three files among them that are none."""
    (good / "bad").mkdir()
    whole = encode("red", (300, 300))
    (good / "bad/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (good / "bad/empty.jpg").touch()
    (good / "bad/text.jpg").write_text("this is not an image")
    return good


def parse(stdout: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    *rows, last = [json.loads(line) for line in stdout.splitlines()]
    return rows, last["summary"]


@pytest.mark.parametrize("name", ["classify_common.py", "classify_grpc.py", "classify_http.py"])
def test_scripts_import_tritonclient_numpy_and_the_standard_library_alone(name: str) -> None:
    # tritonclient[http] stands on gevent and brings it.
    allowed = sys.stdlib_module_names | {"numpy", "tritonclient", "gevent", "classify_common"}
    for node in ast.walk(ast.parse((CLIENTS / name).read_text(encoding="utf-8"))):
        modules = [node.module or "."] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert {module.split(".")[0] for module in modules} <= allowed


@pytest.mark.parametrize("batch_size", [1, 4, 8])
def test_every_image_of_a_folder_gets_its_label(run: Run, url: str, good: Path, batch_size: int) -> None:
    result = run(good, "--model", "colours", "--url", url, "--json", "--batch-size", str(batch_size))
    assert result.returncode == 0, result.stderr
    rows, summary = parse(result.stdout)
    assert summary == {"images": 18, "answered": 18, "not_answered": 0, "model": "colours"}
    assert [row["file"] for row in rows] == sorted(str(path) for path in good.rglob("*.*"))
    for row in rows:
        assert row["label"] == Path(row["file"]).name.split("_")[0]
        assert (row["status"], row["status_name"], row["error"]) == (0, "ok", None)
        assert row["class_id"] == sorted(COLOURS).index(row["label"])
        assert 0.5 < row["score"] <= 1.0
        assert len(row["candidates"]) == 1
        assert row["candidates"][0]["label"] in COLOURS.keys() - {row["label"]}
        assert row["candidates"][0]["score"] <= row["score"]
    assert len({row["bundle"] for row in rows}) == 1


def test_bad_files_are_reported_and_the_rest_is_answered(run: Run, url: str, mixed: Path) -> None:
    result = run(mixed, "--model", "colours", "--url", url, "--json")
    assert result.returncode == 1, result.stderr
    rows, summary = parse(result.stdout)
    assert summary == {"images": 21, "answered": 18, "not_answered": 3, "model": "colours"}
    for row in rows:
        name = Path(row["file"]).relative_to(mixed).as_posix()
        if name in BAD:
            assert row["status_name"] == BAD[name]
            assert row["status"] != 0
            assert (row["label"], row["score"], row["class_id"], row["candidates"]) == (None, None, None, [])
        else:
            assert row["label"] == Path(name).name.split("_")[0]


def test_an_unknown_colour_is_an_answer(run: Run, url: str, tmp_path: Path) -> None:
    Image.new("RGB", (80, 80), (128, 128, 128)).save(tmp_path / "grey.png")
    result = run(tmp_path / "grey.png", "--model", "colours", "--url", url, "--json")
    assert result.returncode == 0, result.stderr
    (row,), summary = parse(result.stdout)
    assert (summary["answered"], row["status_name"]) == (1, "ok")
    assert (row["label"], row["class_id"]) == ("unknown", -1)
    assert row["score"] < 0.5
    assert row["candidates"][0]["label"] in COLOURS
    assert row["candidates"][0]["score"] == pytest.approx(row["score"])


def test_the_table_is_readable(run: Run, url: str, mixed: Path) -> None:
    result = run(mixed, "--model", "colours", "--url", url)
    assert result.returncode == 1, result.stderr
    header, *lines, blank, last = result.stdout.splitlines()
    assert header.split("  ")[0] == "file"
    assert (blank, last) == ("", "18 of 21 answered")
    assert len(lines) == 21
    label_column, status_column = header.index("label"), header.index("status")
    for line in lines:
        name = Path(line[:label_column].rstrip()).relative_to(mixed).as_posix()
        assert line[status_column:] == BAD.get(name, "ok")
        assert line[label_column:].split(" ")[0] == ("" if name in BAD else Path(name).name.split("_")[0])


def test_full_adds_probabilities_and_the_embedding(run: Run, url: str, mixed: Path) -> None:
    result = run(mixed, "--model", "colours", "--url", url, "--json", "--full")
    assert result.returncode == 1, result.stderr
    rows, summary = parse(result.stdout)
    assert summary["model"] == "colours_full"
    assert len({len(row["embedding"]) for row in rows}) == 1
    for row in rows:
        assert len(row["probability"]) == 3
        if row["status"] == 0:
            assert sum(row["probability"]) == pytest.approx(1.0, abs=1e-4)
            assert row["probability"][row["class_id"]] == pytest.approx(row["score"], abs=1e-6)
            assert any(row["embedding"])
        else:
            assert not any(row["probability"] + row["embedding"])


def test_paths_that_cannot_be_read_are_reported_and_the_rest_is_answered(run: Run, url: str, tmp_path: Path) -> None:
    image = tmp_path / "an image without suffix"
    image.write_bytes(encode("green", (50, 60), "PNG"))
    (tmp_path / "nothing").mkdir()
    (tmp_path / "links").mkdir()
    (tmp_path / "links/dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "pipe")
    paths = [tmp_path / "missing", tmp_path / "nothing", tmp_path / "links", tmp_path / "pipe", image]
    result = run(*paths, "--model", "colours", "--url", url, "--json")
    assert result.returncode == 1, result.stderr
    rows, summary = parse(result.stdout)
    assert (summary["images"], summary["answered"]) == (5, 1)
    assert [row["label"] for row in rows] == [None, None, None, None, "green"]
    assert [row["status"] for row in rows] == [None, None, None, None, 0]
    reasons = ["No such file", "no image in this folder", "No such file", "not a regular file"]
    assert all(reason in row["error"] for reason, row in zip(reasons, rows, strict=False))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads files whatever their permissions")
def test_a_file_without_read_permission_is_reported(run: Run, url: str, good: Path) -> None:
    next(good.rglob("*.png")).chmod(0)
    result = run(good, "--model", "colours", "--url", url)
    assert result.returncode == 1
    assert "cannot be read: Permission denied" in result.stdout
    assert result.stdout.endswith("17 of 18 answered\n")


def test_only_files_with_an_image_suffix_are_taken_from_a_folder(run: Run, url: str, good: Path) -> None:
    (good / "notes.txt").write_text("left out")
    result = run(good, "--model", "colours", "--url", url)
    assert result.returncode == 0
    assert "left out 1 file(s) without an image suffix" in result.stderr
    named = run(good / "notes.txt", "--model", "colours", "--url", url)
    assert named.returncode == 1
    assert "unsupported format" in named.stdout


def test_file_names_with_line_breaks_and_bytes_that_are_no_text_keep_to_one_line(
    run: Run, url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "two\nlines.png").write_bytes(encode("blue", (40, 40), "PNG"))
    (folder / os.fsdecode(b"\xff\xfe.png")).write_bytes(encode("red", (40, 40), "PNG"))
    table = run(folder, "--model", "colours", "--url", url)
    assert table.returncode == 0, table.stderr
    assert len(table.stdout.splitlines()) == 1 + 2 + 2
    rows, _ = parse(run(folder, "--model", "colours", "--url", url, "--json").stdout)
    assert [(Path(row["file"]).name, row["label"]) for row in rows] == [
        ("two\nlines.png", "blue"),
        (os.fsdecode(b"\xff\xfe.png"), "red"),
    ]


def test_a_batch_size_over_the_models_limit_is_capped_with_a_message(run: Run, url: str, good: Path) -> None:
    result = run(good, "--model", "colours", "--url", url, "--batch-size", "64")
    assert result.returncode == 0
    assert "colours takes at most 8 images a request: sending 8, not 64" in result.stderr


def test_an_unknown_model_is_refused_with_those_that_are_ready(run: Run, url: str, good: Path) -> None:
    result = run(good, "--model", "shapes", "--url", url, "--json")
    assert (result.returncode, result.stdout) == (3, "")
    assert "model 'shapes' cannot be used" in result.stderr
    assert result.stderr.endswith("give --model one that is ready: colours\n")


def test_a_step_of_an_ensemble_is_no_classifier(run: Run, url: str, example_server: Any, good: Path) -> None:
    with triton_http.InferenceServerClient(example_server.http_url) as client:
        names = [model["name"] for model in client.get_inference_statistics()["model_stats"]]
    step = next(name for name in names if name.startswith("engine_"))
    result = run(good, "--model", step, "--url", url)
    assert (result.returncode, result.stdout) == (3, "")
    assert f"model '{step}' is not a classifier of Slipway" in result.stderr


def test_nobody_listening_is_one_clear_sentence(run: Run, good: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses for sure
        url = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run(good, "--model", "colours", "--url", url)
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.startswith(f"no tritonserver answers at {url}: start one, or name one with --url")
    assert len(result.stderr.splitlines()) == 1


def test_the_port_of_the_other_protocol_is_server_trouble(
    run: Run, transport: str, example_server: Any, good: Path
) -> None:
    other = example_server.http_url if transport == "grpc" else example_server.grpc_url
    result = run(good, "--model", "colours", "--url", other)
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.startswith(f"no tritonserver answers at {other}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--timeout-s", "0.001"], "use 0.01 to 3600 seconds"),
        (["--timeout-s", "nan"], "use 0.01 to 3600 seconds"),
        (["--batch-size", "0"], "use 1 or more"),
        (["--url", "http://127.0.0.1:8000"], "use host:port without a scheme"),
        (["--url", "localhost"], "use host:port without a scheme"),
        (["--full"], "add --json"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_sent(run: Run, arguments: list[str], message: str) -> None:
    result = run("image.jpg", "--model", "colours", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr


def test_help_says_what_the_exit_status_and_the_json_lines_mean(run: Run) -> None:
    result = run("--help")
    assert result.returncode == 0
    assert "exit status: 0 all images answered" in result.stdout
    assert "summary on the last line" in result.stdout


def test_images_over_four_mebibytes_are_answered_past_a_proxy_of_the_environment(
    run: Run, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), np.uint8)
    for name in ("one", "two", "three"):
        Image.fromarray(noise).save(tmp_path / f"{name}.png")
    assert (tmp_path / "one.png").stat().st_size > 4 * 2**20
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a proxy that nobody can reach
        for variable in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{taken.getsockname()[1]}")
        result = run(tmp_path, "--model", "colours", "--url", url, "--json")
    *rows, summary = map(json.loads, result.stdout.splitlines())
    assert [row["status_name"] for row in rows] == ["ok"] * 3
    assert (summary["summary"]["answered"], result.returncode) == (3, 0)
