"""DALI loaders for training: the serving decode, with augmentation for the train split and none for the others."""

from collections.abc import Sequence
from typing import Any

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

from slipway.contract import Preprocess
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.decision import Task
from slipway.contract.recipe import Recipe
from slipway.steps.dali_graph import INTERPOLATION, decode, fit, normalize
from slipway.training.targets import TENSOR, reader_numbers


def train_loader(
    dataset: Dataset,
    images: Sequence[LabelledImage],
    *,
    preprocess: Preprocess,
    recipe: Recipe,
    threads: int,
    task: Task = "multiclass",
) -> DALIGenericIterator:
    """Shuffled, augmented batches of `pixels_nchw` and `targets.TENSOR`; an incomplete last batch is dropped."""

    def augment(pixels: Any) -> Any:
        config = preprocess.model_dump()
        pixels = fn.random_resized_crop(
            pixels,
            size=(preprocess.input_height, preprocess.input_width),
            random_area=recipe.crop_scale,
            interp_type=INTERPOLATION[preprocess.interpolation],
            antialias=preprocess.antialias,
        )
        if recipe.rotate_degrees:  # after the resize: ten times cheaper than on the original
            angle = fn.random.uniform(range=(-recipe.rotate_degrees, recipe.rotate_degrees))
            pixels = fn.rotate(pixels, angle=angle, keep_size=True, fill_value=preprocess.pad_value)
        mirror = fn.random.coin_flip(probability=0.5) if recipe.horizontal_flip else 0
        return normalize(pixels, config, mirror=mirror)

    return _loader(dataset, images, preprocess, augment, recipe=recipe, threads=threads, task=task, train=True)


def eval_loader(
    dataset: Dataset,
    images: Sequence[LabelledImage],
    *,
    preprocess: Preprocess,
    recipe: Recipe,
    threads: int,
    task: Task = "multiclass",
) -> DALIGenericIterator:
    """The serving preprocess, in order, every image once."""

    def prepare(pixels: Any) -> Any:
        return fit(pixels, preprocess.model_dump())

    return _loader(dataset, images, preprocess, prepare, recipe=recipe, threads=threads, task=task, train=False)


def _loader(
    dataset: Dataset,
    images: Sequence[LabelledImage],
    preprocess: Preprocess,
    after_decode: Any,
    *,
    recipe: Recipe,
    threads: int,
    task: Task,
    train: bool,
) -> DALIGenericIterator:
    @pipeline_def(  # type: ignore[untyped-decorator, unused-ignore]
        batch_size=recipe.batch_size, num_threads=threads, device_id=None, seed=recipe.seed
    )
    def pipeline() -> Any:
        encoded, number = fn.readers.file(
            file_root=dataset.root,
            files=[image.path for image in images],
            labels=reader_numbers(dataset, images, task=task),
            shuffle_after_epoch=train,
            pad_last_batch=not train,  # else the next epoch starts where the last batch was filled up to
            name="reader",
        )
        pixels = after_decode(decode(encoded, preprocess.model_dump()))
        return pixels, fn.cast(fn.squeeze(number, axes=0), dtype=types.INT64)

    return DALIGenericIterator(
        [pipeline()],
        ["pixels_nchw", TENSOR[task]],
        reader_name="reader",
        last_batch_policy=LastBatchPolicy.DROP if train else LastBatchPolicy.PARTIAL,
        auto_reset=True,
    )
