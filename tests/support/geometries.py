"""Ways to preprocess, and photographs of every format, to compare the pixels of two decoders with."""

from functools import cache
from typing import Any

from PIL import Image
from sklearn.datasets import load_sample_images

from slipway.steps.dali_resize import DaliResize
from slipway.steps.preprocess import Preprocessor
from tests.support.bad_images import corpus
from tests.support.image_files import encode, good_images

IN_FULL = {"jpeg_scaling": False}
"""As DALI's own decoder and a GPU decode every image."""
GEOMETRIES: dict[str, dict[str, Any]] = {
    "crop": {**IN_FULL, "input_height": 64, "input_width": 64, "crop_fraction": 0.875, "mean": (0.485, 0.456, 0.406)},
    "crop, cubic, upright": {
        **IN_FULL,
        "input_height": 48,
        "input_width": 80,
        "interpolation": "cubic",
        "exif_orientation": False,
    },
    "pad": {**IN_FULL, "input_height": 72, "input_width": 56, "resize": "pad", "pad_value": 114},
    "without antialias": {**IN_FULL, "input_height": 64, "input_width": 64, "antialias": False},
}


@cache
def all_images() -> tuple[bytes, ...]:
    """The photographs, 20 good images and every bad one; made once in a process."""
    return (*photographs(), *good_images(20, seed=11), *(case.data for case in corpus()))


def photographs() -> list[bytes]:
    """Two photographs in every format, each of another size, two of them turned by EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = []
    for number, array in enumerate(load_sample_images().images):
        whole = Image.fromarray(array)
        kinds: dict[str, dict[str, Any]] = {
            "JPEG": {"exif": exif},
            "PNG": {},
            "WEBP": {"quality": 80},
            "BMP": {},
            "TIFF": {"exif": exif},
        }
        for step, (kind, options) in enumerate(kinds.items()):
            width = 640 - 97 * step - 31 * number
            encoded.append(encode(whole.resize((width, 2 * width // 3 + number)), kind, **options))
        encoded.append(encode(whole.convert("L"), "PNG"))
    return encoded


def as_on_a_gpu(config: dict[str, Any], *, max_batch_size: int) -> Preprocessor:
    """What a GPU runs, on a CPU."""
    preprocessor = Preprocessor(config, max_batch_size=max_batch_size, threads=1)
    preprocessor._cuts_out = False
    preprocessor._resize = DaliResize(config, max_batch_size=max_batch_size, threads=1, device_id=None)
    return preprocessor
