"""The decode step under the DALI of NVIDIA's releases: serialised as their DALI backend does it, for the CPU.

A backend whose DALI refuses the graph loads no gpu lane at all. Without a GPU only the device differs.
"""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from slipway.contract import Preprocess
from slipway.contract.nvidia_releases import NEWEST, OLDEST_DALI, RELEASES
from slipway.repository import assemble
from tests.support.dali_backend import SERIALISE
from tests.support.dali_environment import CODECS, python_with_dali
from tests.support.gpu_lanes import gpu_classifier, with_gpu

ROOT = Path(__file__).parents[2]
DECODE = """
import json, sys
from pathlib import Path
from slipway.steps.preprocess import Preprocessor

config, *images = sys.argv[1:]
read = [Path(image).read_bytes() for image in images]
read.insert(1, read[0][:40])
pixels_nhwc_u8, status_n = Preprocessor(json.loads(config), max_batch_size=4, threads=1).run(read)
print(json.dumps([status_n.tolist(), pixels_nhwc_u8.shape, pixels_nhwc_u8.sum(axis=(1, 2, 3)).tolist()]))
"""
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


def decoded(python: Path | str) -> subprocess.CompletedProcess[str]:
    """The isolated decode step, asked for a PNG, that PNG cut short, and a JPEG."""
    config = Preprocess(input_height=48, input_width=64).for_decoding(decoder="cpu")
    images = [str(ROOT / "docs/pictures/red.png"), str(ROOT / "src/slipway/repository/photograph.jpg")]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [str(python), "-c", DECODE, config, *images]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.nightly
@pytest.mark.parametrize("version", SERIALISED)
def test_the_isolated_step_decodes_under_the_dali_and_codec_of_every_release(version: str) -> None:
    done = decoded(python_with_dali(version))
    if CODECS[version.rpartition(".")[0]] == "0.8":  # without a driver it decodes nothing, not even on the CPU
        assert "RuntimeError: nvImageCodec 0.8" in done.stderr
        assert "cannot decode a good image on the CPU" in done.stderr
        return
    here = decoded(sys.executable)
    assert done.returncode == here.returncode == 0, done.stderr + here.stderr
    assert done.stdout == here.stdout


@pytest.mark.nightly
def test_the_release_that_is_refused_has_a_dali_that_refuses_the_decode_step(tmp_path: Path) -> None:
    """Else the floor of the table would be a guess."""
    assert TOO_OLD < OLDEST_DALI
    done = serialise(python_with_dali(TOO_OLD), decode_step(tmp_path, "crop"))
    assert done.returncode != 0
    assert "adjust_orientation" in done.stderr
