"""The decode step under the DALI of NVIDIA's releases: serialised as their DALI backend does it, for the CPU.

A backend whose DALI refuses the graph loads no gpu lane at all. Without a GPU only the device differs.
"""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from slipway.contract import Preprocess
from slipway.contract.releases import NEWEST, OLDEST_DALI, RELEASES
from slipway.repository import assemble
from tests.support.dali_backend import SERIALISE
from tests.support.dali_environment import python_with_dali
from tests.support.gpu_lanes import gpu_classifier, with_gpu

TOO_OLD = "2.1.1"
"""The DALI of release 26.06."""
LATER = ("2.3.0", "2.4.0")
"""Those that a release may have of which it is not known."""
SERIALISED = tuple(sorted({*LATER, *(known.dali for known in RELEASES if known.dali is not None)}))
GEOMETRIES = {
    "crop": {},
    "cubic, upright": {"interpolation": "cubic", "exif_orientation": False},
    "pad": {"resize": "pad", "pad_value": 114},
}


def decode_step(folder: Path, geometry: str) -> Path:
    """The version folder of an assembled decode step, its device switched to the CPU."""
    preprocess = Preprocess(input_height=48, input_width=64, **GEOMETRIES[geometry])

    def other_geometry(part: Path) -> None:
        preprocess.write(part / "preprocess.json")

    classifier = gpu_classifier(folder, "9.0", spec=with_gpu(decode="native"), bundle=other_geometry)
    assemble([classifier], folder / "gpu", lane="gpu")
    (step,) = (folder / "gpu").glob("decode_*/1")
    text = (step / "preprocess.json").read_text()
    assert '"decoder": "mixed"' in text
    (step / "preprocess.json").write_text(text.replace('"decoder": "mixed"', '"decoder": "cpu"'))
    return step


def serialise(python: Path | str, step: Path) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-c", SERIALISE, str(step / "dali.py"), str(step / "model.dali")]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def loads_under(python: Path | str, folder: Path) -> None:
    for geometry in GEOMETRIES:
        step = decode_step(folder / geometry, geometry)
        done = serialise(python, step)
        assert done.returncode == 0, done.stderr
        assert (step / "model.dali").stat().st_size > 500


def test_the_decode_step_loads_under_the_dali_of_the_default_release(tmp_path: Path) -> None:
    installed = metadata.version("nvidia-dali-cuda130")
    if NEWEST.dali is not None and installed != NEWEST.dali:
        pytest.skip(
            f"DALI {installed} is installed here, and release {NEWEST.name} has {NEWEST.dali}: see make nightly"
        )
    loads_under(sys.executable, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("version", SERIALISED)
def test_the_decode_step_loads_under_the_dali_of_every_release(version: str, tmp_path: Path) -> None:
    loads_under(python_with_dali(version), tmp_path)


@pytest.mark.nightly
def test_the_release_that_is_refused_has_a_dali_that_refuses_the_decode_step(tmp_path: Path) -> None:
    """Else the floor of the table would be a guess."""
    assert TOO_OLD < OLDEST_DALI
    done = serialise(python_with_dali(TOO_OLD), decode_step(tmp_path, "crop"))
    assert done.returncode != 0
    assert "adjust_orientation" in done.stderr
