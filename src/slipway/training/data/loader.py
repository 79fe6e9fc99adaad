"""Loads batches with DALI for training: the serving decode, with augmentation for the train split only.

An epoch depends only on the recipe's seed, its number and the process's part: a resumed run needs nothing else.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.pipeline import Pipeline

from slipway.contract import DataError, Preprocess
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.decision import Task
from slipway.contract.recipe import Recipe
from slipway.steps.guard import OK
from slipway.steps.normalize import normalize
from slipway.steps.preprocess import Preprocessor
from slipway.training.data.augment import augmented, quiet
from slipway.training.data.decodable import DECODE_THREADS
from slipway.training.data.order import ALL, Ids, TrainingProcess, batches, rare_classes, shuffled
from slipway.training.data.targets import TENSOR, reader_numbers

AHEAD = 2
"""Number of batches read ahead, and of batches decoded ahead."""
READERS = 4
Encoded = npt.NDArray[np.uint8]
Batch: TypeAlias = list[dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Loading:
    """Settings of the loader of a split."""

    preprocess: Preprocess
    recipe: Recipe
    threads: int
    task: Task = "multiclass"
    process: TrainingProcess = ALL
    """The process's part of each epoch."""


def train_loader(
    dataset: Dataset, images: Sequence[LabelledImage], loading: Loading, *, order: Callable[[int], Ids] | None = None
) -> "Loader":
    """Load augmented batches of `pixels_nchw` and `targets.TENSOR`: each image once an epoch, shuffled.

    `order` may choose other rows of `images` by the epoch's number; rare classes always come from all `images`.
    """
    recipe, minority = loading.recipe, loading.recipe.augment.minority
    rare = rare_classes(images, below=minority.below) if minority else frozenset()
    with quiet():
        graph = _train_graph(loading.preprocess, recipe).serialize()
    order = order or (lambda epoch: shuffled(len(images), seed=recipe.seed, epoch=epoch))
    rare_n = np.array([not rare.isdisjoint(image.class_ids) for image in images]) if minority else None
    return AugmentedLoader(graph, dataset, images, loading, order=order, rare_n=rare_n)


def eval_loader(dataset: Dataset, images: Sequence[LabelledImage], loading: Loading) -> "Loader":
    """Load every image once, in order, with the serving preprocess (every `process.world_size`-th image)."""
    return Loader(dataset, images, loading, order=lambda _: np.arange(len(images)))


def _train_graph(preprocess: Preprocess, recipe: Recipe) -> Pipeline:
    config = preprocess.model_dump()

    @pipeline_def(  # type: ignore[untyped-decorator, unused-ignore]
        batch_size=recipe.batch_size, num_threads=1, device_id=None, enable_conditionals=True
    )
    def graph() -> Any:
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        rare = fn.external_source(name="rare", dtype=types.BOOL, ndim=0) if recipe.augment.minority else None
        return augmented(encoded, rare, config=config, augment=recipe.augment)

    return graph()


class Loader:
    """Batches for Lightning, preprocessed as in serving.

    Each is `[{"pixels_nchw": FP32 [n, 3, H, W], targets.TENSOR: INT64 [n]}]`.

    Lightning calls `sampler.set_epoch` before each epoch; without that call epochs count upwards.
    """

    def __init__(
        self, dataset: Dataset, images: Sequence[LabelledImage], loading: Loading, *, order: Callable[[int], Ids]
    ) -> None:
        self.sampler, self.batch_sampler = self, None  # Lightning looks for these
        self.epoch = 0
        self._root, self._images = Path(dataset.root), images
        self._order, self._config = order, loading.preprocess.model_dump()
        self._tensor = TENSOR[loading.task]
        self._number_n = np.array(reader_numbers(dataset, images, task=loading.task), np.int64)
        self._recipe, self._threads, self._process = loading.recipe, loading.threads, loading.process

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._batches())

    def _batches(self) -> list[Ids]:
        return batches(self._order(self.epoch), batch_size=self._recipe.batch_size, process=self._process)

    def __iter__(self) -> Iterator[Batch]:
        """Raises DataError: a file is missing, or the decoder refuses it."""
        members_b = self._batches()
        threads = min(self._threads, DECODE_THREADS)
        preprocessor = Preprocessor(self._config, max_batch_size=max(map(len, members_b)), threads=threads)
        self.epoch += 1
        for members, encoded in zip(members_b, self._encoded(members_b), strict=True):
            pixels_nhwc_u8, status_n = preprocessor.run([image.tobytes() for image in encoded])
            for row in members[status_n != OK].tolist():
                raise self._refusal(row)
            yield self._batch(pixels_nhwc_u8, members)

    def _encoded(self, members_b: Sequence[Ids]) -> Iterator[list[Encoded]]:
        """Yield the files of each batch while threads read the next ones."""
        reading: deque[list[Future[Encoded]]] = deque()
        with ThreadPoolExecutor(READERS) as pool:
            for members in members_b:
                reading.append([pool.submit(self._read, self._images[row]) for row in members.tolist()])
                if len(reading) > AHEAD:
                    yield [read.result() for read in reading.popleft()]
            while reading:
                yield [read.result() for read in reading.popleft()]

    def _read(self, image: LabelledImage) -> Encoded:
        path = self._root / image.path
        try:
            return np.fromfile(path, np.uint8)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}; it was there when training began") from None

    def _refusal(self, row: int) -> DataError:
        path = self._root / self._images[row].path
        return DataError(f"{path}: the decoder refuses this image; repair or remove it")

    def _batch(self, pixels_nhwc_u8: npt.NDArray[np.uint8], members: Ids) -> Batch:
        pixels_nchw = torch.from_numpy(normalize(pixels_nhwc_u8, self._config))
        return [{"pixels_nchw": pixels_nchw, self._tensor: torch.from_numpy(self._number_n[members])}]


class AugmentedLoader(Loader):
    """The batches of training: `graph`, serialised, decodes and augments. DALI decodes every image in full."""

    def __init__(
        self,
        graph: bytes,
        dataset: Dataset,
        images: Sequence[LabelledImage],
        loading: Loading,
        *,
        order: Callable[[int], Ids],
        rare_n: npt.NDArray[np.bool_] | None,
    ) -> None:
        super().__init__(dataset, images, loading, order=order)
        self._graph, self._rare_n = graph, rare_n

    def __iter__(self) -> Iterator[Batch]:
        """Raises DataError: a file is missing, or the decoder refuses it."""
        members_b = self._batches()
        ahead = min(AHEAD, len(members_b))
        seed = np.random.SeedSequence([self._recipe.seed, self.epoch, self._process.rank]).generate_state(1)[0]
        pipeline = Pipeline.deserialize(
            self._graph,
            batch_size=max(map(len, members_b)),
            num_threads=self._threads,
            seed=int(seed) >> 1,  # DALI takes 31 bits and a sign
            prefetch_queue_depth=ahead,
            exec_dynamic=True,  # keeps pixels that are still in use; the older executor overwrites them
        )
        pipeline.build()
        self.epoch += 1
        waiting: deque[Ids] = deque()
        for number, (members, encoded) in enumerate(zip(members_b, self._encoded(members_b), strict=True), start=1):
            pipeline.feed_input("encoded", encoded)
            if self._rare_n is not None:
                pipeline.feed_input("rare", self._rare_n[members])
            waiting.append(members)
            if number >= ahead:
                pipeline.schedule_run()  # the first call schedules all batches to decode ahead
                yield self._next(pipeline, waiting.popleft())
        while waiting:
            yield self._next(pipeline, waiting.popleft())

    def _next(self, pipeline: Pipeline, members: Ids) -> Batch:
        try:
            (pixels,) = pipeline.share_outputs()
        except RuntimeError as error:
            refused = re.search(r"Failed to decode sample #(\d+)", str(error))
            if refused is None:
                raise
            raise self._refusal(int(members[int(refused[1])])) from error
        batch = self._batch(np.asarray(pixels.as_tensor()), members)
        pipeline.release_outputs()
        return batch
