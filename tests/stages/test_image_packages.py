"""The packages of the three images, installed from their locks as the Dockerfiles do it, for the images' Python 3.12.

Where there is a Python 3.12 on PATH, it also imports them; elsewhere pip fetches, checks and unpacks its wheels alone.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slipway.cli.container import IMAGES
from tests.support.scripts import ROOT

PYTHON = shutil.which("python3.12")
FOR_PYTHON_3_12 = ["--python-version=3.12", "--implementation=cp", "--abi=cp312", "--abi=abi3", "--abi=none"]
GLIBC = [
    f"--platform={name}_x86_64" for name in ("manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 40)))
]
IMPORTS = {
    "gpu": "slipway.serving.__main__, slipway.serving.supervisor, slipway.serving.doctor.examine",
    "cpu": "slipway.serving.__main__, slipway.serving.supervisor, slipway.steps.engine_openvino",
    "compile": "slipway.cli.compile, slipway.steps.engine_openvino",
}


def pip_install(kind: str) -> list[str]:
    """The options of the Dockerfile's own `pip install` of the lock, without target and file."""
    text = (ROOT / "build/images" / kind / "Dockerfile").read_text().replace("\\\n", " ")
    (options,) = re.findall(r"^RUN python3 -m pip install (.*) --target \S+ --requirement \S+$", text, re.MULTILINE)
    return str(options).split()


@pytest.mark.nightly
@pytest.mark.parametrize("kind", IMAGES)
def test_the_packages_of_an_image_install_by_hash_and_are_all_that_it_imports(kind: str, tmp_path: Path) -> None:
    python = [PYTHON] if PYTHON else [sys.executable]
    foreign = [] if PYTHON else [*FOR_PYTHON_3_12, *GLIBC]
    lock = ROOT / "build/images" / kind / "requirements.lock"
    target = ["--target", str(tmp_path / "packages"), "--requirement", str(lock)]
    subprocess.run([*python, "-m", "pip", "install", "--quiet", *pip_install(kind), *foreign, *target], check=True)
    pins = re.findall(r"^([a-z0-9-]+)==(\S+) \\$", lock.read_text(), re.MULTILINE)
    installed = {path.name.lower().replace("_", "-") for path in (tmp_path / "packages").glob("*.dist-info")}
    assert installed == {f"{name}-{version}.dist-info" for name, version in pins}
    if PYTHON:
        path = {"PYTHONPATH": f"{ROOT / 'src'}:{tmp_path / 'packages'}", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        subprocess.run([PYTHON, "-c", f"import {IMPORTS[kind]}"], env=path, check=True)


@pytest.mark.nightly
def test_the_wheel_is_built_in_the_image_without_an_index(tmp_path: Path) -> None:
    text = (ROOT / "build/images/gpu/Dockerfile").read_text().replace("\\\n", " ")
    (options,) = re.findall(r"^RUN python3 -m pip install (.*) --target /opt/slipway/code \S+$", text, re.MULTILINE)
    source = tmp_path / "source"
    for copied in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        (source / "src").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / copied, source / copied)
    shutil.copytree(ROOT / "src/slipway", source / "src/slipway")
    command = [sys.executable, "-m", "pip", "install", "--quiet", *str(options).split()]
    subprocess.run([*command, "--target", str(tmp_path / "code"), str(source)], check=True)
    assert (tmp_path / "code/bin/slipway").is_file()
    assert (tmp_path / "code/slipway/cli/prices.yaml").is_file()
