"""The command line of tritonserver: what it opens, what it closes, and what only newer servers are told."""

from pathlib import Path

import pytest

from slipway.contract import Lane, ServingError
from slipway.serving import Ports
from slipway.serving.binary import TritonBinary, installed_server
from slipway.serving.command import command

BINARY = TritonBinary(Path("/opt/tritonserver/bin/tritonserver"), "test", backend_directory=None, library_path="")
LANE = Lane(lane="cpu", classifiers={"colours": "bundle"}, shm_default_bytes=2**20)
NEWER = {"--http-max-input-size", "--allow-client-shm"}


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
