"""locust's users against a real server: both protocols, what counts as a failure, and the ramp."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.load_tools import colour_images, locust


@pytest.fixture
def server(example_server: Any, tmp_path: Path) -> tuple[str, ...]:
    """Options that ask `colours` for the images of `tmp_path / "images"`."""
    images = colour_images(tmp_path / "images")
    urls = ("--grpc-url", example_server.grpc_url, "--http-url", example_server.http_url)
    return ("--model", "colours", "--images", str(images), *urls)


def test_users_of_both_protocols_are_answered_and_ramp_up_in_steps(server: Any, tmp_path: Path) -> None:
    load = ("--clients", "4", "--duration-s", "4", "--ramp-steps", "2")
    run = locust(*server, *load, "--loglevel", "DEBUG", folder=tmp_path / "run")
    assert run.code == 0, run.said
    assert run.figures.keys() == {"gRPC", "HTTP"}
    assert all(figure["name"] == "colours" and figure["num_requests"] > 10 for figure in run.figures.values())
    assert not run.failures
    assert run.said.index("Ramping to 2 users") < run.said.index("Ramping to 4 users")


def test_a_bad_image_is_a_failure_with_a_name_and_harms_no_other(server: Any, tmp_path: Path) -> None:
    good = (tmp_path / "images/red0.jpg").read_bytes()
    (tmp_path / "images/cut.jpg").write_bytes(good[: len(good) // 2])
    run = locust(*server, "--clients", "2", "--duration-s", "2", folder=tmp_path / "run")
    assert run.code == 1
    assert run.failures.keys() == {"gRPC", "HTTP"}
    for method, names in run.failures.items():
        assert 0 < run.figures[method]["num_failures"] < run.figures[method]["num_requests"]
        assert [name for name in names if "STATUS 3, corrupt" in name] == list(names)


def test_without_a_server_every_request_is_a_failure(tmp_path: Path) -> None:
    nobody = ("--grpc-url", "127.0.0.1:9", "--http-url", "127.0.0.1:9", "--clients", "2", "--duration-s", "1")
    images = colour_images(tmp_path / "images")
    run = locust("--model", "colours", "--images", images, *nobody, folder=tmp_path / "run")
    assert run.code == 1
    assert all(figure["num_failures"] == figure["num_requests"] > 0 for figure in run.figures.values())
    assert "error UNAVAILABLE" in str(run.failures["gRPC"])
    assert "error ConnectionRefusedError" in str(run.failures["HTTP"])


def test_a_folder_without_images_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    run = locust("--model", "colours", "--images", tmp_path / "run", folder=tmp_path / "run")
    assert run.code == 1
    assert not run.figures
    assert "run: no image in or below it" in run.said
