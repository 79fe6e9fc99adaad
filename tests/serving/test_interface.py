"""The served tensors: any of them can be asked for, and every row reads as the interface says."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tritonclient.utils import InferenceServerException

from slipway.contract import Bundle
from slipway.steps.guard import CORRUPT, EMPTY, OK, UNSUPPORTED
from tests.support.image_files import encode

BUNDLE = Path(__file__).parents[1] / "assets" / "colours" / "bundle"
ANSWER = {"LABEL": 2, "SCORE": 2, "CLASS_ID": 2, "STATUS": 1, "BUNDLE": 1}
FULL_ANSWER = {**ANSWER, "PROBABILITY": 3, "EMBEDDING": 3}
OUTPUTS = {"colours": ANSWER, "colours_full": FULL_ANSWER}
KINDS = {
    "LABEL": "O",
    "BUNDLE": "O",
    "SCORE": "f",
    "PROBABILITY": "f",
    "EMBEDDING": "f",
    "CLASS_ID": "i",
    "STATUS": "i",
}


def filled(*colour: int, size: tuple[int, int] = (60, 50)) -> bytes:
    return encode(Image.new("RGB", size, colour), "PNG")


RED, GREEN, GREY = filled(220, 0, 0), filled(0, 160, 0, size=(200, 150)), filled(128, 128, 128)
CUT = RED[: len(RED) // 2]


@pytest.fixture(scope="module", params=["steps", "shared_decode", "fused"])
def either_server(
    request: pytest.FixtureRequest,
    start: Callable[[Path], Any],
    assemble_colours: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """Serves `colours` in three steps, in two, or in one."""
    if request.param == "steps":
        return request.getfixturevalue("example_server")
    return start(assemble_colours(tmp_path_factory.mktemp(request.param), serving={"layout": request.param}))


protocols = pytest.mark.parametrize("protocol", ["grpc", "http"])
ensembles = pytest.mark.parametrize("model", ["colours", "colours_full"])


@protocols
@ensembles
def test_any_one_two_or_all_of_the_outputs_can_be_asked_for(
    either_server: Any, connect: Callable[..., Any], model: str, protocol: str
) -> None:
    client = connect(either_server, protocol, timeout_s=5)  # a deadlock of the ensemble would be a time-out here
    names, images = OUTPUTS[model], [RED, CUT, GREEN]
    everything = client.ask(model, images)
    assert everything.keys() == names.keys(), "a client that names none gets all"
    for subset in (*combinations(names, 1), *combinations(names, 2), tuple(names)):
        answer = client.ask(model, images, subset)
        assert sorted(answer) == sorted(subset)
        for name, array in answer.items():
            assert array.shape == (3, names[name])
            assert array.dtype.kind == KINDS[name]
            np.testing.assert_array_equal(array, everything[name])


@protocols
@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("colours", name)
        for name in ("PROBABILITY", "EMBEDDING", "logits_nc", "pixels_nhwc_u8", "image_status", "label", "")
    ]
    + [("colours_full", name) for name in ("embedding_nd", "logits_nc", "LABELS")],
)
def test_a_tensor_that_the_ensemble_does_not_have_is_refused_by_name(
    either_server: Any, connect: Callable[..., Any], model: str, name: str, protocol: str
) -> None:
    client = connect(either_server, protocol, timeout_s=5)
    for outputs in ([name], ["LABEL", name]):
        with pytest.raises(InferenceServerException, match=f"unexpected inference output '{name}' for model '{model}'"):
            client.ask(model, [RED], outputs)
    assert client.ask(model, [RED])["LABEL"][0, 0] == b"red"


@protocols
@pytest.mark.parametrize("class_count", [1, 2, 3, 99])
def test_tritons_classification_extension_names_the_labels_of_probability(
    either_server: Any, connect: Callable[..., Any], class_count: int, protocol: str
) -> None:
    client = connect(either_server, protocol, timeout_s=5)
    classified = client.ask("colours_full", [RED, GREEN], ["PROBABILITY"], class_count=class_count)["PROBABILITY"]
    answer = client.ask("colours_full", [RED, GREEN])
    assert classified.shape == (2, min(class_count, 3))
    for row in range(2):
        for rank, entry in enumerate(classified[row][:2]):
            score, class_id, label = entry.decode().split(":")
            assert label.encode() == answer["LABEL"][row, rank]
            assert int(class_id) == answer["CLASS_ID"][row, rank]
            assert float(score) == pytest.approx(answer["SCORE"][row, rank], abs=1e-5)


@protocols
@ensembles
def test_a_refused_image_has_its_status_and_nothing_else(
    either_server: Any, connect: Callable[..., Any], model: str, protocol: str
) -> None:
    answer = connect(either_server, protocol).ask(model, [CUT, b"", RED, b"a cat"])
    assert answer["STATUS"][:, 0].tolist() == [CORRUPT, EMPTY, OK, UNSUPPORTED]
    bad = [0, 1, 3]
    assert (answer["LABEL"][bad] == b"").all()
    assert (answer["CLASS_ID"][bad] == -1).all()
    for name in {"SCORE", "PROBABILITY", "EMBEDDING"} & OUTPUTS[model].keys():
        assert not answer[name][bad].any(), f"{name} of the placeholder is nobody's answer"
        assert answer[name][2].any()
    assert set(answer["BUNDLE"].ravel()) == {Bundle.open(BUNDLE).id.encode()}


@protocols
@ensembles
def test_an_answer_under_the_threshold_is_unknown_followed_by_the_candidates(
    either_server: Any, connect: Callable[..., Any], model: str, protocol: str
) -> None:
    answer = connect(either_server, protocol).ask(model, [GREY, RED])
    assert answer["STATUS"][:, 0].tolist() == [OK, OK]
    assert answer["LABEL"][0].tolist() == [b"unknown", b"blue"]
    assert answer["CLASS_ID"][0].tolist() == [-1, 0]
    assert answer["SCORE"][0] == pytest.approx([1 / 3, 1 / 3], abs=0.01)
    assert answer["LABEL"][1, 0] == b"red"
    if model == "colours_full":
        assert answer["PROBABILITY"][0] == pytest.approx([1 / 3] * 3, abs=0.01)


def test_rows_with_fewer_labels_than_k_are_padded(
    start: Callable[[Path], Any], assemble_colours: Callable[..., Path], connect: Callable[..., Any], tmp_path: Path
) -> None:
    decision = {"task": "multiclass", "top_k": 5}
    client = connect(start(assemble_colours(tmp_path, decision=decision)), "grpc")
    answer = client.ask("colours_full", [RED, CUT])
    assert answer["LABEL"].tolist() == [[b"red", b"blue", b"green", b"", b""], [b""] * 5]
    assert answer["CLASS_ID"].tolist() == [[2, 0, 1, -1, -1], [-1] * 5]
    assert answer["SCORE"][0, 3:].tolist() == [0, 0]
    assert answer["SCORE"][0, :3].sum() == pytest.approx(1.0, abs=1e-5)
    assert not answer["SCORE"][1].any()


def test_a_multilabel_answer_holds_the_labels_over_their_thresholds_and_then_padding(
    start: Callable[[Path], Any], assemble_colours: Callable[..., Path], connect: Callable[..., Any], tmp_path: Path
) -> None:
    decision = {"task": "multilabel", "top_k": 3, "thresholds": [0.6, 0.6, 0.9]}
    client = connect(start(assemble_colours(tmp_path, decision=decision)), "grpc")
    yellow, black, dim_red = filled(250, 230, 0, size=(64, 64)), filled(0, 0, 0), filled(40, 0, 0, size=(64, 64))
    answer = client.ask("colours_full", [yellow, black, dim_red, CUT])
    assert answer["STATUS"][:, 0].tolist() == [OK, OK, OK, CORRUPT]
    assert answer["LABEL"].tolist() == [[b"red", b"green", b""], [b""] * 3, [b""] * 3, [b""] * 3]
    assert answer["CLASS_ID"].tolist() == [[2, 1, -1], [-1] * 3, [-1] * 3, [-1] * 3]
    assert 0.6 < answer["PROBABILITY"][2, 2] < 0.9, "a label under its own threshold is not given"
    assert not answer["SCORE"][1:].any()
