"""`slipway container --run`: docker that is missing, that refuses, and that ends as it likes."""

import contextlib
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.cli.container import main, parser
from slipway.contract import ServingError
from slipway.contract.nvidia_releases import NEWEST
from tests.support.scripts import ROOT


@pytest.fixture
def docker_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`docker_that(script)` makes `docker` a script; the real one may have no daemon, or may have one."""

    def docker_that(script: str) -> None:
        (tmp_path / "bin").mkdir()
        docker = tmp_path / "bin/docker"
        docker.write_text(f"#!/bin/sh\n{script}\n")
        docker.chmod(docker.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
        monkeypatch.setenv("HOME", str(tmp_path))

    return docker_that


def run(*words: str | Path, cwd: Path = ROOT) -> None:
    with contextlib.chdir(cwd):
        main(parser().parse_args([*map(str, words or ("serve", ROOT / "model_repository/example")), "--run"]))


def test_without_docker_the_command_is_printed_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServingError, match="docker is not installed here"):
        run()
    assert capsys.readouterr().out.startswith("docker run ")


def test_a_daemon_that_does_not_run_is_told_from_a_missing_docker(docker_that: Callable[[str], None]) -> None:
    docker_that("echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock.' >&2; exit 1")
    with pytest.raises(ServingError, match="its daemon cannot be reached: Cannot connect to the Docker daemon"):
        run()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("printf '\\377' >&2; exit 1", "cannot be reached: \N{REPLACEMENT CHARACTER}; start"),
        ("exit 4", "reached: exit code 4; start"),
    ],
)
def test_a_docker_that_says_nothing_readable_is_told_too(
    script: str, says: str, docker_that: Callable[[str], None]
) -> None:
    docker_that(script)
    with pytest.raises(ServingError, match=says):
        run()


def test_a_docker_that_cannot_be_started_is_told(
    docker_that: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker_that("exit 0")
    (tmp_path / "bin/docker").write_text("#!/nowhere/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ServingError, match=r"docker is installed and cannot be started: .*No such file"):
        run()


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker is not installed here")
def test_the_docker_of_this_machine_is_asked() -> None:
    """With a daemon it would serve: only the answer without one is looked at."""
    asked = subprocess.run(["docker", "version"], capture_output=True, text=True, timeout=60, check=False)
    if asked.returncode == 0:
        pytest.skip("a docker daemon runs here, and would start the container")
    with pytest.raises(ServingError, match="its daemon cannot be reached"):
        run()


def test_the_container_s_end_is_the_verb_s(docker_that: Callable[[str], None], tmp_path: Path) -> None:
    docker_that(f'test "$1" = version && exit 0\necho "$@" > {tmp_path}/given\nexit $(cat {tmp_path}/code)')
    (tmp_path / "code").write_text("0")
    run()
    assert (tmp_path / "given").read_text().startswith("run --rm --init ")
    (tmp_path / "code").write_text("3")
    with pytest.raises(ServingError, match="docker ended with exit code 3; the message above is the container's, or"):
        run()


DOCKER_SAYS = {
    "docker: Error response from daemon: No such image: slipway-cpu:26.10": (
        f"build it: slipway container build cpu --release {NEWEST.name} --run"
    ),
    'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].': (
        "install NVIDIA's container toolkit"
    ),
    "docker: Error response from daemon: cannot set both Count and DeviceIDs on device request.": (
        "in quotes of its own: --gpus '\"device=0,1\"'"
    ),
    "docker: Error response from daemon: driver failed programming external connectivity on endpoint slipway: Bind for "
    "127.0.0.1:8000 failed: port is already allocated.": "choose others with --http-port",
    'docker: Error response from daemon: Conflict. The container name "/slipway" is already in use by container '
    '"c0ffee". You have to remove (or rename) that container to be able to reuse that name.': "give another --name",
    "ERROR: failed to solve: failed to copy: write /var/lib/docker/tmp/x: no space left on device": "docker system df",
    "ERROR: nvcr.io/nvidia/tritonserver:26.10-py3: failed to resolve source metadata: not found": (
        "look whether NVIDIA has that release"
    ),
}


@pytest.mark.parametrize("said", DOCKER_SAYS)
def test_an_error_of_docker_is_passed_on_with_what_to_do(
    said: str, docker_that: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    docker_that(f"test \"$1\" = version && exit 0\ncat >&2 <<'END'\n{said}\nEND\nexit 125")
    with pytest.raises(ServingError) as raised:
        run()
    assert said in capsys.readouterr().err
    assert DOCKER_SAYS[said] in str(raised.value)
