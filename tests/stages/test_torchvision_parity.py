"""Our pixels against torchvision's on Pillow images, and the same pixels in training, evaluation and serving.

Differences are in grey levels (1/255 of the range, before normalisation).
"""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from torchvision import transforms

from slipway.contract import Preprocess
from slipway.contract.augmentation import Augmentation
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.recipe import Recipe
from slipway.evaluation.predict import predict
from slipway.steps.normalize import normalize
from slipway.steps.preprocess import Preprocessor
from slipway.system.files import sha256_bytes
from slipway.training.data.loader import Loading, eval_loader, train_loader
from tests.support.image_files import encode, good_images

Float = npt.NDArray[np.float32]
Levels = npt.NDArray[np.float64]

INTERPOLATION = {
    "linear": transforms.InterpolationMode.BILINEAR,
    "cubic": transforms.InterpolationMode.BICUBIC,
}
SIZES = (
    *((64, 64), (65, 64), (64, 65), (65, 65), (63, 127), (48, 48), (48, 200), (200, 48), (51, 49), (100, 75)),
    *(
        (101, 77),
        (256, 256),
        (257, 255),
        (333, 222),
        (500, 375),
        (511, 512),
        (640, 480),
        (479, 641),
        (33, 21),
        (400, 90),
    ),
)


def photograph(width: int, height: int, *, seed: int) -> Image.Image:
    """Noise at four scales, the coarser the stronger, as in photographs."""
    rng = np.random.default_rng(seed)
    canvas = np.zeros((height, width, 3))
    for side, weight in ((3, 0.5), (9, 0.27), (27, 0.15), (81, 0.08)):
        coarse = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
        canvas += weight * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


def preprocess(**options: Any) -> Preprocess:
    return Preprocess.parse({"input_height": 64, "input_width": 64, **options}, source="test")


def differences(images: Iterable[bytes], config: Preprocess) -> Iterator[Levels]:
    """|ours - torchvision| of each image, `[H, W, 3]` in grey levels."""
    preprocessor = Preprocessor(config.model_dump(), max_batch_size=1, threads=1)
    reference = transforms.Compose(
        [
            transforms.Resize(
                round(config.input_height / config.crop_fraction), interpolation=INTERPOLATION[config.interpolation]
            ),
            transforms.CenterCrop(config.input_height),
            transforms.ToTensor(),
            transforms.Normalize(config.mean, config.std),
        ]
    )
    for encoded in images:
        pixels_nhwc_u8, status_n = preprocessor.run([encoded])
        assert status_n.tolist() == [0]
        with Image.open(io.BytesIO(encoded)) as image:
            expected = reference(image.convert("RGB")).numpy()
        pixels_nchw = normalize(pixels_nhwc_u8, config.model_dump())
        yield np.abs(pixels_nchw[0] - expected).transpose(1, 2, 0) * np.array(config.std) * 255


def encoded_photographs() -> list[bytes]:
    """Every size as PNG and as JPEG."""
    images = [photograph(*size, seed=seed) for seed, size in enumerate(SIZES)]
    return [encode(image, "PNG", compress_level=1) for image in images] + [
        encode(image, "JPEG", quality=90) for image in images
    ]


@pytest.mark.parametrize("options", [{}, {"crop_fraction": 0.875}, {"input_height": 65, "input_width": 65}], ids=str)
@pytest.mark.parametrize(("interpolation", "levels"), [("linear", 1), ("cubic", 2)])
def test_photographs_differ_from_torchvision_by_a_level_or_two(
    options: dict[str, Any], interpolation: str, levels: int, capsys: pytest.CaptureFixture[str]
) -> None:
    in_full = preprocess(interpolation=interpolation, jpeg_scaling=False, **options)
    found = list(differences(encoded_photographs(), in_full))
    most, means = max(d.max() for d in found), [d.mean() for d in found]
    with capsys.disabled():
        print(
            f"\n{len(found)} photographs, {interpolation} {options or ''}: at most {most:.2f} grey levels, "
            f"mean {np.mean(means):.3f}, worst image's mean {max(means):.3f}"
        )
    assert most <= levels + 1e-3
    assert max(means) <= 0.3


def test_on_pure_noise_no_pixel_differs_by_more_than_a_level() -> None:
    """Every pixel its own colour: the worst case, and none that a photograph comes near."""
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)) for width, height in SIZES]
    found = differences((encode(image, "PNG") for image in noise), preprocess())
    assert max(d.max() for d in found) <= 1 + 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """21 images of every format and of mixed sizes, two of them broader than high by far, in three classes."""
    root = tmp_path_factory.mktemp("images")
    images = []
    for index, data in enumerate(
        [*good_images(19, seed=5), encode(photograph(300, 20, seed=1), "PNG"), good_images(1, seed=9)[0]]
    ):
        path = f"{index:02d}.image"
        (root / path).write_bytes(data)
        images.append(LabelledImage(path=path, class_id=index % 3, sha256=sha256_bytes(data), split="test"))
    return Dataset(root=str(root), labels=("a", "b", "c"), images=tuple(images))


@pytest.mark.parametrize(
    "options", [{}, {"resize": "pad", "pad_value": 99}, {"interpolation": "cubic", "input_width": 48}], ids=str
)
def test_the_training_loader_evaluation_and_serving_give_the_same_pixels_bit_for_bit(
    folder: Dataset, options: dict[str, Any]
) -> None:
    config = preprocess(**options)
    encoded = [(Path(folder.root) / image.path).read_bytes() for image in folder.images]
    served, status_n = Preprocessor(config.model_dump(), max_batch_size=32, threads=2).run(encoded)
    assert not status_n.any()
    normalised = normalize(served, config.model_dump())

    batches = [
        batch[0] for batch in eval_loader(folder, folder.images, Loading(config, Recipe(batch_size=4), threads=2))
    ]
    np.testing.assert_array_equal(np.concatenate([batch["pixels_nchw"].numpy() for batch in batches]), normalised)
    class_ids = np.concatenate([batch["class_id"].numpy() for batch in batches])
    assert class_ids.tolist() == [image.class_id for image in folder.images]

    seen: list[Float] = []

    def network(pixels_nchw: Float) -> tuple[Float, Float]:
        seen.append(pixels_nchw.copy())
        return pixels_nchw[:, :, 0, 0], pixels_nchw[:, :, 0, 0]

    predictions = predict(network, folder, folder.images, preprocess=config, batch_size=8, what="test")
    assert [len(batch) for batch in seen] == [8, 8, 5]
    np.testing.assert_array_equal(np.concatenate(seen), normalised)
    np.testing.assert_array_equal(predictions.logits_nc, normalised[:, :, 0, 0])
    assert predictions.truth_n.tolist() == class_ids.tolist()


def eval_epochs(folder: Dataset) -> list[list[int]]:
    """Three epochs of one loader: the images' numbers, in the order they came."""
    numbered = [image.model_copy(update={"class_ids": (number,)}) for number, image in enumerate(folder.images)]
    loader = eval_loader(folder, numbered, Loading(preprocess(), Recipe(batch_size=4), threads=2))
    return [[number for batch in loader for number in batch[0]["class_id"].tolist()] for _ in range(3)]


def test_the_eval_loader_gives_every_image_once_in_each_epoch(folder: Dataset) -> None:
    assert [sorted(epoch) for epoch in eval_epochs(folder)] == [list(range(21))] * 3


def test_the_eval_loader_keeps_its_order_in_each_epoch(folder: Dataset) -> None:
    assert eval_epochs(folder) == [list(range(21))] * 3


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """30 images of one colour each, ten a class."""
    root = tmp_path_factory.mktemp("colours")
    images = []
    for index in range(30):
        data = encode(Image.new("RGB", (70 + index, 64), tuple(200 if c == index % 3 else 20 for c in range(3))), "PNG")
        (root / f"{index:02d}.png").write_bytes(data)
        images.append(
            LabelledImage(path=f"{index:02d}.png", class_id=index % 3, sha256=sha256_bytes(data), split="train")
        )
    return Dataset(root=str(root), labels=("red", "green", "blue"), images=tuple(images))


def test_augmented_images_keep_their_class_and_a_seed_gives_the_same_batches(colours: Dataset) -> None:
    recipe = Recipe(batch_size=8, augment=Augmentation(rotate_degrees=20), seed=3)

    def epochs() -> list[tuple[Float, list[int]]]:
        loader = train_loader(colours, colours.images, Loading(preprocess(), recipe, threads=2))
        return [
            (batch[0]["pixels_nchw"].numpy().copy(), batch[0]["class_id"].tolist())
            for _ in range(2)
            for batch in loader
        ]

    first, second = epochs(), epochs()
    assert [len(pixels) for pixels, _ in first] == [8, 8, 7, 7] * 2  # 30 images, each once
    for (pixels, class_ids), (again, same_ids) in zip(first, second, strict=True):
        np.testing.assert_array_equal(pixels, again)
        assert class_ids == same_ids
        assert pixels[:, :, 32, 32].argmax(axis=1).tolist() == class_ids
    assert first[0][1] != first[4][1] or not np.array_equal(first[0][0], first[4][0])  # the next epoch differs
