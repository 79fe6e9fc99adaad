"""What only the decoder refuses is found before the first epoch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slipway.contract import DataError, Preprocess
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.recipe import Recipe
from slipway.training import train
from slipway.training.data import dataset as checks
from slipway.training.data.dataset import check_decodable
from slipway.training.data.loader import Loading, eval_loader
from slipway.training.learn import train as training
from tests.support.bad_images import corpus
from tests.support.colour_training import small_spec, write_colours
from tests.support.image_files import encode

PREPROCESS = Preprocess(input_height=64, input_width=64)
HALF_A_PNG = next(case.data for case in corpus() if case.name == "PNG with half of its data")
PICTURE = Image.effect_noise((40, 30), 50).convert("RGB")


def listed(root: Path, files: dict[str, bytes]) -> Dataset:
    for name, data in files.items():
        (root / name).write_bytes(data)
    images = tuple(LabelledImage(path=name, class_id=0, sha256="", split="train") for name in files)
    return Dataset(root=str(root), labels=("a", "b"), images=images)


def nan_tiff() -> bytes:
    return encode(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF")


def test_good_images_of_every_format_pass(tmp_path: Path) -> None:
    files = {f"{name}.x": encode(PICTURE, name) for name in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")}
    check_decodable(listed(tmp_path, files), PREPROCESS)


def test_every_image_that_the_decoder_refuses_is_named_and_its_neighbours_are_not(tmp_path: Path) -> None:
    files = {f"{number}.png": encode(PICTURE.rotate(number), "PNG") for number in range(70)}
    files |= {"3.png": HALF_A_PNG, "50.png": HALF_A_PNG}
    with pytest.raises(DataError) as error:
        check_decodable(listed(tmp_path, files), PREPROCESS)
    assert str(error.value).splitlines() == [
        "2 images that the decoder refuses; repair or remove them:",
        f"  {tmp_path}/3.png",
        f"  {tmp_path}/50.png",
    ]


def test_decoding_prints_no_warning_of_the_decoder_s(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """nvImageCodec warns of more threads than it uses."""
    dataset = listed(tmp_path, {f"{number}.png": encode(PICTURE.rotate(number), "PNG") for number in range(4)})
    check_decodable(dataset, PREPROCESS)
    list(eval_loader(dataset, dataset.images, Loading(PREPROCESS, Recipe(batch_size=4), threads=2)))
    assert "".join(capfd.readouterr()) == ""


def test_photographs_in_jpeg_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "Preprocessor", lambda *_, **__: pytest.fail("nothing is to be decoded"))
    check_decodable(listed(tmp_path, {"0.jpg": encode(PICTURE, "JPEG")}), PREPROCESS)


FAULTS: dict[str, tuple[bytes, str]] = {
    "half a PNG": (HALF_A_PNG, "1 images that the decoder refuses; repair or remove them(?s:.)*red/bad.png"),
    "NaN for pixels": (nan_tiff(), "red/bad.png: unsupported format"),
    "nothing": (b"", "red/bad.png: empty"),
    "a JPEG cut short": (encode(PICTURE, "JPEG")[:-40], "red/bad.png: corrupt"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_training_stops_before_its_first_epoch(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_epoch(*_: Any, **__: Any) -> None:
        pytest.fail("training has begun")

    monkeypatch.setattr(training, "_fit", first_epoch)
    data, message = FAULTS[fault]
    root = write_colours(tmp_path / "data")
    (root / "red/bad.png").write_bytes(data)
    with pytest.raises(DataError, match=message):
        train(small_spec(root), tmp_path / "run/checkpoint")
    assert not (tmp_path / "run").exists()
