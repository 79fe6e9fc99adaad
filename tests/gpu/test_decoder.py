"""Is nvJPEG's picture the CPU's? The same preprocessing on the CPU and on the GPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from slipway.contract import Bundle, Preprocess
from slipway.steps import guard

Pixels = npt.NDArray[np.uint8]
BATCH = 16


def run(images: list[bytes], preprocess: Preprocess, *, device_id: int | None) -> Pixels:
    from slipway.steps.preprocess import Preprocessor

    preprocessor = Preprocessor(preprocess.model_dump(), max_batch_size=BATCH, threads=2, device_id=device_id)
    batches = [preprocessor.run(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    assert all((status_n == guard.OK).all() for _, status_n in batches)
    return np.concatenate([pixels_nhwc_u8 for pixels_nhwc_u8, _ in batches])


def levels_apart(before: Pixels, after: Pixels) -> dict[str, float]:
    """Absolute differences in grey levels."""
    levels = np.abs(after.astype(np.int16) - before)
    p99, p999 = np.quantile(levels, [0.99, 0.999]).tolist()
    return {"mean": float(levels.mean()), "p99": p99, "p999": p999, "max": float(levels.max())}


def test_photographs_decoded_on_the_gpu_have_the_pixels_of_the_cpu(
    needs_gpu: str,  # noqa: ARG001
    photographs: Callable[[int], list[bytes]],
    write_result: Callable[[str, dict[str, Any]], Path],
) -> None:
    preprocess = Preprocess(input_height=224, input_width=224, crop_fraction=0.875)
    images = photographs(64)
    cpu, gpu = (run(images, preprocess, device_id=device_id) for device_id in (None, 0))
    apart = levels_apart(cpu, gpu)
    write_result("gpu-decoder-pixels", {"images": len(images), "levels": apart})
    assert apart["mean"] < 1
    assert apart["p99"] < 8


def test_a_batch_that_stays_on_the_gpu_has_the_rows_of_one_that_is_copied(
    needs_gpu: str,  # noqa: ARG001
    photographs: Callable[[int], list[bytes]],
) -> None:
    from slipway.steps.dali_resize import DeviceBatch
    from slipway.steps.preprocess import Preprocessor

    config = Preprocess(input_height=224, input_width=224).model_dump()
    preprocessor = Preprocessor(config, max_batch_size=BATCH, threads=2, device_id=0)
    images = photographs(4)
    images[1] = images[1][: len(images[1]) // 2]
    copied, copied_n = preprocessor.run(images)
    batch, status_n = preprocessor.run_on_gpu(images)
    assert isinstance(batch, DeviceBatch)
    assert status_n.tolist() == copied_n.tolist() == [guard.OK, guard.CORRUPT, guard.OK, guard.OK]
    for rows in (slice(0, 4), slice(1, 3)):
        np.testing.assert_array_equal(np.asarray(batch[rows].as_cpu()), copied[rows])


def test_digits_decoded_on_the_gpu_get_the_labels_of_the_cpu(
    needs_gpu: str,  # noqa: ARG001
    digits: Path,
    write_result: Callable[[str, dict[str, Any]], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from slipway.contract.dataset import Dataset
    from slipway.contract.evidence.gate import FAIL
    from slipway.evaluation.gate import compare
    from slipway.evaluation.predict import behind_normalisation
    from slipway.steps.engine_openvino import Engine

    monkeypatch.chdir(digits)  # the data set's root is relative
    bundle = Bundle.open(Path("runs/digits/bundle"))
    dataset = Dataset.read(bundle.path / "dataset.json")
    entries = dataset.of("test")
    images = [dataset.load(entry) for entry in entries]
    truth_n = np.array([entry.class_id for entry in entries])
    engine = Engine(bundle.path / "model.onnx", arithmetic="f32", threads=2)
    network = behind_normalisation(engine.run, bundle.preprocess)
    devices = {"cpu": None, "gpu": 0}
    pixels = {name: run(images, bundle.preprocess, device_id=device_id) for name, device_id in devices.items()}
    class_ids = {device: network(decoded)[0].argmax(axis=1) for device, decoded in pixels.items()}
    gate = compare(truth_n, class_ids["cpu"], class_ids["gpu"], bundle.labels, bundle.spec.accuracy)
    flips = np.flatnonzero(class_ids["cpu"] != class_ids["gpu"]).tolist()
    write_result(
        "gpu-decoder-labels",
        {
            "bundle": bundle.id,
            "images": len(images),
            "levels": levels_apart(pixels["cpu"], pixels["gpu"]),
            "verdict": gate.verdict,
            "flips": [
                {
                    "image": entries[row].path,
                    "truth": bundle.labels[truth_n[row]],
                    **{device: bundle.labels[class_ids[device][row]] for device in class_ids},
                }
                for row in flips
            ],
        },
    )
    assert gate.verdict != FAIL, gate
    assert len(flips) <= 0.01 * len(images)
