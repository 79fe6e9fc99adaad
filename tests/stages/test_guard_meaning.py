"""What an accepted image means is the same in training as in serving, whatever its format, colours and orientation."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slipway.contract import Preprocess
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.recipe import Recipe
from slipway.steps import guard
from slipway.steps.normalize import normalize
from slipway.steps.preprocess import Preprocessor
from slipway.system.files import sha256_bytes
from slipway.training.data.loader import eval_loader
from tests.support.bad_images import corpus
from tests.support.image_files import encode, photo

SEEN = (
    *("JPEG", "grey JPEG", "progressive JPEG", "arithmetic JPEG", "CMYK JPEG", "YCCK JPEG"),
    *("JPEG with broken EXIF", "PNG of mode L", "PNG of mode LA", "PNG of mode P", "PNG of mode RGBA"),
    *("PNG with a transparent colour", "PNG of 16-bit grey", "PNG of 16-bit RGB", "animated PNG"),
    *("WebP", "lossless WebP with alpha", "animated WebP", "BMP of mode P", "BMP of 16 bits, 5-6-5"),
    *("TIFF of mode RGBA", "TIFF of mode CMYK", "TIFF of 16-bit grey", "TIFF of white at zero (big-endian)"),
)


def images() -> dict[str, bytes]:
    """By name: the kinds above, and every orientation in every format that carries one."""
    named = {case.name: case.data for case in corpus()}
    found = {name: named[name] for name in SEEN}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
            found[f"{kind} of orientation {orientation}"] = encode(photo(90, 60), kind, exif=exif)
    return found


@pytest.mark.parametrize("oriented", [True, False])
def test_training_and_serving_see_the_same_pixels_of_every_kind_of_image(tmp_path: Path, oriented: bool) -> None:
    values = {"input_height": 24, "input_width": 32, "mean": (0, 0, 0), "std": (1, 1, 1), "exif_orientation": oriented}
    config = Preprocess.parse(values, source="test")
    found = images()
    rows = []
    for number, data in enumerate(found.values()):
        (tmp_path / f"{number}.image").write_bytes(data)
        rows.append(LabelledImage(path=f"{number}.image", class_id=0, sha256=sha256_bytes(data), split="test"))
    dataset = Dataset(root=str(tmp_path), labels=("a", "b"), images=tuple(rows))
    served, status_n = Preprocessor(config.model_dump(), max_batch_size=len(rows), threads=1).run([*found.values()])
    assert not status_n.any()
    seen = normalize(served, config.model_dump())
    loader = eval_loader(dataset, rows, preprocess=config, recipe=Recipe(batch_size=8), threads=1)
    trained = np.concatenate([batch[0]["pixels_nchw"].numpy() for batch in loader])
    for name, one, other in zip(found, trained, seen, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    turned = dict(zip(found, served, strict=True))
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        first, sixth = (turned[f"{kind} of orientation {orientation}"] for orientation in (1, 6))
        assert np.array_equal(first, sixth) != oriented, "or orientation means nothing here"


def test_what_serving_refuses_is_no_training_image_either() -> None:
    """Both ask the same function: `slipway.training.data.dataset` names every file that it refuses."""
    from slipway.training.data import dataset

    assert dataset.guard is guard
