"""Accuracy, F1, calibration error and temperature, against scikit-learn and cases worked out by hand."""

import re
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from slipway.contract import DataError, Preprocess
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.evaluation.fit_decision import fit_temperature
from slipway.evaluation.metrics import evaluate, mean_average_precision, top_k_accuracy
from slipway.evaluation.predict import pixel_batches, predict
from slipway.evaluation.reliability import expected_calibration_error
from slipway.steps.preprocess import Preprocessor
from slipway.system.files import sha256_bytes
from tests.support.image_files import encode, photo

Float = npt.NDArray[np.float32]
PREPROCESS = Preprocess(input_height=16, input_width=16)


def softmax(logits_nc: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    exponents = np.exp(logits_nc - logits_nc.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def nll(logits_nc: Float, truth_n: npt.NDArray[np.int64], temperature: float) -> float:
    probability_nc = softmax(logits_nc.astype(np.float64) / temperature)
    return float(metrics.log_loss(truth_n, probability_nc, labels=np.arange(logits_nc.shape[1])))


def confident(confidence_n: list[float], classes: int = 2) -> Float:
    """Rows that give class 0 this probability, and share the rest."""
    confidences = np.array(confidence_n)[:, None]
    return np.hstack([confidences, np.repeat((1 - confidences) / (classes - 1), classes - 1, axis=1)]).astype(
        np.float32
    )


@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_every_number_of_an_evaluation_is_scikit_learn_s(images: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probability_nc = softmax(rng.normal(size=(images, classes)) * 2).astype(np.float32)
    truth_n = rng.integers(0, classes, images)
    predicted_n, class_ids = probability_nc.argmax(axis=1), np.arange(classes)
    labels = [f"class {class_id}" for class_id in class_ids]
    found = evaluate(probability_nc, truth_n, labels)
    assert found.images == images
    assert found.top1 == pytest.approx(metrics.accuracy_score(truth_n, predicted_n))
    options = {"labels": class_ids, "zero_division": 0}
    with_images = options | {"labels": np.unique(truth_n)}
    assert found.macro_f1 == pytest.approx(metrics.f1_score(truth_n, predicted_n, average="macro", **with_images))
    dense_cc = np.zeros((classes, classes), int)
    for truth, label, count in found.confusion:
        dense_cc[truth, label] = count
    assert (dense_cc == metrics.confusion_matrix(truth_n, predicted_n, labels=class_ids)).all()
    assert list(found.per_class) == labels
    for name, score in (("precision", metrics.precision_score), ("recall", metrics.recall_score)):
        expected = score(truth_n, predicted_n, average=None, **options)
        assert [getattr(row, name) for row in found.per_class.values()] == pytest.approx(expected.tolist())
    assert sum(row.images for row in found.per_class.values()) == images
    for average in ("macro", "weighted"):
        expected = metrics.precision_recall_fscore_support(truth_n, predicted_n, average=average, **with_images)[:3]
        assert [getattr(getattr(found, average), name) for name in ("precision", "recall", "f1")] == pytest.approx(
            expected
        )
    for row in found.per_class.values():
        for name in ("precision", "recall", "f1"):
            low, high = getattr(row, f"{name}_interval")
            assert 0 <= low <= getattr(row, name) <= high <= 1
    assert list(found.top_k) == [str(k) for k in (3, 5) if k < classes]


@given(st.integers(1, 40), st.integers(2, 6), st.integers(1, 9), st.integers(0, 10**6))
def test_top_k_is_scikit_learn_s_and_all_classes_are_enough(images: int, classes: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probability_nc = softmax(rng.normal(size=(images, classes))).astype(np.float32)
    truth_n = rng.integers(0, classes, images)
    found = top_k_accuracy(probability_nc, truth_n, k=k)
    if k >= classes:
        assert found == 1.0
    else:
        expected = (np.argsort(-probability_nc, axis=1, kind="stable")[:, :k] == truth_n[:, None]).any(axis=1).mean()
        assert found == pytest.approx(expected)
    assert top_k_accuracy(0 * probability_nc, truth_n, k=k) == 0.0, "no answer is right about nothing"
    assert top_k_accuracy(np.full_like(probability_nc, 0.5), truth_n, k=1) == pytest.approx((truth_n == 0).mean())


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 10**6))
def test_mean_average_precision_is_scikit_learn_s_over_the_classes_that_an_image_has(
    images: int, classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    probability_nc = rng.random((images, classes)).astype(np.float32)
    truth_nc = rng.random((images, classes)) < 0.3
    labels = [f"class {class_id}" for class_id in range(classes)]
    mean, per_class = mean_average_precision(probability_nc, truth_nc, labels)
    present = truth_nc.any(axis=0)
    assert [value is not None for value in per_class.values()] == present.tolist()
    if present.any():
        expected = metrics.average_precision_score(truth_nc[:, present], probability_nc[:, present], average="macro")
        assert mean == pytest.approx(expected)
    else:
        assert mean is None


def test_the_rows_of_the_confusion_matrix_are_the_truth() -> None:
    probability_nc = np.array([[0.9, 0.1, 0], [0.9, 0.1, 0], [0.1, 0.9, 0]], np.float32)
    found = evaluate(probability_nc, np.array([0, 1, 2]), ["a", "b", "c"])
    assert found.confusion == ((0, 0, 1), (1, 0, 1), (2, 1, 1))
    assert found.top1 == pytest.approx(1 / 3)
    assert found.per_class["b"].model_dump() == {
        **{"images": 1, "precision": 0.0, "recall": 0.0, "f1": 0.0},
        "precision_interval": pytest.approx((0.0, 0.975)),
        "recall_interval": pytest.approx((0.0, 0.975)),
        "f1_interval": pytest.approx((0.0, 2 * 0.8419 / 1.8419), abs=1e-4),  # of no hit among two images
    }


@pytest.mark.parametrize(
    ("confidences", "truth", "expected"),
    [
        ([1.0] * 30, [0] * 30, 0.0),  # sure, and right
        ([1.0] * 30, [1] * 30, 1.0),  # sure, and wrong
        ([0.75] * 60, [0, 0, 0, 1] * 15, 0.0),  # right as often as it says
        ([0.9] * 60, [0, 1] * 30, 0.4),  # right half as often
        ([0.6] * 60, [0] * 60, 0.4),  # too modest
        ([0.8] * 70 + [1.0] * 80, [0] * 70 + [1] * 80, (0.2 * 70 + 80) / 150),  # the two halves do not cancel
        ([0.8], [0], 0.2),  # fewer images than bins
        ([0.8, 0.9], [0, 1], (0.2 + 0.9) / 2),
    ],
)
def test_the_calibration_error_of_cases_worked_out_by_hand(
    confidences: list[float], truth: list[int], expected: float
) -> None:
    assert expected_calibration_error(confident(confidences), np.array(truth)) == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.tuples(st.floats(0.5, 1.0), st.booleans()), min_size=1, max_size=200))
def test_the_calibration_error_lies_between_the_whole_gap_and_the_gap_of_every_image(
    answers: list[tuple[float, bool]],
) -> None:
    probability_nc = confident([confidence for confidence, _ in answers])
    truth_n = np.array([0 if right else 1 for _, right in answers])
    right_n = probability_nc.argmax(axis=1) == truth_n
    found = expected_calibration_error(probability_nc, truth_n)
    confidence_n = probability_nc.max(axis=1).astype(np.float64)
    assert abs(right_n.mean() - confidence_n.mean()) - 1e-6 <= found <= np.abs(right_n - confidence_n).mean() + 1e-6


def test_the_calibration_error_does_not_depend_on_the_order_of_the_images() -> None:
    probability_nc, truth_n = confident([0.9] * 60), np.array([0] * 30 + [1] * 30)
    shuffled = np.random.default_rng(0).permutation(60)
    in_order = expected_calibration_error(probability_nc, truth_n)
    assert in_order == pytest.approx(expected_calibration_error(probability_nc[shuffled], truth_n[shuffled]))
    assert in_order == pytest.approx(0.4)


@given(st.floats(0.2, 8), st.integers(2, 12), st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_the_temperature_that_the_labels_were_drawn_with_is_found(temperature: float, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits_nc = (2 * temperature * rng.normal(size=(20_000, classes))).astype(np.float32)
    cumulated = softmax(logits_nc.astype(np.float64) / temperature).cumsum(axis=1)
    truth_n = (rng.random((len(logits_nc), 1)) > cumulated[:, :-1]).sum(axis=1)
    assert fit_temperature(logits_nc, truth_n) == pytest.approx(temperature, rel=0.06)


@given(st.integers(1, 80), st.integers(2, 6), st.floats(0.01, 100), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_the_fitted_temperature_is_allowed_and_has_no_higher_loss_than_one(
    images: int, classes: int, spread: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits_nc = (spread * rng.normal(size=(images, classes))).astype(np.float32)
    truth_n = rng.integers(0, classes, images)
    temperature = fit_temperature(logits_nc, truth_n)
    assert 0.05 <= temperature <= 20
    assert temperature == round(temperature, 3)
    assert nll(logits_nc, truth_n, temperature) <= nll(logits_nc, truth_n, 1.0) * (1 + 1e-4) + 1e-9


def test_scaling_the_logits_scales_the_temperature_and_gives_the_same_probabilities() -> None:
    rng = np.random.default_rng(0)
    logits_nc, truth_n = rng.normal(size=(500, 5)).astype(np.float32), rng.integers(0, 5, 500)
    logits_nc[np.arange(500), truth_n] += 2
    one, three = fit_temperature(logits_nc, truth_n), fit_temperature(3 * logits_nc, truth_n)
    assert three == pytest.approx(3 * one, rel=5e-3)


@given(st.integers(1, 40), st.integers(1, 17))
@settings(deadline=None, max_examples=30)
def test_every_image_is_predicted_once_in_order_for_any_count_and_batch_size(count: int, batch_size: int) -> None:
    encoded = [
        (f"{number}.png", encode(photo(16, 16, seed=number), "PNG", compress_level=0)) for number in range(count)
    ]
    batches = list(pixel_batches(iter(encoded), preprocess=PREPROCESS, batch_size=batch_size, total=count, what="test"))
    assert [len(batch) for batch in batches] == [batch_size] * (count // batch_size) + [count % batch_size] * (
        count % batch_size > 0
    )
    served = Preprocessor(PREPROCESS.model_dump(), max_batch_size=count, threads=1).run([data for _, data in encoded])[
        0
    ]
    np.testing.assert_array_equal(np.array(list(chain(*batches))), served)


def test_an_image_that_serving_would_refuse_stops_the_prediction_by_name(tmp_path: Path) -> None:
    files = {"good.png": encode(photo(16, 16), "PNG"), "cut.png": encode(photo(16, 16), "PNG")[:-9]}
    for name, encoded in files.items():
        (tmp_path / name).write_bytes(encoded)
    images = [
        LabelledImage(path=name, class_id=0, sha256=sha256_bytes(encoded), split="test")
        for name, encoded in files.items()
    ]
    dataset = Dataset(root=str(tmp_path), labels=("a", "b"), images=tuple(images))

    def network(pixels_nchw: Float) -> tuple[Float, Float]:
        return pixels_nchw[:, :, 0, 0], pixels_nchw[:, :, 0, 0]

    with pytest.raises(DataError, match=re.escape("cut.png: corrupt; serving would refuse it")):
        predict(network, dataset, images, preprocess=PREPROCESS, batch_size=4, what="test")
