"""Logits to answers, against an oracle in plain Python."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slipway.contract import Decision, SpecError
from slipway.steps import guard
from slipway.steps.postprocess import INTERNAL, UNKNOWN, Answers, Postprocessor

Logits = npt.NDArray[np.float32]
Probability = st.floats(0, 1)
Temperature = st.floats(0.05, 20)
LARGEST = float(np.finfo(np.float32).max)


def labels(classes: int) -> list[str]:
    return [f"class {class_id} ✓" for class_id in range(classes)]


def decide(logits_nc: Logits, status_n: npt.ArrayLike | None = None, **decision: Any) -> Answers:
    """Answers of a decision that the contract allows."""
    checked = Decision.parse({"task": "multiclass", **decision}, source="test").model_dump()
    status_n = np.zeros(len(logits_nc), np.int32) if status_n is None else np.asarray(status_n, np.int32)
    return Postprocessor(checked, labels(logits_nc.shape[1])).run(logits_nc, status_n)


def rows(answers: Answers) -> list[tuple[list[bytes], list[float], list[int], int]]:
    """One comparable tuple an image, its probabilities apart."""
    return [
        (list(label), score.tolist(), class_id.tolist(), int(status))
        for label, score, class_id, status in zip(
            answers.label_nk, answers.score_nk, answers.class_id_nk, answers.status_n, strict=True
        )
    ]


def softmax(logits: list[float], temperature: float) -> list[float]:
    peak = max(logits)
    exponents = [math.exp((logit - peak) / temperature) for logit in logits]
    return [exponent / math.fsum(exponents) for exponent in exponents]


def sigmoid(logits: list[float], temperature: float) -> list[float]:
    def one(x: float) -> float:
        return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(max(x, -700)) / (1 + math.exp(max(x, -700)))

    return [one(logit / temperature) for logit in logits]


def expected_row(
    probabilities: list[float], *, top_k: int, keep: Callable[[int], bool] = lambda _: True, unknown_below: float = -1.0
) -> tuple[list[bytes], list[float], list[int], int]:
    """The answer to an image with these probabilities, by sorting and cutting lists."""
    kept = [class_id for class_id in range(len(probabilities)) if keep(class_id)]
    best = sorted(kept, key=lambda class_id: (-probabilities[class_id], class_id))[:top_k]
    answer = [(labels(len(probabilities))[class_id].encode(), probabilities[class_id], class_id) for class_id in best]
    answer += [(b"", 0.0, -1)] * (top_k - len(answer))
    if answer[0][1] < unknown_below:
        answer = [(UNKNOWN, answer[0][1], -1), *answer][:top_k]
    label, score, class_id = (list(column) for column in zip(*answer, strict=True))
    return label, score, class_id, 0


def logits(*, rows: tuple[int, int] = (1, 5), classes: tuple[int, int] = (2, 9)) -> st.SearchStrategy[Logits]:
    """Finite float32, often in ties: half of the draws come from a few whole numbers."""
    shape = st.tuples(st.integers(*rows), st.integers(*classes))
    values = st.one_of(st.integers(-3, 3).map(float), st.floats(-60, 60, width=32))
    return shape.flatmap(lambda dims: hnp.arrays(np.float32, dims, elements=values))


@given(logits(), Temperature)
def test_multiclass_probabilities_are_the_softmax_at_the_temperature(logits_nc: Logits, temperature: float) -> None:
    answers = decide(logits_nc, top_k=1, temperature=temperature)
    expected = [softmax(row, temperature) for row in logits_nc.tolist()]
    np.testing.assert_allclose(answers.probability_nc, expected, rtol=2e-6, atol=1e-30)
    np.testing.assert_allclose(answers.probability_nc.sum(axis=1), 1, rtol=1e-5)


@given(logits(), Temperature)
def test_multilabel_probabilities_are_the_sigmoid_at_the_temperature(logits_nc: Logits, temperature: float) -> None:
    thresholds = [0.5] * logits_nc.shape[1]
    answers = decide(logits_nc, task="multilabel", top_k=1, temperature=temperature, thresholds=thresholds)
    expected = [sigmoid(row, temperature) for row in logits_nc.tolist()]
    np.testing.assert_allclose(answers.probability_nc, expected, rtol=2e-6, atol=1e-30)


@given(logits(), st.integers(1, 12), Temperature)
def test_multiclass_answers_are_best_first_ties_in_class_order_and_padded_to_k(
    logits_nc: Logits, top_k: int, temperature: float
) -> None:
    answers = decide(logits_nc, top_k=top_k, temperature=temperature)
    assert rows(answers) == [expected_row(row, top_k=top_k) for row in answers.probability_nc.tolist()]


@given(logits(), st.integers(1, 12), Probability)
def test_an_answer_under_the_threshold_is_unknown_with_its_candidates_after_it(
    logits_nc: Logits, top_k: int, threshold: float
) -> None:
    answers = decide(logits_nc, top_k=top_k, unknown={"threshold": threshold})
    below = float(np.float32(threshold))
    probabilities = answers.probability_nc.tolist()
    assert rows(answers) == [expected_row(row, top_k=top_k, unknown_below=below) for row in probabilities]


@given(logits(), st.integers(1, 12), st.data())
def test_multilabel_gives_the_labels_that_reach_their_own_thresholds(
    logits_nc: Logits, top_k: int, data: st.DataObject
) -> None:
    classes = logits_nc.shape[1]
    thresholds = data.draw(st.lists(Probability, min_size=classes, max_size=classes), label="thresholds")
    answers = decide(logits_nc, task="multilabel", top_k=top_k, thresholds=thresholds)
    limits = np.asarray(thresholds, np.float32).tolist()
    assert rows(answers) == [
        expected_row(row, top_k=top_k, keep=lambda class_id, row=row: row[class_id] >= limits[class_id])
        for row in answers.probability_nc.tolist()
    ]


def test_a_multilabel_class_under_its_threshold_is_not_given_though_it_is_the_most_probable() -> None:
    logits_nc = np.array([[2.0, 0.0, -1.0, -9.0]], np.float32)  # 0.88, 0.5, 0.27, 0.0
    answers = decide(logits_nc, task="multilabel", top_k=3, thresholds=[0.9, 0.5, 0.2, 0.5])
    assert answers.class_id_nk.tolist() == [[1, 2, -1]]
    assert answers.label_nk.tolist() == [["class 1 ✓".encode(), "class 2 ✓".encode(), b""]]
    assert answers.score_nk[0].tolist() == pytest.approx([0.5, 0.26894142, 0.0])


def test_a_multilabel_answer_without_labels_is_empty_and_ok() -> None:
    answers = decide(np.full((1, 3), -5, np.float32), task="multilabel", top_k=2, thresholds=[0.5] * 3)
    assert rows(answers) == [([b"", b""], [0.0, 0.0], [-1, -1], 0)]
    assert (answers.probability_nc > 0).all()


def test_unknown_keeps_the_best_probability_and_pushes_the_last_candidate_out() -> None:
    logits_nc = np.log(np.array([[0.3, 0.4, 0.2, 0.1]], np.float32))
    answers = decide(logits_nc, top_k=3, unknown={"threshold": 0.5})
    assert answers.label_nk.tolist() == [[UNKNOWN, "class 1 ✓".encode(), "class 0 ✓".encode()]]
    assert answers.class_id_nk.tolist() == [[-1, 1, 0]]
    assert answers.score_nk[0].tolist() == pytest.approx([0.4, 0.4, 0.3])


def test_a_probability_at_the_threshold_is_known() -> None:
    answers = decide(np.zeros((1, 4), np.float32), top_k=1, unknown={"threshold": 0.25})
    assert answers.class_id_nk.tolist() == [[0]]


@given(
    logits_nc=hnp.arrays(np.float32, (4, 3), elements=st.floats(width=32)),
    status_n=st.lists(st.sampled_from(range(len(guard.STATUS_NAMES))), min_size=4, max_size=4),
    decision=st.sampled_from(
        [{}, {"unknown": {"threshold": 1.0}}, {"task": "multilabel", "thresholds": [0.0, 0.0, 0.0]}]
    ),
)
def test_a_row_with_a_status_is_empty_whatever_its_logits_and_the_others_stay(
    logits_nc: Logits, status_n: list[int], decision: dict[str, Any]
) -> None:
    answers = decide(logits_nc, status_n, top_k=2, **decision)
    alone = [decide(logits_nc[[row]], [status], top_k=2, **decision) for row, status in enumerate(status_n)]
    assert rows(answers) == [rows(one)[0] for one in alone]
    np.testing.assert_array_equal(answers.probability_nc, np.concatenate([one.probability_nc for one in alone]))
    for row, status in enumerate(status_n):
        finite = bool(np.isfinite(logits_nc[row]).all())
        expected_status = status if status or finite else INTERNAL
        assert answers.status_n[row] == expected_status
        if expected_status:
            assert rows(answers)[row] == ([b"", b""], [0.0, 0.0], [-1, -1], expected_status)
            assert not answers.probability_nc[row].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", range(3))
def test_one_logit_that_is_not_finite_makes_its_own_image_internal_alone(bad: float, position: int) -> None:
    logits_nc = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    good = decide(logits_nc, top_k=2)
    logits_nc[1, position] = bad
    answers = decide(logits_nc, top_k=2)
    assert answers.status_n.tolist() == [0, INTERNAL, 0]
    assert rows(answers)[::2] == rows(good)[::2]
    np.testing.assert_array_equal(answers.probability_nc[::2], good.probability_nc[::2])


def test_internal_is_the_status_of_the_guard() -> None:
    assert INTERNAL == guard.INTERNAL


@given(hnp.arrays(np.float32, (2, 3), elements=st.floats(-LARGEST, LARGEST, width=32)), Temperature, st.booleans())
@example(np.array([[LARGEST, -LARGEST, 0], [LARGEST, LARGEST, LARGEST]], np.float32), 0.05, False)
@example(np.array([[LARGEST, -LARGEST, 0], [-LARGEST, -LARGEST, -LARGEST]], np.float32), 0.05, True)
def test_logits_as_large_as_float32_holds_do_not_overflow(
    logits_nc: Logits, temperature: float, multilabel: bool
) -> None:
    task = {"task": "multilabel", "thresholds": [0.5] * 3} if multilabel else {}
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        answers = decide(logits_nc, top_k=3, temperature=temperature, **task)
    assert (answers.status_n == 0).all()
    assert ((answers.probability_nc >= 0) & (answers.probability_nc <= 1)).all()
    if not multilabel:
        np.testing.assert_allclose(answers.probability_nc.sum(axis=1), 1, rtol=1e-5)


@given(logits(rows=(0, 4)), st.integers(1, 12), st.sampled_from(["multiclass", "unknown", "multilabel"]))
def test_shapes_and_dtypes_are_those_of_the_served_interface(logits_nc: Logits, top_k: int, kind: str) -> None:
    images, classes = logits_nc.shape
    decision: dict[str, dict[str, Any]] = {
        "multiclass": {},
        "unknown": {"unknown": {"threshold": 0.5}},
        "multilabel": {"task": "multilabel", "thresholds": [0.5] * classes},
    }
    answers = decide(logits_nc, top_k=top_k, **decision[kind])
    assert (answers.label_nk.dtype, answers.label_nk.shape) == (np.object_, (images, top_k))
    assert all(isinstance(label, bytes) for label in answers.label_nk.flat)
    assert (answers.score_nk.dtype, answers.score_nk.shape) == (np.float32, (images, top_k))
    assert (answers.class_id_nk.dtype, answers.class_id_nk.shape) == (np.int32, (images, top_k))
    assert (answers.status_n.dtype, answers.status_n.shape) == (np.int32, (images,))
    assert (answers.probability_nc.dtype, answers.probability_nc.shape) == (np.float32, (images, classes))


def test_the_arrays_given_are_left_as_they_were() -> None:
    logits_nc, status_n = np.array([[1, np.nan], [2, 1]], np.float32), np.zeros(2, np.int32)
    before = logits_nc.copy()
    Postprocessor(
        {"task": "multiclass", "top_k": 1, "temperature": 2.0, "unknown": {"threshold": 0.9}}, ["a", "b"]
    ).run(logits_nc, status_n)
    np.testing.assert_array_equal(logits_nc, before)
    assert status_n.tolist() == [0, 0]


@given(st.floats(0, 1000, exclude_min=True))
@example(1e-300)
def test_every_temperature_that_the_contract_allows_gives_finite_probabilities(temperature: float) -> None:
    try:
        answers = decide(np.array([[LARGEST, 1.0, -LARGEST]], np.float32), top_k=1, temperature=temperature)
    except SpecError:
        return
    assert np.isfinite(answers.probability_nc).all()


@given(logits(classes=(2, 5)), st.data())
def test_platt_s_slopes_and_offsets_stand_in_the_place_of_the_temperature(
    logits_nc: Logits, data: st.DataObject
) -> None:
    classes = logits_nc.shape[1]
    pair = st.tuples(st.floats(0.01, 20), st.floats(-20, 20))
    platt = data.draw(st.lists(pair, min_size=classes, max_size=classes), label="platt")
    answers = decide(logits_nc, task="multilabel", top_k=1, platt=platt, thresholds=[0.5] * classes)
    scaled = [
        [slope * logit + offset for logit, (slope, offset) in zip(row, platt, strict=True)]
        for row in logits_nc.tolist()
    ]
    np.testing.assert_allclose(answers.probability_nc, [sigmoid(row, 1.0) for row in scaled], rtol=2e-6, atol=1e-30)


def test_a_decision_json_of_an_earlier_release_answers_as_before() -> None:
    logits_nc = np.log(np.array([[0.3, 0.4, 0.3], [0.8, 0.1, 0.1]], np.float32))
    unknown = {"score": "max_probability", "threshold": 0.5}
    old = {"task": "multiclass", "temperature": 1.0, "thresholds": None, "top_k": 2, "unknown": unknown}
    answers = Postprocessor(old, labels(3)).run(logits_nc, np.zeros(2, np.int32))
    assert answers.class_id_nk.tolist() == [[-1, 1], [0, 1]]
