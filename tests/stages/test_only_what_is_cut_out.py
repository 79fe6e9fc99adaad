"""DALI resizes only what is cut out for the network; the pixels are those of resizing all of the image."""

import numpy as np
import pytest
from skimage import data

from benchmarks.studies.resize.ways import _dali, _resized_whole
from slipway.contract import Preprocess
from tests.support.image_files import photo


@pytest.mark.parametrize("crop_fraction", [1.0, 0.875])
def test_what_is_cut_off_does_not_matter(crop_fraction: float) -> None:
    preprocess = Preprocess(input_height=224, input_width=192, crop_fraction=crop_fraction)
    cut, whole = _dali(preprocess), _dali(preprocess, _resized_whole)
    images = [
        data.astronaut(),
        data.coffee(),
        data.rocket()[:, :201],
        data.chelsea()[:7, :300],
        data.astronaut()[:3, :2],
    ]
    images += [np.asarray(photo(*size)) for size in ((1501, 1203), (64, 64))]
    for image in images:
        pixels = np.ascontiguousarray(image)
        apart = np.abs(cut(pixels, (0, 0)).astype(int) - whole(pixels, (0, 0)))
        assert apart.max() <= 1
        assert (apart > 0).mean() < 0.01  # rounded the other way; most of all where few pixels are enlarged
