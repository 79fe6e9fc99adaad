"""How tritonserver is started: its command line, the environment that it inherits, and its log."""

import os
import threading
import time
from pathlib import Path

import pytest

from slipway.contract import Lane, ServingError
from slipway.serving import Ports, server_log
from slipway.serving.binary import TritonBinary, ignored_variables, installed_server
from slipway.serving.command import command
from slipway.serving.server_log import passed_on

BINARY = TritonBinary(Path("/opt/tritonserver/bin/tritonserver"), "test", backend_directory=None, library_path="")
LANE = Lane(lane="cpu", classifiers={"colours": "bundle"}, shm_default_bytes=2**20)
NEWER = {"--http-max-input-size", "--allow-client-shm"}
BARE = TritonBinary(Path("tritonserver"), "test", backend_directory=None, library_path="/libraries")


def flags(address: str = "127.0.0.1", options: tuple[str, ...] = ()) -> dict[str, str]:
    given = command(
        BINARY, Path("/x"), lane=LANE, ports=Ports(), admin_key="key", shm_prefix="p", address=address, options=options
    )
    return dict(part.split("=", 1) for part in given if "=" in part and "backend-config" not in part)


def test_administration_needs_the_key_and_no_model_is_loaded_by_itself() -> None:
    given = flags()
    restricted = "shared-memory,model-repository,logging,trace:slipway-admin=key"
    assert given["--http-restricted-api"] == given["--grpc-restricted-protocol"] == restricted
    assert given["--model-control-mode"] == "explicit"
    assert given["--metrics-config"] == "histogram_latencies=true"


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_every_port_listens_where_it_is_told(address: str) -> None:
    addresses = {name: value for name, value in flags(address).items() if name.endswith("-address")}
    assert addresses == {f"--{name}-address": address for name in ("http", "grpc", "metrics")}


def test_a_server_is_given_no_option_that_it_does_not_know() -> None:
    assert not NEWER & flags().keys()
    given = flags(options=("http-max-input-size", "allow-client-shm", "model-repository"))
    assert given["--allow-client-shm"] == "false"
    assert int(given["--http-max-input-size"]) > 128 * 2**20  # the largest request of our clients


def server(folder: Path, script: str) -> TritonBinary:
    path = folder / "tritonserver"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return TritonBinary(path, "test", backend_directory=None, library_path="")


def test_the_options_of_a_server_are_those_of_its_help(tmp_path: Path) -> None:
    said = "Usage: tritonserver [options]\\n  --model-repository <string>\\n  --http-max-input-size <integer>"
    assert server(tmp_path, f"printf '{said}' >&2; exit 1").options() == {"model-repository", "http-max-input-size"}
    wheel = TritonBinary(Path("/nowhere"), "test", backend_directory=None, library_path="", from_wheel=True)
    assert wheel.options() == frozenset()


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    broken = server(tmp_path, "echo 'error while loading shared libraries: libcuda.so.1' >&2; exit 127")
    with pytest.raises(ServingError, match=r"tritonserver does not start: error while loading shared libraries: libc"):
        broken.options()
    with pytest.raises(ServingError, match="does not start: "):
        TritonBinary(tmp_path / "none", "test", backend_directory=None, library_path="").options()


def test_the_server_on_path_comes_before_that_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("slipway.serving.binary.INSTALLED", tmp_path / "none")
    assert installed_server() is None
    image = server(tmp_path, "").path
    monkeypatch.setattr("slipway.serving.binary.INSTALLED", image)
    assert installed_server() == image
    (tmp_path / "bin").mkdir()
    on_path = server(tmp_path / "bin", "").path
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert installed_server() == on_path


def test_every_line_is_passed_on_while_the_server_runs_and_the_last_when_it_ends(tmp_path: Path) -> None:
    log, said, first = tmp_path / "log", [], threading.Event()

    def say(line: str) -> None:
        said.append(line)
        first.set()

    with log.open("ab", buffering=0) as server:
        with passed_on(log, say):
            server.write(b"I1129 one\nI1129 t")
            assert first.wait(30)
            assert said == ["I1129 one"]
            server.write(b"wo \xff\nlast words")
        assert said == ["I1129 one", "I1129 two \N{REPLACEMENT CHARACTER}", "last words"]


def test_the_file_stays_small_and_no_line_comes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_log, "MOST_BYTES", 100)
    monkeypatch.setattr(server_log, "PAUSE_S", 0.01)
    log, said = tmp_path / "log", []
    with log.open("ab", buffering=0) as server, passed_on(log, said.append):
        for number in range(20):
            server.write(f"line {number:03} of many\n".encode())
            deadline = time.monotonic() + 60
            # What is written just when the file is emptied may be lost, so the next line waits for that.
            while len(said) <= number or log.stat().st_size > 100:
                assert time.monotonic() < deadline
                time.sleep(0.005)
    assert said == [f"line {number:03} of many" for number in range(20)]
    assert log.stat().st_size < 200


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
    assert BARE.environment().get(name) == (None if ignored else "given")


@pytest.mark.parametrize("path", ["", None])
def test_without_a_path_the_stubs_find_the_systems_shell(monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    if path is None:
        monkeypatch.delenv("PATH")
    else:
        monkeypatch.setenv("PATH", path)
    assert BARE.environment()["PATH"].endswith(os.defpath)


@pytest.mark.parametrize(("inherited", "path"), [("", "/libraries"), ("/mine", f"/libraries{os.pathsep}/mine")])
def test_the_servers_own_libraries_come_first(monkeypatch: pytest.MonkeyPatch, inherited: str, path: str) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", inherited)
    assert BARE.environment()["LD_LIBRARY_PATH"] == path


def test_openblas_takes_one_thread_in_every_instance() -> None:
    assert BARE.environment()["OPENBLAS_NUM_THREADS"] == "1"
