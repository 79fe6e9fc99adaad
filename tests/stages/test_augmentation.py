"""What the train split goes through, and that nothing else does."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from slipway.contract import DataError, Preprocess
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.recipe import Recipe
from slipway.steps.normalize import normalize
from slipway.steps.preprocess import Preprocessor
from slipway.system.files import sha256_bytes
from slipway.training.data.loader import Loader, Loading, eval_loader, train_loader
from slipway.training.data.order import TrainingProcess
from tests.support.image_files import encode, good_images

Float = npt.NDArray[np.float32]
HEAVY: dict[str, Any] = {
    "vertical_flip": True,
    "colour": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue_degrees": 30},
    "rotate_degrees": 20,
    "erase": {"probability": 1.0},
    "policy": {"kind": "rand"},
    "minority": {"policy": {}, "below": 0.5},
    "mix": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0},
}
PLAIN: dict[str, Any] = {"resize": "serving", "horizontal_flip": False}


def data_set(root: Path, encoded: list[bytes], class_ids: list[int]) -> Dataset:
    images = []
    for number, (data, class_id) in enumerate(zip(encoded, class_ids, strict=True)):
        (root / f"{number:02d}.image").write_bytes(data)
        image = LabelledImage(path=f"{number:02d}.image", class_id=class_id, sha256=sha256_bytes(data), split="train")
        images.append(image)
    return Dataset(root=str(root), labels=("a", "b", "c"), images=tuple(images))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """21 images in every format and of many sizes; 14 of class 0, 5 of 1, 2 of 2."""
    return data_set(tmp_path_factory.mktemp("photographs"), good_images(21, seed=5), [0] * 14 + [1] * 5 + [2] * 2)


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """12 grey images of 64 x 64, of ten brightnesses in class 0 and two in class 1."""
    files = [encode(Image.new("RGB", (64, 64), (60 + 10 * n,) * 3), "PNG") for n in range(12)]
    return data_set(tmp_path_factory.mktemp("grey"), files, [0] * 10 + [1] * 2)


def preprocess(**options: Any) -> Preprocess:
    return Preprocess(**{"input_height": 64, "input_width": 64, "mean": (0, 0, 0), "std": (1, 1, 1), **options})


def train(dataset: Dataset, augment: dict[str, Any], config: Preprocess | None = None, **options: Any) -> Loader:
    recipe = Recipe.parse({"batch_size": 8, "augment": augment}, source="test")
    options = {"threads": 2, **options}
    return train_loader(dataset, dataset.images, Loading(config or preprocess(), recipe, **options))


def epoch(loader: Loader, number: int = 0) -> tuple[Float, list[int]]:
    """Pixels and class ids, sorted by the class ids where they name the images."""
    loader.set_epoch(number)
    batches = [batch[0] for batch in loader]
    pixels_nchw = torch.cat([batch["pixels_nchw"] for batch in batches]).numpy()
    return pixels_nchw, torch.cat([batch["class_id"] for batch in batches]).tolist()


def numbered(dataset: Dataset) -> Dataset:
    """Every image a class of its own, so that a batch says which images it has."""
    images = [image.model_copy(update={"class_ids": (number,)}) for number, image in enumerate(dataset.images)]
    return dataset.model_copy(update={"images": tuple(images)})


@pytest.mark.parametrize("resize", ["crop", "pad"])
@pytest.mark.parametrize(
    "augment",
    [
        pytest.param(HEAVY, id="heavy", marks=pytest.mark.nightly),
        pytest.param(PLAIN, id="plain"),
        pytest.param({}, id="default"),
    ],
)
def test_validation_sees_the_serving_pixels_whatever_the_augmentation_is(
    photographs: Dataset, augment: dict[str, Any], resize: str
) -> None:
    config = preprocess(resize=resize, pad_value=99)
    encoded = [(Path(photographs.root) / image.path).read_bytes() for image in photographs.images]
    served, _ = Preprocessor(config.model_dump(), max_batch_size=32, threads=2).run(encoded)
    recipe = Recipe.parse({"batch_size": 8, "augment": augment}, source="test")
    loader = eval_loader(photographs, photographs.images, Loading(config, recipe, threads=2))
    for number in (0, 1):
        pixels_nchw, class_ids = epoch(loader, number)
        np.testing.assert_array_equal(pixels_nchw, normalize(served, config.model_dump()))
        assert class_ids == [image.class_id for image in photographs.images]


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_training_without_augmentation_sees_the_serving_pixels_too(photographs: Dataset, resize: str) -> None:
    """But for large JPEGs, which DALI decodes in full, and for the rounding and the border of its resize."""
    config = preprocess(resize=resize, pad_value=99, std=(0.2, 0.3, 0.4), jpeg_scaling=False)
    all_images = numbered(photographs)
    encoded = [(Path(photographs.root) / image.path).read_bytes() for image in photographs.images]
    served, _ = Preprocessor(config.model_dump(), max_batch_size=32, threads=2).run(encoded)
    pixels_nchw, numbers = epoch(train(all_images, PLAIN, config))
    apart = np.abs(pixels_nchw - normalize(served, config.model_dump())[numbers])
    levels = 255 * apart * np.array(config.std).reshape(1, 3, 1, 1)
    assert levels.mean() < 0.25
    assert np.percentile(levels, 99.9) < 2


@pytest.mark.parametrize("augment", [{}, HEAVY], ids=["default", "heavy"])
def test_an_epoch_has_every_image_once_and_is_the_same_in_a_loader_made_anew(
    photographs: Dataset, augment: dict[str, Any]
) -> None:
    all_images = numbered(photographs)
    first = train(all_images, augment)
    epochs = [epoch(first, number) for number in (0, 1, 2)]
    assert [sorted(numbers) for _, numbers in epochs] == [list(range(21))] * 3
    assert len(first) == 3
    again, numbers = epoch(train(all_images, augment), 2)  # as in a resumed run
    np.testing.assert_array_equal(again, epochs[2][0])
    assert numbers == epochs[2][1]
    assert numbers != epochs[1][1]
    in_order = [pixels[np.argsort(numbers)] for pixels, numbers in epochs]
    assert (np.abs(in_order[0] - in_order[1]).max(axis=(1, 2, 3)) > 0).all()  # every image is drawn anew


def test_two_processes_share_an_epoch_and_draw_differently(photographs: Dataset) -> None:
    all_images = numbered(photographs)
    shares = [epoch(train(all_images, {}, process=TrainingProcess(rank, 2))) for rank in (0, 1)]
    assert sorted(shares[0][1] + shares[1][1]) == list(range(21))
    alike = Dataset(root=photographs.root, labels=("a",), images=(photographs.images[0],) * 8)
    (one, _), (two, _) = (epoch(train(alike, {}, process=TrainingProcess(rank, 2))) for rank in (0, 1))
    assert not np.array_equal(one, two)


def test_only_rare_classes_are_changed_by_minority(grey: Dataset) -> None:
    pixels_nchw, class_ids = epoch(train(grey, {**PLAIN, "minority": {"below": 0.5, "erase": {"probability": 1.0}}}))
    erased_n = (pixels_nchw == 0.0).any(axis=(1, 2, 3))
    assert erased_n.tolist() == [class_id == 1 for class_id in class_ids]


CHANGES: dict[str, dict[str, Any]] = {
    "brightness": {"colour": {"brightness": 0.5}},
    "erase": {"erase": {"probability": 1.0}},
    "rotation": {"rotate_degrees": 45.0},
    "trivial": {"policy": {}},
    "rand": {"policy": {"kind": "rand", "magnitude": 15}},
    "crop": {"resize": "random_crop"},
    "a crop of all": {"resize": "random_crop", "crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0]},
    "horizontal flip": {"horizontal_flip": True},
    "vertical flip": {"vertical_flip": True},
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_changes_images_and_keeps_shape_and_range(photographs: Dataset, change: str) -> None:
    all_images, augment = numbered(photographs), CHANGES[change]
    pixels_nchw, numbers = epoch(train(all_images, {**PLAIN, **augment}))
    plain, plain_numbers = epoch(train(all_images, PLAIN))
    assert numbers == plain_numbers
    changed_n = np.abs(pixels_nchw - plain).max(axis=(1, 2, 3)) > 2 / 255
    assert changed_n.mean() >= 0.25
    assert pixels_nchw.shape == (21, 3, 64, 64)
    assert pixels_nchw.min() >= 0.0
    assert pixels_nchw.max() <= 1.0
    if "flip" in change:
        axis = 3 if change == "horizontal flip" else 2
        np.testing.assert_array_equal(pixels_nchw[changed_n], np.flip(plain, axis)[changed_n])


def test_erasing_has_the_area_and_the_share_of_images_that_was_asked_for(grey: Dataset) -> None:
    many = grey.model_copy(update={"images": grey.images[5:6] * 400})
    pixels_nchw, _ = epoch(train(many, {**PLAIN, "erase": {"probability": 0.5, "area": [0.1, 0.2], "ratio": [1, 1]}}))
    share_n = (pixels_nchw == 0.0).mean(axis=(1, 2, 3))
    assert 0.4 < (share_n > 0).mean() < 0.6
    assert 0.08 < share_n[share_n > 0].min() < 0.13
    assert 0.17 < share_n.max() < 0.22


def test_a_file_that_is_gone_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    dataset = data_set(tmp_path, good_images(6, seed=1), [0] * 6)
    loader = train(dataset, {})
    (tmp_path / "03.image").unlink()
    with pytest.raises(DataError, match=r"03\.image: cannot be read: No such file"):
        list(loader)


@pytest.mark.parametrize("row", [0, 9, 20])
def test_an_image_that_the_decoder_refuses_is_named_wherever_it_stands(tmp_path: Path, row: int) -> None:
    files = good_images(21, seed=5)
    picture = encode(Image.effect_noise((300, 300), 50).convert("RGB"), "JPEG")
    files[row] = picture[: len(picture) // 2]
    dataset = data_set(tmp_path, files, [0] * 21)
    with pytest.raises(DataError, match=rf"{row:02d}\.image: the decoder refuses"):
        list(train(dataset, {}))
