"""The docker commands that compile plans and serve the gpu lane: what they mount, open and close; nothing is pulled."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import Bundle, Lane
from slipway.repository import Classifier, assemble
from slipway.serving import Ports
from slipway.serving.binary import TritonBinary
from slipway.serving.command import command as wheel_command
from tests.support.colours import COLOURS, open_colours
from tests.support.plans import stand_in_plan
from tests.support.scripts import ROOT, run_script


@pytest.fixture
def gpu_lane(tmp_path: Path) -> Path:
    bundle = Bundle.open(COLOURS / "bundle")
    assemble([Classifier(bundle, stand_in_plan(tmp_path / "plan", bundle))], tmp_path / "gpu", lane="gpu")
    return tmp_path / "gpu"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder that looks like a clone, with a bundle in it."""
    folder = tmp_path / "clone"
    (folder / "build").mkdir(parents=True)
    shutil.copyfile(ROOT / "build/compile.py", folder / "build/compile.py")
    shutil.copytree(COLOURS / "bundle", folder / "runs/colours/bundle")
    return folder


COMPILE = ("compile", "runs/colours/bundle", "--graphs", "runs/colours/graphs", "--out", "runs/colours/engines")


def printed(*arguments: str | Path, cwd: Path) -> list[str]:
    done = run_script("build/container.py", *arguments, "--json", cwd=cwd)
    command: list[str] = json.loads(done.stdout.splitlines()[-1])["command"]
    return command


def refusal(*arguments: str | Path, cwd: Path) -> str:
    done = run_script("build/container.py", *arguments, cwd=cwd, check=False)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    return done.stderr


def option(command: list[str], name: str) -> list[str]:
    return [value for flag, value in pairwise(command) if flag == name]


def flags(command: list[str]) -> dict[str, str]:
    """`--name=value` of tritonserver; backend options are joined."""
    found: dict[str, str] = {}
    for part in command:
        name, equals, value = part.partition("=")
        if part.startswith("--") and equals:
            found[name] = f"{found[name]} {value}" if name in found else value
    return found


def test_both_images_are_of_one_release(gpu_lane: Path, clone: Path) -> None:
    for release in ([], ["--release", "27.01"]):
        wanted = release[1] if release else "26.06"
        compiling = printed(*COMPILE, *release, cwd=clone)
        serving = printed("serve", gpu_lane, *release, cwd=clone)
        assert f"nvcr.io/nvidia/tensorrt:{wanted}-py3" in compiling
        assert f"nvcr.io/nvidia/tritonserver:{wanted}-py3" in serving


def test_the_printed_line_is_the_command_for_a_shell(gpu_lane: Path, tmp_path: Path) -> None:
    done = run_script("build/container.py", "serve", gpu_lane, "--json", cwd=tmp_path)
    line, as_json = done.stdout.splitlines()
    program = "import sys; print(sys.argv[1:])"
    shell = f"{sys.executable} -c '{program}' {line}"
    parsed = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout
    assert parsed.strip() == str(json.loads(as_json)["command"])


def test_compiling_mounts_the_clone_and_runs_compile_in_it_as_the_user(clone: Path) -> None:
    command = printed(*COMPILE, cwd=clone)
    assert option(command, "--mount") == [f"type=bind,source={clone},target=/slipway"]
    assert option(command, "--workdir") == ["/slipway"]
    assert option(command, "--user") == [f"{os.getuid()}:{os.getgid()}"]
    assert option(command, "--gpus") == ["all"]
    install, _, compiling = command[-1].partition(" && ")
    assert install == "python3 -m pip install --quiet --editable '.[gpu]'"
    assert compiling.split() == ["python3", "build/compile.py", *COMPILE[1:], "--target", "tensorrt"]


def test_absolute_paths_inside_the_clone_become_those_of_the_container(clone: Path) -> None:
    absolute = [str(clone / part) if part.startswith("runs/") else part for part in COMPILE]
    assert printed(*absolute, cwd=clone)[-1] == printed(*COMPILE, cwd=clone)[-1]


def test_serving_opens_loopback_alone_and_mounts_the_repository_read_only(gpu_lane: Path, tmp_path: Path) -> None:
    command = printed("serve", gpu_lane, "--http-port", "9000", cwd=tmp_path)
    assert option(command, "--publish") == ["127.0.0.1:9000:8000", "127.0.0.1:8001:8001", "127.0.0.1:8002:8002"]
    assert option(command, "--mount") == [f"type=bind,source={gpu_lane},target=/models,readonly"]
    assert not {"--privileged", "--network", "--ipc", "-v", "-p"} & set(command)


def test_the_server_is_hardened_at_least_as_the_wheel_s_is(gpu_lane: Path, tmp_path: Path) -> None:
    """The container's own network stands in for the loopback addresses; its ports are published there."""
    command = printed("serve", gpu_lane, cwd=tmp_path)
    wheel = wheel_command(
        TritonBinary(Path("tritonserver"), "", backend_directory=None, library_path=""),
        Path("/models"),
        lane=Lane.read(gpu_lane / "lane.json"),
        ports=Ports(),
        admin_key="key",
        shm_prefix="prefix",
    )
    inside, outside = flags(command[command.index("tritonserver") :]), flags(wheel)
    assert "--disable-auto-complete-config" in command
    addresses = {name for name in outside if name.endswith(("-address", "-port"))}
    supervised = {"--model-control-mode", "--exit-on-error"}  # nobody loads models in the container
    assert inside["--model-control-mode"] == "none"
    assert inside.keys() >= outside.keys() - addresses - supervised
    for name, value in outside.items():
        if name not in addresses | supervised and name != "--backend-config":
            assert re.sub("=.*", "", inside[name]) == re.sub("=.*", "", value)
    assert inside["--allow-client-shm"] == "false"
    shared = Lane.read(gpu_lane / "lane.json").shm_default_bytes
    assert inside["--backend-config"] == f"python,shm-default-byte-size={shared}"


def test_the_key_of_the_restricted_apis_is_long_and_new_each_time(gpu_lane: Path, tmp_path: Path) -> None:
    keys = set()
    for _ in range(2):
        given = flags(printed("serve", gpu_lane, cwd=tmp_path))
        assert given["--http-restricted-api"] == given["--grpc-restricted-protocol"]
        keys.add(given["--http-restricted-api"].rpartition("=")[2])
    assert len(keys) == 2
    assert min(map(len, keys)) >= 32


def test_version_compatible_plans_are_allowed_where_there_are_some(tmp_path: Path) -> None:
    bundle = Bundle.open(COLOURS / "bundle")
    plan = stand_in_plan(tmp_path / "plan", bundle, plan={"version_compatible": True})
    assemble([Classifier(bundle, plan)], tmp_path / "gpu", lane="gpu")
    config = flags(printed("serve", "gpu", cwd=tmp_path))["--backend-config"]
    assert config.endswith(" tensorrt,version-compatible=true")


@pytest.mark.parametrize("release", ["26.05", "24.10", "26.13", "26.6", "latest", "26.06; ls", ""])
def test_releases_that_are_none_or_too_old_are_refused(release: str, tmp_path: Path) -> None:
    assert "26.06" in refusal("serve", "gpu", "--release", release, cwd=tmp_path)


def test_a_repository_that_cannot_be_served_there_is_refused(gpu_lane: Path, tmp_path: Path) -> None:
    assemble([open_colours(COLOURS)], tmp_path / "cpu")
    assert "a cpu lane, which needs no container: slipway serve cpu" in refusal("serve", "cpu", cwd=tmp_path)
    assert "no manifest.json here" in refusal("serve", "nowhere", cwd=tmp_path)
    (plan,) = gpu_lane.rglob("*.plan")
    plan.write_bytes(plan.read_bytes() + b" ")
    assert "model_sm90.plan: changed since this repository was made" in refusal("serve", gpu_lane, cwd=tmp_path)


def test_wrong_folders_and_ports_are_refused(gpu_lane: Path, clone: Path, tmp_path: Path) -> None:
    assert "not a clone of Slipway" in refusal(*COMPILE, cwd=tmp_path)
    assert "no manifest.json here" in refusal("compile", "runs/none", *COMPILE[2:], cwd=clone)
    outside = refusal(*COMPILE[:-1], "../engines", cwd=clone)
    assert "../engines: outside" in outside
    assert "the only folder that the container sees" in outside
    assert "give three" in refusal("serve", gpu_lane, "--http-port", "8001", cwd=tmp_path)
    assert "invalid port" in refusal("serve", gpu_lane, "--grpc-port", "0", cwd=tmp_path)
    (tmp_path / "with, comma").mkdir()
    shutil.move(gpu_lane, tmp_path / "with, comma/gpu")
    assert "use a path without one" in refusal("serve", "with, comma/gpu", cwd=tmp_path)


def docker_that(folder: Path, script: str) -> dict[str, str]:
    """An environment whose `docker` is a script; the real one may have no daemon, or may have one."""
    folder.mkdir()
    docker = folder / "docker"
    docker.write_text(f"#!/bin/sh\n{script}\n")
    docker.chmod(docker.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def run_here(gpu_lane: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "build/container.py"), "serve", str(gpu_lane), "--run"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_without_docker_the_command_is_printed_and_that_is_said(gpu_lane: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run_here(gpu_lane, {"PATH": str(tmp_path / "empty")})
    assert done.returncode == 1
    assert done.stdout.startswith("docker run ")
    assert "docker is not installed here" in done.stderr


def test_a_daemon_that_does_not_run_is_told_from_a_missing_docker(gpu_lane: Path, tmp_path: Path) -> None:
    script = "echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock.' >&2; exit 1"
    done = run_here(gpu_lane, docker_that(tmp_path / "bin", script))
    assert done.returncode == 1
    assert "its daemon cannot be reached: Cannot connect to the Docker daemon" in done.stderr


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker is not installed here")
def test_the_docker_of_this_machine_is_asked(gpu_lane: Path) -> None:
    """With a daemon it would pull an image of many gigabytes: only the answer without one is looked at."""
    asked = subprocess.run(["docker", "version"], capture_output=True, text=True, timeout=60, check=False)
    if asked.returncode == 0:
        pytest.skip("a docker daemon runs here, and would pull NVIDIA's image")
    assert "its daemon cannot be reached" in run_here(gpu_lane, dict(os.environ)).stderr


@pytest.mark.parametrize("code", [0, 3])
def test_the_container_s_end_is_the_script_s(code: int, gpu_lane: Path, tmp_path: Path) -> None:
    script = f'test "$1" = version && echo 28 && exit 0\necho "$@" > {tmp_path}/given\nexit {code}'
    done = run_here(gpu_lane, docker_that(tmp_path / "bin", script))
    assert (tmp_path / "given").read_text().startswith("run --rm --init --gpus all ")
    assert done.returncode == (1 if code else 0)
    assert ("the container ended with exit code 3" in done.stderr) == bool(code)


@pytest.mark.parametrize("arguments", [["--help"], ["compile", "--help"], ["serve", "--help"]])
def test_help_explains(arguments: list[Any], tmp_path: Path) -> None:
    done = run_script("build/container.py", *arguments, cwd=tmp_path)
    assert "usage: container.py" in done.stdout
