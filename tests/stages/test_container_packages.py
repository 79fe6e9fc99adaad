"""The three images carried out without docker under their Python 3.12; their packages come from an index, by hash."""

import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from slipway.serving import Ports
from tests.support.played_image import PlayedImage, install_dali, python_3_12
from tests.support.processes import running_process
from tests.support.scripts import ROOT

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(python_3_12() is None, reason="there is no Python 3.12 on this machine"),
]
EXAMPLE = ROOT / "model_repository/example"
Play = Callable[[str], PlayedImage]


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Play:
    """`play(kind)` is that image, above one stand-in for all."""
    python = python_3_12()
    assert python is not None
    dali = install_dali(python, tmp_path_factory.mktemp("dali"))
    images: dict[str, PlayedImage] = {}

    def play(kind: str) -> PlayedImage:
        if kind not in images:
            image = PlayedImage(tmp_path_factory.mktemp(kind), python)
            image.lay_base(dali)
            image.build(ROOT / "build/images" / kind / "Dockerfile")
            images[kind] = image
        return images[kind]

    return play


@pytest.mark.parametrize("kind", ["gpu", "cpu", "compile"])
def test_an_image_holds_exactly_its_lock(kind: str, play: Play) -> None:
    image = play(kind)
    lock = (ROOT / "build/images" / kind / "requirements.lock").read_text()
    pins = re.findall(r"^([a-z0-9-]+)==(\S+) \\$", lock, re.MULTILINE)
    installed = {
        path.name.lower().replace("_", "-") for path in (image.root / "opt/slipway/packages").glob("*.dist-info")
    }
    assert installed == {f"{name}-{version}.dist-info" for name, version in pins}


@pytest.mark.parametrize(
    ("kind", "modules"),
    [
        (
            "gpu",
            "slipway.serving.supervisor, slipway.oci.signing, slipway.serving.doctor.examine, nvidia.dali, "
            "nvidia.nvimgcodec",
        ),
        ("cpu", "slipway.serving.supervisor, slipway.oci.signing, slipway.steps.engine_openvino, nvidia.dali"),
        ("compile", "slipway.engines, nvidia.dali, nvidia.nvimgcodec"),
    ],
)
def test_an_image_can_import_what_it_runs_with_the_numpy_of_its_lock(kind: str, modules: str, play: Play) -> None:
    image = play(kind)
    program = f"import numpy, {modules}; assert numpy.__version__.startswith('1.'), numpy.__file__"
    subprocess.run(["python3", "-c", program], env=image.environment, check=True)


def test_the_cpu_image_serves_the_example_by_its_own_entry_point(play: Play, tmp_path: Path) -> None:
    image, ports = play("cpu"), Ports.free()
    assert image.entrypoint == ["/opt/nvidia/nvidia_entrypoint.sh", "slipway"]
    assert image.command == ["serve", "/models", "--host", "0.0.0.0"]
    slipway, options = image.root / "opt/slipway/code/bin/slipway", image.command[2:]
    flags = [f"--{name}-port={port}" for name, port in vars(ports).items()]
    command = [slipway, "serve", EXAMPLE, *options, *flags]
    messages = tmp_path / "messages"
    with messages.open("wb") as file, running_process(command, env=image.environment, stderr=file) as launcher:
        deadline = time.monotonic() + 120
        while not answers(f"http://127.0.0.1:{ports.status}/ready"):
            assert launcher.poll() is None, messages.read_text()
            assert time.monotonic() < deadline, messages.read_text()
            time.sleep(0.5)
        launcher.terminate()
        assert launcher.wait(60) == 0, messages.read_text()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def test_the_units_of_the_steps_pass_under_the_images_python(play: Play, tmp_path: Path) -> None:
    image = play("cpu")
    lock = (ROOT / "requirements.lock").read_text()
    wanted = ("pytest", "iniconfig", "pygments", "hypothesis", "sortedcontainers", "pillow", "filelock")
    blocks = [re.search(rf"^{name}==(?:.*\\\n)+.*\n", lock, re.MULTILINE) for name in wanted]
    (tmp_path / "tests.lock").write_text("".join(block[0] for block in blocks if block))
    install = (
        f"python3 -m pip install --quiet --no-deps --require-hashes --target {tmp_path}/more -r {tmp_path}/tests.lock"
    )
    subprocess.run(["bash", "-c", install], env=image.environment, check=True)
    environment = {**image.environment, "PYTHONPATH": f"{image.environment['PYTHONPATH']}:{tmp_path}/more:{ROOT}"}
    units = ["tests/unit/test_guard_fuzz.py", "tests/unit/test_postprocess.py", "tests/unit/test_gpu_lane_guard.py"]
    # protobuf 4.25 warns of Python 3.14 while it is imported.
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning"]
    subprocess.run(["python3", "-m", "pytest", *options, *units], cwd=ROOT, env=environment, check=True)
