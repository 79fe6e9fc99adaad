"""What a server inherits of the environment."""

import os
from pathlib import Path

import pytest

from slipway.serving.binary import TritonBinary, ignored_variables

BINARY = TritonBinary(Path("tritonserver"), "test", backend_directory=None, library_path="/libraries")


@pytest.mark.parametrize(
    ("name", "ignored"),
    [
        ("GRPC_POLL_STRATEGY", True),
        ("AIP_MODE", True),
        ("PROMETHEUS_MULTIPROC_DIR", True),
        ("prometheus_multiproc_dir", True),
        ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", False),
        ("CUDA_VISIBLE_DEVICES", False),
        ("HOME_OF_MINE", False),
        ("OMP_NUM_THREADS", False),
        ("http_proxy", False),
    ],
)
def test_only_what_would_come_between_launcher_server_and_users_is_left_out(
    monkeypatch: pytest.MonkeyPatch, name: str, ignored: bool
) -> None:
    monkeypatch.setenv(name, "given")
    assert (name in ignored_variables()) is ignored
    assert BINARY.environment().get(name) == (None if ignored else "given")


@pytest.mark.parametrize("path", ["", None])
def test_without_a_path_the_stubs_find_the_systems_shell(monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    if path is None:
        monkeypatch.delenv("PATH")
    else:
        monkeypatch.setenv("PATH", path)
    assert BINARY.environment()["PATH"].endswith(os.defpath)


@pytest.mark.parametrize(("inherited", "path"), [("", "/libraries"), ("/mine", f"/libraries{os.pathsep}/mine")])
def test_the_servers_own_libraries_come_first(monkeypatch: pytest.MonkeyPatch, inherited: str, path: str) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", inherited)
    assert BINARY.environment()["LD_LIBRARY_PATH"] == path


def test_openblas_takes_one_thread_in_every_instance() -> None:
    assert BINARY.environment()["OPENBLAS_NUM_THREADS"] == "1"
