"""`slipway watch reference`: sends a bundle's test split through the server, as the journal asks again."""

import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from slipway.client import Client, Options, Result
from slipway.contract import Bundle, DataError, SpecError
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.errors import ServingError
from slipway.operations.journal.pictures import Picture, measure
from slipway.operations.watch.rows import ClassDirections, Floats, Ints, rows_of
from slipway.operations.watch.test_split import (
    EncodedDirections,
    TestReference,
    class_counts,
    confidence_bins,
    drift_reference,
    pictures_of,
    samples_of,
)
from slipway.serving.ports import HOST

MEANS_IMAGES = 2_000
"""Images of the validation split that the class means are made of, all classes together."""
LEAST_OF_A_CLASS = 10
DEADLINE_S = 30.0
_CHUNK = 64
_SEED = 0


@dataclass(frozen=True)
class _AnsweredImages:
    """Images that the server accepted, with their answers and true classes."""

    truth: Ints
    class_id: Ints
    confidence: Floats
    embedding: Floats | None
    pictures: tuple[Picture, ...]
    bytes: tuple[int, ...]
    refused: int

    @property
    def brightness(self) -> Floats:
        """NaN where an image cannot be measured here."""
        return np.array([np.nan if one.brightness is None else one.brightness for one in self.pictures], np.float64)


def make_reference(bundle: Bundle, *, classifier: str, port: int) -> TestReference:
    """Ask the server for every image of the bundle's test split, and for a part of its validation split.

    Requests are sent one after another. A server that is busy answers its clients later meanwhile.

    Args:
        port: gRPC port on 127.0.0.1 of the stable server.

    Raises:
        SpecError: the server serves another bundle, or the classifier gives several labels for an image.
        DataError: an image is missing or has changed, or the bundle has no data set.
        ServingError: the server does not answer.
    """
    if bundle.decision.task != "multiclass":
        raise SpecError(f"{bundle.path}: several labels per image, which the watch does not take yet")
    if not (bundle.path / DATASET).is_file():
        raise DataError(f"{bundle.path}: has no {DATASET}, so its test split is unknown; import it with its images")
    dataset = Dataset.read(bundle.path / DATASET)
    test = dataset.of("test")
    options = Options(deadline_s=DEADLINE_S, concurrency=1)
    with Client(f"grpc://{HOST}:{port}", model=classifier, options=options) as client:
        asking = _Asking(client, dataset, bundle.id, classifier)
        answers = asking.ask(test, what="test split")
        means = None
        if answers.embedding is not None:
            some = asking.ask(_some(dataset.of("validation"), classes=len(bundle.labels)), what="validation split")
            assert some.embedding is not None, "the same network gave embeddings before"
            means = EncodedDirections.of(ClassDirections.of(some.embedding, some.truth, some.brightness))
    return _reference(answers, means, bundle, classifier)


class _Asking:
    def __init__(self, client: Client, dataset: Dataset, bundle: str, classifier: str) -> None:
        self._client, self._dataset, self._bundle, self._classifier = client, dataset, bundle, classifier

    def ask(self, images: Sequence[LabelledImage], *, what: str) -> _AnsweredImages:
        truth, results, pictures, sizes, refused = [], [], [], [], 0
        for image, content, result in self._answered(images, what=what):
            if not result.ok:
                refused += 1
                continue
            truth.append(image.class_id)
            results.append(result)
            pictures.append(measure(content))
            sizes.append(len(content))
        if not results:
            raise DataError(f"{what}: none of its {len(images)} images was accepted; give a bundle with its images")
        embeddings = [result.embedding for result in results if result.embedding is not None]
        return _AnsweredImages(
            truth=np.array(truth, np.int64),
            class_id=np.array([result.class_id for result in results], np.int64),
            confidence=np.array([result.score for result in results], np.float64),
            embedding=np.stack(embeddings).astype(np.float64) if len(embeddings) == len(results) else None,
            pictures=tuple(pictures),
            bytes=tuple(sizes),
            refused=refused,
        )

    def _answered(self, images: Sequence[LabelledImage], *, what: str) -> Iterator[tuple[LabelledImage, bytes, Result]]:
        with tqdm(total=len(images), desc=what, unit="image", leave=False, disable=None) as progress:
            for first in range(0, len(images), _CHUNK):
                chunk = images[first : first + _CHUNK]
                contents = [self._dataset.load(image) for image in chunk]
                for image, content, result in zip(
                    chunk, contents, self._client.classify_many(contents, full=True), strict=True
                ):
                    self._check(image, result)
                    yield image, content, result
                progress.update(len(chunk))

    def _check(self, image: LabelledImage, result: Result) -> None:
        if result.error is not None:
            raise ServingError(f"{self._classifier}, image {image.path}: {result.error}")
        if result.bundle != self._bundle:
            raise SpecError(
                f"{self._classifier}: the server answers with the bundle {result.bundle!s:.12}, and this run has "
                f"{self._bundle:.12}; give the run that is served, or serve this one first"
            )


def _some(images: Sequence[LabelledImage], *, classes: int) -> list[LabelledImage]:
    """Return at most an equal share of the images of each class, drawn with a fixed seed."""
    most = max(LEAST_OF_A_CLASS, math.ceil(MEANS_IMAGES / classes))
    by_class: defaultdict[int, list[LabelledImage]] = defaultdict(list)
    for image in images:
        by_class[image.class_id].append(image)
    draw = random.Random(_SEED)
    return [image for of in by_class.values() for image in draw.sample(of, min(most, len(of)))]


def _reference(
    answers: _AnsweredImages, means: EncodedDirections | None, bundle: Bundle, classifier: str
) -> TestReference:
    arrays = None if means is None else means.arrays
    rows = rows_of(answers.confidence, answers.class_id, answers.brightness, answers.embedding, arrays)
    of_class = Counter(answers.truth.tolist())
    right = answers.class_id == answers.truth
    return TestReference(
        classifier=classifier,
        bundle=bundle.id,
        made_s=time.time(),
        labels=bundle.labels,
        rows=len(rows),
        refused=answers.refused,
        accuracy=float(right.mean()),
        recall={one: float(right[answers.truth == one].mean()) for one in sorted(of_class)},
        images=dict(sorted(of_class.items())),
        predicted=class_counts(answers.class_id),
        means=means,
        drift=drift_reference(rows, has_embedding=means is not None),
        confidence=confidence_bins(answers.confidence),
        measures=samples_of(rows, has_embedding=means is not None),
        pictures=pictures_of(
            [one.format for one in answers.pictures],
            [(one.width, one.height) for one in answers.pictures],
            answers.bytes,
            [one.brightness for one in answers.pictures],
        ),
    )
