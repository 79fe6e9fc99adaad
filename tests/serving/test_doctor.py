"""What the doctor says of a repository is what the real server then does with it."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import ServingError
from slipway.serving import Ports, serve
from slipway.serving.doctor.examine import examine
from tests.support.colours import reseal

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "example"
RAISES = (
    "class TritonPythonModel:\n    def initialize(self, args):\n        raise ValueError('the dog ate the labels')\n"
)
FAILS = "class TritonPythonModel:\n    def execute(self, requests):\n        raise KeyError('no answer')\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return shutil.copytree(EXAMPLE, tmp_path / "repository")


def test_what_the_doctor_finds_well_answers(example_server: Any) -> None:
    verdict = examine(EXAMPLE).verdict
    assert verdict.good
    assert set(verdict.would_serve) == {
        name + suffix for name in example_server.lane.classifiers for suffix in ("", "_full")
    }


def in_config(old: str, new: str) -> Callable[[Path], object]:
    def change(step: Path) -> None:
        text = (step / "config.pbtxt").read_text()
        assert old in text
        (step / "config.pbtxt").write_text(text.replace(old, new))

    return change


BROKEN: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "raises": ("post", lambda step: (step / "1/model.py").write_text(RAISES), "the dog ate", "the dog ate the labels"),
    "fails on an image": ("engine", lambda step: (step / "1/model.py").write_text(FAILS), "no answer", "no answer"),
    "missing step": ("preprocess", shutil.rmtree, "is not in the repository", "is not in the repository"),
    "unknown field": (
        "post",
        in_config("max_batch_size", "largest_batch"),
        "largest_batch: line 2, column 1: ModelConfig has no such field",
        "ModelConfig has no such field",
    ),
    "sizes": ("engine", in_config("dims: 32\n  dims: 32", "dims: 64\n  dims: 64"), "takes UINT8 [64", "takes UINT8"),
}


@pytest.mark.parametrize(
    ("kind", "defect", "doctor_says", "server_says"),
    [
        pytest.param(*case, id=name, marks=pytest.mark.nightly if name == "fails on an image" else ())
        for name, case in BROKEN.items()
    ],
)
def test_what_the_doctor_says_is_broken_is_refused_by_the_server(
    repository: Path, kind: str, defect: Callable[[Path], object], doctor_says: str, server_says: str
) -> None:
    (folder,) = repository.glob(f"{kind}_*")
    defect(folder)
    reseal(repository)
    diagnosis = examine(repository)
    said = "\n".join(str(check) for check in diagnosis.checks if check.state == "fail")
    assert diagnosis.verdict.would_serve == ()
    assert folder.name in said
    assert doctor_says in said
    with pytest.raises(ServingError, match=server_says), serve(repository, ports=Ports.free(), timeout_s=8.0):
        pass


def test_shared_memory_that_the_doctor_finds_too_small_is_too_small(tmp_path: Path) -> None:
    own_mount = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=32m tmpfs /dev/shm && exec "$@"', "sh"]
    if subprocess.run([*own_mount, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("a /dev/shm of its own needs the right to mount")
    ports = Ports.free()
    numbers = ["--http-port", ports.http, "--grpc-port", ports.grpc, "--metrics-port", ports.metrics]
    doctor = [sys.executable, EXAMPLE.parents[1] / "build/doctor.py", EXAMPLE]
    server = [sys.executable, "-m", "slipway", "serve", EXAMPLE, *numbers, "--timeout-s", 20, "--log", tmp_path / "log"]
    said, refused = (
        subprocess.run([*own_mount, *map(str, command)], capture_output=True, text=True, timeout=120, check=False)
        for command in (doctor, server)
    )
    assert said.returncode == 1
    assert "✗ shared memory: " in said.stdout
    assert "--shm-size=" in said.stdout
    assert refused.returncode == 1
    assert "shared memory" in refused.stderr
