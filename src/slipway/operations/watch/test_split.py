"""`reference.json`: what a bundle said of its test split, as the server answered it. The watch compares with it."""

import base64
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from slipway.contract.spec import check_name
from slipway.contract.typed_file import Contract
from slipway.errors import SpecError
from slipway.operations.watch.facts import BRIGHTNESS_BINS, CONFIDENCE_BINS, Count, Quantiles
from slipway.operations.watch.reference import MEASURES, MIN_ROWS, MOST_MISSING, Detector, WatchReference
from slipway.operations.watch.rows import ClassDirections, Floats, Ints, Rows
from slipway.system.targets import told, write_file

FOLDER, FILE = "watch", "reference.json"
MOST_SIZES = 8
"""Sizes that are listed, most frequent first."""
_SAMPLE = 201
"""Values that describe a distribution: its quantiles in steps of half a percent."""


class EncodedDirections(Contract):
    """`ClassDirections` as text: base64 of FP32 values, little-endian."""

    centre: str
    directions: str
    axes: str
    shortened: str
    light: str

    @classmethod
    def of(cls, means: ClassDirections) -> Self:
        return cls(**{name: _text(array) for name, array in vars(means).items()})

    @model_validator(mode="after")
    def _check_that_arrays_fit(self) -> Self:
        means = self.arrays
        if len({len(means.directions), means.light.size}) != 1 or len({len(means.axes), means.shortened.size}) != 1:
            raise ValueError("arrays of different lengths")
        return self

    @property
    def arrays(self) -> ClassDirections:
        centre = _array(self.centre)
        return ClassDirections(
            centre=centre,
            directions=_array(self.directions).reshape(-1, centre.size),
            axes=_array(self.axes).reshape(-1, centre.size),
            shortened=_array(self.shortened),
            light=_array(self.light),
        )


class Pictures(Contract):
    """Measures of images that need no network."""

    rows: int
    formats: tuple[Count, ...]
    sizes: tuple[Count, ...]
    """The most frequent, such as `640x480`."""
    shorter_side: Quantiles | None
    bytes: Quantiles | None
    brightness: tuple[int, ...]
    """Images by bin of their brightness."""


Fraction = Annotated[float, Field(ge=0, le=1)]
ImageCount = Annotated[int, Field(ge=0, lt=2**53)]
"""A number of images, as a double holds it."""


class TestReference(Contract):
    """A classifier's answers to its test split."""

    __test__ = False  # not a test of pytest

    classifier: str
    bundle: str
    made_s: float
    """Unix time."""
    labels: tuple[str, ...] = Field(min_length=1)
    rows: int
    """Images of the test split that were answered."""
    refused: int
    """Images of the test split that the server refused; they are left out."""
    accuracy: Fraction
    recall: dict[int, Fraction]
    """Recall by class id; classes without an image are left out."""
    images: dict[int, ImageCount]
    """Answered images by true class, for how well accuracy and recall are known."""
    predicted: dict[int, int]
    """Answers by class id; -1 is `unknown`."""
    means: EncodedDirections | None
    """Class means of the validation split, so that no row's distance is to a mean that contains the row itself. None
    for a network without an embedding."""
    drift: WatchReference | None
    """None with fewer than 100 usable rows, which are too few to bound anything."""
    confidence: tuple[int, ...]
    """Rows by bin of their confidence."""
    measures: dict[Detector, Annotated[tuple[float, ...], Field(min_length=1)]]
    """Quantiles of each measure in steps of half a percent."""
    pictures: Pictures

    @model_validator(mode="after")
    def _check_that_every_recall_has_its_images(self) -> Self:
        if missing := sorted(self.recall.keys() - self.images.keys()):
            raise ValueError(f"recall has the classes {missing}, and images has not; give both for every class")
        return self

    @property
    def class_means(self) -> ClassDirections | None:
        return None if self.means is None else self.means.arrays


def folder_of(journal: Path, classifier: str) -> Path:
    """The folder of the watch's files of one classifier, in the journal."""
    try:
        return journal / FOLDER / check_name(classifier)
    except ValueError as error:
        raise SpecError(f"classifier {classifier!r}: {error}") from None


def read_reference(journal: Path, classifier: str) -> TestReference | None:
    """The reference of a classifier; None if none was made.

    Raises:
        SpecError: the file is damaged, of another release, or of another classifier.
    """
    path = folder_of(journal, classifier) / FILE
    if not path.is_file():
        return None
    try:
        found = TestReference.read(path)
        if found.classifier != classifier:
            raise SpecError(f"{path}: of the classifier {found.classifier}, and not of {classifier}")
        return found
    except SpecError as error:
        raise SpecError(f"{error}; slipway watch reference writes it again") from None


def write_reference(journal: Path, reference: TestReference) -> Path:
    """Raises StorageError: the file cannot be written; the one before is then still there."""
    path = folder_of(journal, reference.classifier) / FILE
    write_private(path, reference.to_json())
    return path


def write_private(path: Path, content: str) -> None:
    """Write a file into a folder that only this user may enter, completely or not at all.

    Raises:
        StorageError: the file or its folder cannot be written.
    """
    with told(path):
        path.parent.parent.mkdir(mode=0o700, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
    write_file(path, content)


def drift_reference(rows: Rows, *, has_embedding: bool) -> WatchReference | None:
    """The events of unchanged rows. Brightness is left out where more than 1 % of them have none.

    Returns:
        None for fewer than 100 rows, or fewer than 100 values of a measure that are numbers.
    """
    measures = watched_measures(rows, has_embedding=has_embedding)
    columns = rows.columns()
    if min(int(np.isfinite(columns[name]).sum()) for name in measures) < MIN_ROWS:
        return None
    return WatchReference.of(rows, measures=measures)


def watched_measures(rows: Rows, *, has_embedding: bool) -> tuple[Detector, ...]:
    """The measures that rows have: distance and norm with an embedding, brightness where it was measured."""
    dark = rows.brightness
    bright = dark is not None and bool((~np.isfinite(dark)).mean() <= MOST_MISSING if dark.size else True)
    missing = {*(() if has_embedding else ("distance", "norm")), *(() if bright else ("brightness",))}
    return tuple(name for name in MEASURES if name not in missing)


def samples_of(rows: Rows, *, has_embedding: bool) -> dict[Detector, tuple[float, ...]]:
    """Quantiles of each measure in steps of half a percent."""
    found: dict[Detector, tuple[float, ...]] = {}
    for name in watched_measures(rows, has_embedding=has_embedding):
        column = rows.columns()[name]
        column = column[np.isfinite(column)]
        if column.size:
            found[name] = tuple(np.quantile(column, np.linspace(0, 1, _SAMPLE)).tolist())
    return found


def binned(values: Floats, *, bins: int) -> tuple[int, ...]:
    """Number of values in each of `bins` equal bins from 0 to 1; values that are not numbers are left out."""
    counts, _ = np.histogram(np.clip(values[np.isfinite(values)], 0, 1), bins=bins, range=(0, 1))
    return tuple(counts.tolist())


def confidence_bins(values: Floats) -> tuple[int, ...]:
    return binned(values, bins=CONFIDENCE_BINS)


def pictures_of(
    formats: Iterable[str | None],
    sizes: Iterable[tuple[int | None, int | None]],
    bytes_n: Iterable[int],
    brightness: Iterable[float | None],
) -> Pictures:
    """Sum up images; None where an image could not be read here."""
    of_format = Counter(name or "not readable here" for name in formats)
    known = [(width, height) for width, height in sizes if width and height]
    dark = np.array([np.nan if one is None else one for one in brightness], np.float64)
    return Pictures(
        rows=of_format.total(),
        formats=counted(of_format),
        sizes=counted(Counter(f"{width}x{height}" for width, height in known))[:MOST_SIZES],
        shorter_side=quantiles(np.array([min(size) for size in known], np.float64)),
        bytes=quantiles(np.array(list(bytes_n), np.float64)),
        brightness=binned(dark, bins=BRIGHTNESS_BINS),
    )


def counted(counts: Mapping[str, int]) -> tuple[Count, ...]:
    """Most frequent first."""
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return tuple(Count(name=name, rows=rows) for name, rows in ordered)


def quantiles(values: Floats) -> Quantiles | None:
    """Return the 5th, 50th and 95th percentile of the values; None without a number."""
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    low, median, high = np.quantile(values, (0.05, 0.5, 0.95)).tolist()
    return Quantiles(low=low, median=median, high=high)


def class_counts(class_ids: Ints) -> dict[int, int]:
    ids, counts = np.unique(class_ids, return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def _text(values: Floats) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _array(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float64)
