"""The serving preprocess against DALI's own decoder, image by image, and what bad images cost a batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from nvidia import nvimgcodec
from nvidia.dali import fn, pipeline_def

from slipway.contract import Preprocess
from slipway.steps import batch_limits, guard
from slipway.steps.dali_graph import preprocess
from slipway.steps.dali_resize import Rows
from slipway.steps.preprocess import Preprocessor, _backends
from tests.support.bad_images import corpus
from tests.support.geometries import GEOMETRIES, all_images, as_on_a_gpu
from tests.support.image_files import encode, good_images, photo

BATCH = 8
REFUSED_BY_DECODER = next(case.data for case in corpus() if case.name == "PNG with half of its data")
Pixels = npt.NDArray[np.uint8]
Sides = tuple[Callable[[bytes], Pixels | None], Preprocessor]


def by_dali(config: dict[str, Any]) -> Callable[[bytes], Pixels | None]:
    """The graph that training and the native form run, decoder included; None for an image that it refuses."""

    @pipeline_def(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)  # type: ignore[untyped-decorator, unused-ignore]
    def graph() -> Any:
        return preprocess(fn.external_source(name="encoded", batch=True), config)

    pipeline = graph()
    pipeline.build()

    def run(image: bytes) -> Pixels | None:
        pipeline.feed_input("encoded", [np.frombuffer(guard.for_decoder(image), np.uint8)])
        try:
            (pixels,) = pipeline.run()
        except RuntimeError:
            return None
        found: Pixels = pixels.as_array()[0].copy()
        return found

    return run


@pytest.fixture(scope="module", params=GEOMETRIES)
def both(request: pytest.FixtureRequest) -> Sides:
    config = Preprocess.parse(GEOMETRIES[request.param], source="test").model_dump(mode="json")
    return by_dali(config), as_on_a_gpu(config, max_batch_size=BATCH)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_cpu_resizes_as_dali_does_but_for_rounding_and_the_border(geometry: str) -> None:
    config = Preprocess.parse(GEOMETRIES[geometry], source="test").model_dump(mode="json")
    photographs = good_images(20, seed=11)
    cpu = Preprocessor(config, max_batch_size=20, threads=1)
    dali = as_on_a_gpu(config, max_batch_size=20)
    apart = np.abs(cpu.run(photographs)[0].astype(int) - dali.run(photographs)[0])
    assert 0 < apart.mean() < 0.5
    if geometry == "crop":  # the border is cut away
        assert apart.max() == 1


def test_every_image_has_the_pixels_of_dali_s_decoder_bit_for_bit_whatever_is_beside_it(both: Sides) -> None:
    dali, preprocessor = both
    placeholder = dali(guard.PLACEHOLDER)
    answered = 0
    shuffled = np.random.default_rng(3).permutation(len(all_images())).tolist()
    for first in range(0, len(all_images()), BATCH):
        batch = [all_images()[index] for index in shuffled[first : first + BATCH]]
        pixels_nhwc_u8, status_n = preprocessor.run(batch)
        for image, pixels, status in zip(batch, pixels_nhwc_u8, status_n.tolist(), strict=True):
            said = guard.inspect(image)
            expected = dali(image) if said == guard.OK else None
            assert status == (said or (guard.CORRUPT if expected is None else guard.OK))
            np.testing.assert_array_equal(pixels, placeholder if expected is None else expected)
            answered += expected is not None
    assert answered > 115


@pytest.fixture(scope="module")
def small() -> Preprocessor:
    config = Preprocess(input_height=16, input_width=16, jpeg_scaling=False).model_dump()
    return Preprocessor(config, max_batch_size=BATCH, threads=1)


def test_a_batch_is_decoded_in_one_call_without_what_the_guard_refuses(
    small: Preprocessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    decode = small._decode
    monkeypatch.setattr(small, "_decode", lambda images: decoded.append(len(images)) or decode(images))
    good = good_images(4, seed=2)
    small.run([good[0], REFUSED_BY_DECODER, good[1], good[2][: len(good[2]) // 2], b"", REFUSED_BY_DECODER, good[3]])
    assert decoded == [5]


def test_pixels_that_were_answered_stay_as_they_are(small: Preprocessor) -> None:
    one, other = good_images(2, seed=8)
    pixels_nhwc_u8, _ = small.run([one])
    before = pixels_nhwc_u8.copy()
    small.run([other])
    np.testing.assert_array_equal(pixels_nhwc_u8, before)


def test_a_batch_of_bad_images_only_is_the_placeholder_throughout(small: Preprocessor) -> None:
    placeholder = small.run([guard.PLACEHOLDER])[0][0]
    pixels_nhwc_u8, status_n = small.run([REFUSED_BY_DECODER, b"", REFUSED_BY_DECODER, b"<svg/>"])
    assert status_n.tolist() == [guard.CORRUPT, guard.EMPTY, guard.CORRUPT, guard.UNSUPPORTED]
    assert all(np.array_equal(row, placeholder) for row in pixels_nhwc_u8)


def test_images_that_declare_too_much_together_are_decoded_in_pieces_with_the_same_answers(
    small: Preprocessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [*good_images(5, seed=4), REFUSED_BY_DECODER, b"", good_images(1, seed=9)[0]]
    expected, expected_n = small.run(batch)
    sizes = batch_limits.measure(batch)[1]
    decoded = []
    decode = small._decode
    monkeypatch.setattr(small, "_decode", lambda images: decoded.append(len(images)) or decode(images))
    monkeypatch.setattr(batch_limits, "MAX_BATCH_PIXELS", int(sizes.max()))
    pixels_nhwc_u8, status_n = small.run(batch)
    assert len(decoded) > 2
    assert sum(decoded) == np.count_nonzero(sizes)
    assert status_n.tolist() == expected_n.tolist()
    np.testing.assert_array_equal(pixels_nhwc_u8, expected)


@pytest.mark.parametrize("seed", range(5))
def test_pieces_are_within_the_limit_or_one_image_and_leave_none_out(seed: int) -> None:
    declared_n = np.random.default_rng(seed).integers(0, 2 * batch_limits.MAX_BATCH_PIXELS, 40)
    declared_n[::3] //= 9
    cut = batch_limits.pieces(declared_n)
    assert [row for piece in cut for row in range(piece.start, piece.stop)] == list(range(40))
    for piece in cut:
        assert piece.stop - piece.start == 1 or declared_n[piece].sum() <= batch_limits.MAX_BATCH_PIXELS
    assert batch_limits.pieces(declared_n[:0]) == []


class OnDevice:
    """Host memory with the interface that a DALI tensor on a GPU has."""

    def __init__(self, array: np.ndarray) -> None:
        address, read_only = array.__array_interface__["data"]
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (address, read_only),
            "version": 2,
            "strides": None,
        }


@pytest.mark.parametrize("rows", [slice(0, 5), slice(0, 1), slice(2, 4), slice(4, 5)])
def test_rows_of_a_batch_on_a_gpu_are_the_same_memory(rows: slice) -> None:
    batch = np.arange(5 * 3 * 4 * 2, dtype=np.float32).reshape(5, 3, 4, 2)
    view = Rows(OnDevice(batch), rows)
    view.__array_interface__ = {**view.__cuda_array_interface__, "version": 3}  # type: ignore[attr-defined]
    seen = np.asarray(view)
    np.testing.assert_array_equal(seen, batch[rows])
    batch[rows.start] = -1
    assert (seen[0] == -1).all(), "not a copy"


def test_the_hardware_jpeg_decoder_is_among_the_decoders_only_where_it_is_asked_for() -> None:
    kinds = nvimgcodec.BackendKind
    assert [backend.backend_kind for backend in _backends(None, hardware_jpeg=True)] == [kinds.CPU_ONLY]
    for asked in (False, True):
        found = [backend.backend_kind for backend in _backends(0, hardware_jpeg=asked)]
        assert (kinds.HW_GPU_ONLY in found) is asked
        assert kinds.GPU_ONLY in found


@pytest.mark.parametrize("hardware_jpeg", [False, True])
def test_a_gpu_that_is_not_there_is_an_error_when_the_step_starts(hardware_jpeg: bool) -> None:
    """On a machine with one, the step starts: see tests/gpu."""
    config = Preprocess(input_height=16, input_width=16).model_dump()
    with pytest.raises(RuntimeError):
        Preprocessor(config, max_batch_size=1, threads=2, device_id=7, hardware_jpeg=hardware_jpeg)


def test_a_batch_that_failed_halfway_leaves_nothing_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = as_on_a_gpu(Preprocess(input_height=16, input_width=16).model_dump(), max_batch_size=BATCH)
    one, other, third = good_images(3, seed=12)
    expected, _ = small.run([other, third])
    feed = small._resize._pipeline.feed_input

    def fail_at_the_second(name: str, *arguments: Any, **options: Any) -> None:
        if name != "images":
            raise RuntimeError("no memory")
        feed(name, *arguments, **options)

    monkeypatch.setattr(small._resize._pipeline, "feed_input", fail_at_the_second)
    with pytest.raises(RuntimeError, match="no memory"):
        small.run([one])
    np.testing.assert_array_equal(small.run([other])[0], expected[:1])
    np.testing.assert_array_equal(small.run([third])[0], expected[1:])


def test_thin_images_are_resized_in_pieces_with_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Preprocess(input_height=64, input_width=64).model_dump()
    preprocessor = Preprocessor(config, max_batch_size=BATCH, threads=1)
    thin = [encode(photo(64, 1), "PNG"), encode(photo(1, 64), "PNG")] * 4
    expected = np.concatenate([preprocessor.run([image])[0] for image in thin])
    resized: list[int] = []
    resize = preprocessor._resize
    monkeypatch.setattr(preprocessor, "_resize", lambda some, *at: resized.append(len(some)) or resize(some, *at))
    monkeypatch.setattr(batch_limits, "MAX_BATCH_PIXELS", 3 * 64 * 64 * 64)
    pixels_nhwc_u8, status_n = preprocessor.run(thin)
    assert not status_n.any()
    assert resized == [3, 3, 2]
    np.testing.assert_array_equal(pixels_nhwc_u8, expected)
