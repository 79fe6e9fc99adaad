"""What bad images cost a batch: the calls of the real decoder, counted."""

from math import ceil, log2

import numpy as np
import pytest

from slipway.contract import Preprocess
from slipway.steps import guard
from slipway.steps.preprocess_dali import Preprocessor
from tests.support.bad_images import corpus
from tests.support.image_files import photo
from tests.support.mutations import good_files

MAX_BATCH = 64
GOOD = [file.data for file in good_files([photo(64, 48)], MAX_BATCH, seed=5, sides=(8, 24))]
REFUSED_BY_DECODER = next(case.data for case in corpus() if case.name == "PNG with half of its data")
REFUSED_BY_GUARD = GOOD[0][: len(GOOD[0]) // 2]


class Counting(Preprocessor):
    """Counts how often it asks DALI for a batch, and of how many images."""

    def __init__(self) -> None:
        self.decoded: list[int] = []
        config = {"input_height": 16, "input_width": 16, "mean": (0, 0, 0), "std": (1, 1, 1)}
        checked = Preprocess.parse(config, source="test").model_dump()
        super().__init__(checked, max_batch_size=MAX_BATCH, threads=1)

    def _decode(self, images):  # type: ignore[no-untyped-def]
        self.decoded.append(len(images))
        return super()._decode(images)


@pytest.fixture(scope="module")
def shared() -> Counting:
    return Counting()


@pytest.fixture
def preprocessor(shared: Counting) -> Counting:
    shared.decoded.clear()
    return shared


def batch(bad: dict[int, bytes], size: int = MAX_BATCH) -> list[bytes]:
    return [bad.get(place, image) for place, image in enumerate(GOOD[:size])]


def test_good_images_and_those_that_the_guard_refuses_take_one_decode(preprocessor: Counting) -> None:
    assert not preprocessor.run(batch({}))[1].any()
    assert preprocessor.decoded == [MAX_BATCH]
    preprocessor.run(batch({3: REFUSED_BY_GUARD, 40: b""}))
    assert preprocessor.decoded == [MAX_BATCH, MAX_BATCH - 2]


@pytest.mark.parametrize("place", [0, 1, 31, 32, 63])
@pytest.mark.parametrize("size", [1, 2, 8, 32, 64])
def test_one_bad_image_costs_two_decodes_for_each_halving(preprocessor: Counting, size: int, place: int) -> None:
    _, status_n = preprocessor.run(batch({place % size: REFUSED_BY_DECODER}, size))
    assert np.flatnonzero(status_n).tolist() == [place % size]
    assert len(preprocessor.decoded) == 1 + 2 * log2(size)


@pytest.mark.parametrize("size", [7, 8, 33, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_k_bad_images_of_n_cost_at_most_k_times_as_many_decodes_as_one(
    preprocessor: Counting, size: int, count: int
) -> None:
    rng = np.random.default_rng(size * count)
    for _ in range(5):
        preprocessor.decoded.clear()
        places = sorted(rng.choice(size, count, replace=False).tolist())
        _, status_n = preprocessor.run(batch(dict.fromkeys(places, REFUSED_BY_DECODER), size))
        assert np.flatnonzero(status_n).tolist() == places
        assert len(preprocessor.decoded) <= 1 + 2 * count * ceil(log2(size))
        assert sum(preprocessor.decoded) <= size * (1 + count * ceil(log2(size))), "and of so many images"


@pytest.mark.parametrize("size", [1, 2, 3, 8, 64])
def test_a_batch_of_bad_images_only_ends(preprocessor: Counting, size: int) -> None:
    _, status_n = preprocessor.run([REFUSED_BY_DECODER] * size)
    assert status_n.tolist() == [guard.CORRUPT] * size
    assert len(preprocessor.decoded) == 2 * size - 1, "every node of the tree, once"
    preprocessor.decoded.clear()
    assert preprocessor.run([REFUSED_BY_GUARD] * size)[1].tolist() == [guard.CORRUPT] * size
    assert preprocessor.decoded == [], "what the guard refuses is never decoded"
