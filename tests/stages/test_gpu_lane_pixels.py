"""The gpu lane's guard and decode steps, with the decoder switched to the CPU, against the isolated form.

The decode step's folder is taken as `assemble` wrote it; the one word that is changed in it is the decoder's in
`preprocess.json`, since `mixed` needs a GPU. It is then served as NVIDIA's backend does it.
"""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from slipway.contract import Preprocess
from slipway.repository import assemble
from slipway.steps import guard
from slipway.steps.guarded_batch import guarded_batch
from tests.support import dali_backend
from tests.support.geometries import GEOMETRIES, all_images, as_on_a_gpu
from tests.support.gpu_lanes import gpu_classifier, with_gpu
from tests.support.image_files import good_images

LARGEST_BATCH = 8


@pytest.fixture(scope="module", params=GEOMETRIES)
def geometry(request: pytest.FixtureRequest) -> dict[str, Any]:
    return Preprocess.parse(GEOMETRIES[request.param], source="test").model_dump(mode="json")


@pytest.fixture(scope="module")
def decode_step(geometry: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The version folder of an assembled decode step, with its decoder switched to the CPU."""
    folder = tmp_path_factory.mktemp("gpu")

    def change(bundle: Path) -> None:
        Preprocess.parse(geometry, source="test").write(bundle / "preprocess.json")

    spec = {"preprocess": geometry, **with_gpu(decode="native", max_batch_size=LARGEST_BATCH)}
    assemble([gpu_classifier(folder, "9.0", spec=spec, bundle=change)], folder / "repository", lane="gpu")
    (assembled,) = (folder / "repository").glob("decode_*/1")
    switched = folder / "switched"
    shutil.copytree(assembled, switched)
    text = (switched / "preprocess.json").read_text()
    assert text.count('"decoder": "mixed"') == 1
    (switched / "preprocess.json").write_text(text.replace('"decoder": "mixed"', '"decoder": "cpu"'))
    return switched


@pytest.fixture(scope="module")
def serialised(decode_step: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline as the backend serialises it, by a Python that knows nothing of the folder."""
    target = tmp_path_factory.mktemp("serialised") / "model.dali"
    run("-c", dali_backend.SERIALISE, decode_step / "dali.py", target, cwd=target.parent)
    return target


def run(*arguments: str | Path, cwd: Path) -> None:
    command = [sys.executable, "-P", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def serve(serialised: Path, batches: list[list[list[bytes]]], folder: Path) -> list[npt.NDArray[np.uint8]]:
    """Guard each request of each batch, then decode a batch whose rows differ in length from request to request."""
    padded = {
        f"{batch:03}/{request:03}": guarded_batch(images)[0]
        for batch, requests in enumerate(batches)
        for request, images in enumerate(requests)
    }
    np.savez(folder / "batches.npz", **padded)
    run(
        dali_backend.__file__,
        *(serialised, str(LARGEST_BATCH), folder / "batches.npz", folder / "results.npz"),
        cwd=folder,
    )
    with np.load(folder / "results.npz") as results:
        return [results[name] for name in sorted(results)]


def test_padded_images_of_every_format_and_size_give_the_pixels_of_the_isolated_form_bit_for_bit(
    geometry: dict[str, Any], serialised: Path, tmp_path: Path
) -> None:
    preprocessor = as_on_a_gpu(geometry, max_batch_size=LARGEST_BATCH)
    answered = [image for image in all_images() if not preprocessor.run([image])[1].any()]
    formats = {Image.open(io.BytesIO(image)).format for image in answered[:12]}
    assert formats == {"JPEG", "PNG", "WEBP", "BMP", "TIFF"}
    assert len(answered) > 80
    batches = [answered[first : first + LARGEST_BATCH] for first in range(0, len(answered), LARGEST_BATCH)]
    requests = [[part for part in (batch[:1], batch[1:4], batch[4:]) if part] for batch in batches]
    for batch, pixels_nhwc_u8 in zip(batches, serve(serialised, requests, tmp_path), strict=True):
        np.testing.assert_array_equal(pixels_nhwc_u8, preprocessor.run(batch)[0])


def test_what_the_guard_refuses_becomes_the_placeholder_s_pixels_in_both_forms(
    geometry: dict[str, Any], serialised: Path, tmp_path: Path
) -> None:
    preprocessor = as_on_a_gpu(geometry, max_batch_size=LARGEST_BATCH)
    good = good_images(2, seed=5)
    batch = [good[0], b"", good[0][: len(good[0]) // 2], b"<svg/>", good[1]]
    expected, status_n = preprocessor.run(batch)
    assert status_n.tolist() == [guard.OK, guard.EMPTY, guard.CORRUPT, guard.UNSUPPORTED, guard.OK]
    assert guarded_batch(batch)[1].tolist() == status_n.tolist()
    (pixels_nhwc_u8,) = serve(serialised, [[batch]], tmp_path)
    np.testing.assert_array_equal(pixels_nhwc_u8, expected)


def test_exactly_one_pipeline_is_marked_and_it_declares_what_config_pbtxt_says(decode_step: Path) -> None:
    """The backend refuses a configuration that says otherwise only where the pipeline declares type and rank."""
    source = (decode_step / "dali.py").read_text()
    assert source.count("\n@autoserialize") == 1
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import dali; from nvidia.dali import types\n"
        "p = dali.pipeline()\n"
        "print(json.dumps([p.max_batch_size, p.num_threads, p.output_dtype() == [types.UINT8], p.output_ndim(), "
        "p.exec_dynamic, p.device_id]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(decode_step)], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) == [8, 4, True, [3], False, None]


def test_without_the_switch_the_pipeline_is_for_the_first_gpu(decode_step: Path, tmp_path: Path) -> None:
    """Here, without one, DALI says so; the message is DALI's own."""
    shutil.copytree(decode_step, tmp_path / "mixed")
    text = (tmp_path / "mixed/preprocess.json").read_text().replace('"cpu"', '"mixed"')
    (tmp_path / "mixed/preprocess.json").write_text(text)
    program = "import sys; sys.path.insert(0, sys.argv[1]); import dali; print('GPU', dali.pipeline().device_id)"
    command = [sys.executable, "-c", program, str(tmp_path / "mixed")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "GPU 0" or "CUDA is not available" in done.stderr
