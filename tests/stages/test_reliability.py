"""Calibration: reliability with its interval, Platt's scaling, and the evaluation of a bundle around them."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.calibration import _SigmoidCalibration

from slipway.contract import Decision
from slipway.contract.dataset import LabelledImage
from slipway.contract.evidence.evaluation import BundleEvaluation, ScoreChoice
from slipway.evaluation.bundle import evaluate_bundle
from slipway.evaluation.fit_decision import fit_platt, fit_temperature
from slipway.evaluation.intervals import f1_interval, share_interval
from slipway.evaluation.predict import Predictions
from slipway.evaluation.reliability import expected_calibration_error, reliability

Float = npt.NDArray[np.float32]


def answers(images: int, *, seed: int, temperature: float = 1.0) -> tuple[Float, npt.NDArray[np.int64]]:
    """Logits, and truths drawn with the softmax of the logits over `temperature`."""
    rng = np.random.default_rng(seed)
    logits_nc = (3 * rng.normal(size=(images, 5))).astype(np.float32)
    truth_n = (logits_nc / temperature + rng.gumbel(size=logits_nc.shape)).argmax(axis=1)
    return logits_nc, truth_n


def softmax(logits_nc: Float) -> Float:
    exponents = np.exp(logits_nc - logits_nc.max(axis=1, keepdims=True))
    return (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(1, 400), st.integers(0, 10**6))
@settings(max_examples=25)
def test_the_bins_hold_every_image_once_and_make_up_the_calibration_error(images: int, seed: int) -> None:
    logits_nc, truth_n = answers(images, seed=seed)
    found = reliability(softmax(logits_nc), truth_n)
    assert found.ece == expected_calibration_error(softmax(logits_nc), truth_n)
    assert sum(row.images for row in found.bins) == images
    assert len(found.bins) <= 15
    gaps = [abs(row.accuracy - row.confidence) * row.images for row in found.bins]
    assert sum(gaps) / images == pytest.approx(found.ece, abs=1e-6)
    assert [row.confidence for row in found.bins] == sorted(row.confidence for row in found.bins)
    assert 0 <= found.ece_interval[0] <= found.ece_interval[1] <= 1
    assert reliability(softmax(logits_nc), truth_n) == found, "the resamples are seeded"


def test_the_interval_holds_the_error_of_probabilities_that_are_far_from_the_truth() -> None:
    logits_nc, truth_n = answers(2000, seed=1, temperature=3.0)
    large_nc, large_n = answers(200_000, seed=2, temperature=3.0)
    true_error = expected_calibration_error(softmax(large_nc), large_n)
    found = reliability(softmax(logits_nc), truth_n)
    assert found.ece_interval[0] < true_error < found.ece_interval[1]
    assert found.ece_interval[0] > 0.1


def test_a_resample_counts_an_image_as_often_as_it_was_drawn() -> None:
    probability_nc = np.array([[0.9, 0.1]] * 2, np.float32)  # one right, one wrong: 0.4; two wrong: 0.9; two right: 0.1
    found = reliability(probability_nc, np.array([0, 1]))
    assert found.ece == pytest.approx(0.4, abs=1e-6)
    assert found.ece_interval == pytest.approx((0.1, 0.9), abs=1e-6)


@pytest.mark.parametrize("right", [True, False])
def test_sure_and_all_right_or_all_wrong(right: bool) -> None:
    probability_nc = np.array([[1.0, 0.0]] * 30, np.float32)
    found = reliability(probability_nc, np.full(30, 0 if right else 1))
    unseen = 1 - 0.025 ** (1 / 30)
    assert (found.ece, found.ece_interval[0]) == ((0.0, 0.0) if right else (1.0, 1.0))
    assert found.ece_interval[1] == (pytest.approx(unseen, abs=1e-6) if right else 1.0)
    assert len(found.bins) == 1


@pytest.mark.parametrize(("images", "accuracy"), [(36, 0.95), (36, 0.99), (200, 0.98)])
def test_the_interval_holds_the_error_of_few_images_that_are_nearly_all_right(images: int, accuracy: float) -> None:
    """Confidence 1, so that the true error is 1 - accuracy; bootstrap alone misses it whenever no image is wrong."""
    rng = np.random.default_rng(0)
    probability_nc = np.tile(np.array([1.0, 0.0], np.float32), (images, 1))
    held = 0
    for _ in range(40):
        low, high = reliability(probability_nc, (rng.random(images) > accuracy).astype(np.int64)).ece_interval
        held += low <= 1 - accuracy <= high
    assert held >= 36


@given(st.integers(4, 120), st.integers(1, 4), st.floats(0.2, 3), st.floats(-2, 2), st.integers(0, 10**6))
@settings(max_examples=30)
def test_platt_s_scaling_is_scikit_learn_s(images: int, classes: int, slope: float, offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits_nc = (2 * rng.normal(size=(images, classes))).astype(np.float32)
    truth_nc = rng.random((images, classes)) < expit(slope * logits_nc + offset)
    for class_id, (fitted_slope, fitted_offset) in enumerate(fit_platt(logits_nc, truth_nc)):
        truth_n, logits_n = truth_nc[:, class_id], logits_nc[:, class_id].astype(np.float64)
        if truth_n.all() or not truth_n.any():
            assert (fitted_slope, fitted_offset) == (1.0, 0.0)
            continue
        theirs = _SigmoidCalibration().fit(logits_n, truth_n.astype(np.float64))
        if 0.02 < -theirs.a_ < 50 and abs(theirs.b_) < 40:  # ours keeps the order of the logits
            assert expit(fitted_slope * logits_n + fitted_offset) == pytest.approx(theirs.predict(logits_n), abs=5e-3)


def test_classes_that_are_told_apart_without_an_error_do_not_get_infinite_slopes() -> None:
    logits_nc = np.array([[-4.0], [-3.0], [3.0], [4.0]], np.float32)
    ((slope, offset),) = fit_platt(logits_nc, logits_nc > 0)
    assert 0.1 < slope < 1
    assert offset == pytest.approx(0.0, abs=1e-3)
    assert expit(slope * 3.5 + offset) == pytest.approx(0.75, abs=0.03)  # (2 + 1) / (2 + 2), Platt's target


@given(st.integers(0, 50), st.integers(0, 50))
def test_the_interval_of_f1_holds_it_and_is_that_of_a_share(right: int, others: int) -> None:
    low, high = f1_interval(right, right + others, error=0.025)
    f1 = 2 * right / (2 * right + others) if right + others else 0.0
    assert 0 <= low <= f1 + 1e-12
    assert f1 <= high + 1e-12 <= 1 + 1e-9
    share_low, share_high = share_interval(right, right + others, error=0.025)
    assert (low, high) == pytest.approx((2 * share_low / (1 + share_low), 2 * share_high / (1 + share_high)))


def predictions(images: int, *, seed: int, temperature: float) -> Predictions:
    logits_nc, truth_n = answers(images, seed=seed, temperature=temperature)
    listed = [
        LabelledImage(path=f"{number}.png", class_id=int(class_id), sha256="", split="test")
        for number, class_id in enumerate(truth_n)
    ]
    return Predictions(listed, logits_nc, logits_nc.copy())


@pytest.mark.parametrize("images", [1, 15, 1200])
def test_the_evaluation_of_a_bundle_is_json_and_calibration_lowers_the_error(images: int) -> None:
    validation, test = (predictions(images, seed=seed, temperature=2.5) for seed in (3, 4))
    temperature = fit_temperature(validation.logits_nc, validation.truth_n)
    unknown = {"threshold": 0.5}
    decision = Decision.parse(
        {"task": "multiclass", "top_k": 2, "temperature": temperature, "unknown": unknown}, source="test"
    )
    labels = tuple("abcde")
    found = evaluate_bundle(decision, validation, test, labels, unknown=ScoreChoice())
    assert BundleEvaluation.parse(found.plain(), source="test") == found
    assert found.images == images
    assert len(found.mistakes) == min(round(images * (1 - found.top1)), 60)
    scores = [mistake.score for mistake in found.mistakes]
    assert scores == sorted(scores, reverse=True)
    assert all(mistake.truth != mistake.label for mistake in found.mistakes)
    assert found.coverage.curve[-1] == (1.0, pytest.approx(found.top1))
    if images == 1200:
        before, after = found.reliability.before, found.reliability.after
        assert after.ece < 0.05
        assert before.ece == found.ece_uncalibrated > 0.15
        assert after.ece == found.ece
        assert found.unknown is not None
        answered = found.unknown.test
        assert 0.1 < answered.unknown_rate < 0.9
        assert answered.accuracy is not None
        assert answered.accuracy > found.top1
