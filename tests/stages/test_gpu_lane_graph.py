"""The graph of `preprocess.json` on the GPU, as far as a CPU can tell: what runs where, and whence sizes come."""

from typing import Any

import numpy as np
import pytest
from nvidia.dali import Pipeline, fn, pipeline_def, types
from PIL import Image

from slipway.contract import Preprocess
from slipway.steps import dali_graph, guard
from slipway.steps.preprocess import Preprocessor
from tests.support.bad_images import corpus
from tests.support.image_files import encode, good_images, photo

CPU = Preprocess(input_height=32, input_width=32).model_dump()
MIXED = {**CPU, "decoder": "mixed"}


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_on_the_gpu_nothing_comes_back_to_the_cpu(resize: str) -> None:
    """NVIDIA's backend runs the older executor, which has no way from the GPU to the CPU; the frontend knows."""
    with Pipeline(batch_size=1, num_threads=1, device_id=None, exec_dynamic=False):
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        assert dali_graph.preprocess(encoded, {**MIXED, "resize": resize}).device == "gpu"
        with pytest.raises(RuntimeError, match="doesn't support transition from GPU to CPU"):
            dali_graph.fit(dali_graph.decode(encoded, MIXED), MIXED)


@pytest.mark.parametrize(("hardware_jpeg", "share"), [(False, 0.0), (True, 0.65)])
def test_the_hardware_jpeg_decoder_gets_its_share_of_a_batch_only_where_it_is_asked_for(
    hardware_jpeg: bool, share: float
) -> None:
    with Pipeline(batch_size=1, num_threads=1, device_id=None):
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        decoded = dali_graph.decode(encoded, MIXED, hardware_jpeg=hardware_jpeg)
    assert f"hw_decoder_load: {share:f}" in str(decoded.source.spec)


def turned(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(photo(96, 64), kind, exif=exif)


@pytest.mark.parametrize("exif_orientation", [True, False])
def test_sizes_of_headers_give_the_pixels_that_sizes_of_decoded_images_give(exif_orientation: bool) -> None:
    """Training takes the one, serving the other; with EXIF they are turned alike."""
    config = {**CPU, "exif_orientation": exif_orientation}

    @pipeline_def(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def both() -> Any:
        encoded = fn.external_source(name="encoded", batch=True)
        return dali_graph.preprocess(encoded, config), dali_graph.fit(dali_graph.decode(encoded, config), config)

    pipeline, preprocessor = both(), Preprocessor(config, max_batch_size=1, threads=1)
    images = [turned(kind, n) for kind in ("JPEG", "PNG", "WEBP", "TIFF") for n in range(1, 9)]
    images += [*good_images(20, seed=7), *(case.data for case in corpus())]
    compared = 0
    for image in images:
        if preprocessor.run([image])[1].tolist() != [guard.OK]:
            continue
        pipeline.feed_input("encoded", [np.frombuffer(guard.for_decoder(image), np.uint8)])
        from_header, from_image = (output.as_array() for output in pipeline.run())
        np.testing.assert_array_equal(from_header, from_image)
        compared += 1
    assert compared > 80
