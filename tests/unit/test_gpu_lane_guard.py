"""The gpu lane's first step: what the decoder gets to see of the images of one request."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.repository import assemble
from slipway.steps import guard, guarded_batch
from tests.support.bad_images import corpus
from tests.support.gpu_lanes import gpu_classifier, with_gpu
from tests.support.image_files import good_images

GOOD = good_images(4, seed=2)


@given(st.lists(st.sampled_from([*GOOD, b"", b"GIF89a", GOOD[0][:100]]), min_size=1, max_size=8))
def test_a_good_image_is_passed_on_whole_and_a_refused_one_is_the_placeholder(images: list[bytes]) -> None:
    encoded_nl, status_n = guarded_batch.guarded_batch(images)
    expected = [image if guard.inspect(image) == guard.OK else guard.PLACEHOLDER for image in images]
    assert (encoded_nl.dtype, status_n.dtype) == (np.uint8, np.int32)
    assert encoded_nl.shape == (len(images), max(map(len, expected)))
    assert status_n.tolist() == [guard.inspect(image) for image in images]
    for row, image in zip(encoded_nl, expected, strict=True):
        assert row.tobytes() == image + bytes(len(row) - len(image))


def test_no_image_of_the_corpus_that_the_guard_refuses_reaches_the_decoder() -> None:
    for case in corpus():
        encoded_nl, status_n = guarded_batch.guarded_batch([case.data, GOOD[0]])
        assert status_n[1] == guard.OK, case.name
        if status_n[0] != guard.OK:
            assert bytes(encoded_nl[0]).rstrip(b"\0") == guard.PLACEHOLDER.rstrip(b"\0"), case.name


def test_a_request_that_padding_would_make_huge_is_refused_with_what_may_be_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    longest = max(map(len, GOOD))
    monkeypatch.setattr(guarded_batch, "MAX_PADDED_BYTES", 3 * longest)
    assert guarded_batch.guarded_batch(GOOD[:3])[1].tolist() == [guard.OK] * 3
    with pytest.raises(ValueError, match=f"4 images of up to {longest} bytes in one request"):
        guarded_batch.guarded_batch(GOOD)


def test_a_request_whose_images_declare_too_many_pixels_together_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else bounds what NVIDIA's DALI backend decodes at once."""
    pixels = [guard.measure(image)[1] for image in GOOD]
    monkeypatch.setattr(guarded_batch, "MAX_BATCH_PIXELS", sum(pixels[:3]))
    assert guarded_batch.guarded_batch(GOOD[:3])[1].tolist() == [guard.OK] * 3
    assert guarded_batch.guarded_batch([*GOOD[:3], b"<svg/>"])[1].tolist() == [guard.OK] * 3 + [guard.UNSUPPORTED]
    with pytest.raises(ValueError, match=f"4 images of {sum(pixels):,} pixels in one request, .*; send fewer at once"):
        guarded_batch.guarded_batch(GOOD)


class Tensor:
    """Of Triton's `pb_utils`, as far as the step uses it; bytes that are no strings fail as they do there."""

    def __init__(self, name: str, array: Any) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> Any:
        if isinstance(self.array, Exception):
            raise self.array
        return self.array


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The assembled guard step, loaded as the Python backend does it: its version folder is a package."""
    assemble([gpu_classifier(tmp_path, "9.0", spec=with_gpu(decode="native"))], tmp_path / "gpu", lane="gpu")
    (folder,) = (tmp_path / "gpu").glob("guard_*/1")
    pb_utils = types.ModuleType("triton_python_backend_utils")
    vars(pb_utils).update(
        Tensor=Tensor,
        TritonError=str,
        InferenceResponse=lambda tensors=(), error=None: ({t.name: t.array for t in tensors}, error),
        get_input_tensor_by_name=lambda request, name: request[name],
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", pb_utils)
    package = types.ModuleType("guard_step")
    package.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, "guard_step", package)
    for path in folder.glob("*.py"):
        monkeypatch.delitem(sys.modules, f"guard_step.{path.stem}", raising=False)
    from guard_step.model import TritonPythonModel  # type: ignore[import-not-found]

    return TritonPythonModel()


def request(*images: bytes) -> dict[str, Tensor]:
    return {"IMAGE": Tensor("IMAGE", np.array([[image] for image in images], np.object_))}


def test_each_request_gets_its_own_padding_and_statuses(step: Any) -> None:
    (first, no_error), (second, _) = step.execute([request(GOOD[0], b""), request(GOOD[1])])
    assert no_error is None
    assert first["image_status"].tolist() == [[guard.OK], [guard.EMPTY]]
    assert first["encoded"].shape == (2, max(len(GOOD[0]), len(guard.PLACEHOLDER)))
    assert second["encoded"].tobytes() == GOOD[1]


def test_a_request_whose_bytes_cannot_be_read_fails_alone(step: Any) -> None:
    unreadable = {"IMAGE": Tensor("IMAGE", UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"))}
    before, broken, after = step.execute([request(GOOD[0]), unreadable, request(GOOD[1])])
    assert broken[0] == {}
    assert broken[1].startswith("IMAGE is not a BYTES tensor of encoded images: ")
    assert before[0]["encoded"].tobytes() == GOOD[0]
    assert after[0]["encoded"].tobytes() == GOOD[1]
