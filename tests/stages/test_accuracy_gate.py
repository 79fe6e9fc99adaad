"""The accuracy gate: known counts, exact bounds, and how often it is wrong."""

from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from slipway.contract.evidence.gate import FAIL, PASS, TOO_FEW, AccuracyResult, Comparison
from slipway.contract.spec import AccuracyGate
from slipway.evaluation.gate import compare, compare_pairs


def gate(
    *, images: int, lost: int, gained: int, both: int = 0, max_loss_points: float = 0.5, confidence: float = 0.95
) -> Comparison:
    """The comparison where so many images were lost and gained, and `both` of the others are right twice."""
    before, after = np.zeros(images, np.bool_), np.zeros(images, np.bool_)
    before[:lost] = True
    after[lost : lost + gained] = True
    before[lost + gained : lost + gained + both] = after[lost + gained : lost + gained + both] = True
    return compare_pairs(before, after, max_loss_points=max_loss_points, confidence=confidence)


counts = st.integers(1, 3000).flatmap(
    lambda images: st.integers(0, images).flatmap(
        lambda lost: st.tuples(st.just(images), st.just(lost), st.integers(0, images - lost))
    )
)
confidences = st.sampled_from([0.5, 0.9, 0.95, 0.99])


@pytest.mark.parametrize(
    ("images", "lost", "gained", "max_loss_points", "verdict"),
    [
        (10_000, 0, 0, 0.5, PASS),
        (10_000, 20, 0, 0.5, PASS),
        (10_000, 49, 0, 0.5, TOO_FEW),
        (10_000, 100, 0, 0.5, FAIL),
        (10_000, 130, 100, 0.5, TOO_FEW),  # many flips: the loss is small and not well known
        (10_000, 0, 300, 0.5, PASS),  # better than the reference
        (10_000, 300, 0, 5.0, PASS),
        (539, 0, 0, 1.5, PASS),  # the demo's test split
        (539, 2, 0, 1.5, PASS),
        (539, 3, 0, 1.5, TOO_FEW),
        (539, 0, 0, 0.5, TOO_FEW),
        (539, 20, 0, 1.5, FAIL),
        (100, 100, 0, 0.5, FAIL),
        (100, 0, 100, 0.5, PASS),
    ],
)
def test_the_verdict_at_known_counts(images: int, lost: int, gained: int, max_loss_points: float, verdict: str) -> None:
    result = gate(images=images, lost=lost, gained=gained, max_loss_points=max_loss_points)
    assert result.verdict == verdict
    assert (result.images, result.lost, result.gained) == (images, lost, gained)
    assert result.loss_points == pytest.approx(100 * (lost - gained) / images)
    assert result.max_loss_points == max_loss_points


@given(counts, confidences)
def test_each_bound_is_that_of_the_exact_binomial_interval(numbers: tuple[int, int, int], confidence: float) -> None:
    images, lost, gained = numbers
    result = gate(images=images, lost=lost, gained=gained, confidence=confidence)
    # A two-sided interval at `confidence` has half of the error on each side, as each of the four bounds here.
    shares = [binomtest(count, images).proportion_ci(confidence, method="exact") for count in (lost, gained)]
    assert result.loss_high_points == pytest.approx(100 * (shares[0].high - shares[1].low), abs=1e-8)
    assert result.loss_low_points == pytest.approx(100 * (shares[0].low - shares[1].high), abs=1e-8)


def at_most(count: int, total: int, share: float) -> float:
    """P(binomial <= count), term by term."""
    return sum(comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(count + 1))


@pytest.mark.parametrize("count", [0, 1, 5, 19])
def test_the_upper_bound_is_the_share_at_which_so_few_are_just_too_unlikely(count: int) -> None:
    result = gate(images=40, lost=count, gained=0, confidence=0.9)
    assert at_most(count, 40, result.loss_high_points / 100) == pytest.approx(0.05, abs=1e-9)


@given(counts, confidences, st.floats(0.01, 100))
def test_the_verdict_follows_from_the_bounds_and_the_loss_lies_between_them(
    numbers: tuple[int, int, int], confidence: float, max_loss_points: float
) -> None:
    images, lost, gained = numbers
    result = gate(images=images, lost=lost, gained=gained, max_loss_points=max_loss_points, confidence=confidence)
    assert -100 <= result.loss_low_points <= result.loss_points <= result.loss_high_points <= 100
    if result.verdict == PASS:
        assert result.loss_high_points <= max_loss_points
    elif result.verdict == FAIL:
        assert result.loss_low_points > max_loss_points
    else:
        assert result.verdict == TOO_FEW
        assert result.loss_low_points <= max_loss_points < result.loss_high_points


@given(counts)
def test_one_image_more_that_is_lost_never_makes_the_verdict_better(numbers: tuple[int, int, int]) -> None:
    images, lost, gained = numbers
    if lost + gained == images:
        return
    better, worse = (gate(images=images, lost=count, gained=gained) for count in (lost, lost + 1))
    assert better.loss_high_points <= worse.loss_high_points
    assert better.loss_low_points <= worse.loss_low_points
    order = [PASS, TOO_FEW, FAIL]
    assert order.index(better.verdict) <= order.index(worse.verdict)


@given(counts, st.integers(2, 20))
def test_more_images_in_the_same_proportions_bring_the_bounds_closer(numbers: tuple[int, int, int], times: int) -> None:
    images, lost, gained = numbers
    few, many = (gate(images=n * images, lost=n * lost, gained=n * gained) for n in (1, times))
    assert few.loss_low_points - 1e-9 <= many.loss_low_points
    assert many.loss_high_points <= few.loss_high_points + 1e-9


@given(counts)
def test_only_flips_count_whether_the_other_images_are_right_or_wrong(numbers: tuple[int, int, int]) -> None:
    images, lost, gained = numbers
    none_right = gate(images=images, lost=lost, gained=gained)
    assert gate(images=images, lost=lost, gained=gained, both=images - lost - gained) == none_right


@pytest.mark.parametrize("images", [1, 2, 10, 100])
def test_a_handful_of_images_is_too_few_even_when_none_is_lost(images: int) -> None:
    assert gate(images=images, lost=0, gained=0).verdict == TOO_FEW


def test_no_image_at_all_is_too_few() -> None:
    assert gate(images=0, lost=0, gained=0).verdict == TOO_FEW


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(("images", "limit"), [(539, 1.5), (2000, 0.5), (300, 5.0)])
@pytest.mark.parametrize("gained_share", [0.0, 0.002, 0.02])
def test_a_true_loss_at_the_limit_passes_or_fails_no_more_often_than_the_confidence_says(
    images: int, limit: float, gained_share: float, confidence: float
) -> None:
    runs = 4000
    rng = np.random.default_rng(1)
    lost_share = limit / 100 + gained_share
    drawn = rng.multinomial(images, [lost_share, gained_share, 1 - lost_share - gained_share], size=runs)
    pairs, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
    verdicts = {PASS: 0, FAIL: 0, TOO_FEW: 0}
    for (lost, gained), count in zip(pairs.tolist(), times.tolist(), strict=True):
        result = gate(images=images, lost=lost, gained=gained, max_loss_points=limit, confidence=confidence)
        verdicts[result.verdict] += count
    noise = 3 * np.sqrt(confidence * (1 - confidence) / runs)
    assert verdicts[PASS] / runs <= 1 - confidence + noise
    assert verdicts[FAIL] / runs <= 1 - confidence + noise


def test_enough_images_prove_a_small_loss_and_a_large_one() -> None:
    """Power: the third verdict is not the only one that the gate ever gives."""
    rng = np.random.default_rng(2)
    for lost_share, verdict in ((0.001, PASS), (0.02, FAIL)):
        drawn = rng.multinomial(5000, [lost_share, 0.0005, 1 - lost_share - 0.0005], size=200)
        verdicts = [gate(images=5000, lost=lost, gained=gained).verdict for lost, gained, _ in drawn.tolist()]
        assert verdicts.count(verdict) >= 190


def test_the_sentence_says_all_that_a_reader_needs() -> None:
    text = str(gate(images=539, lost=3, gained=1, max_loss_points=1.5))
    for part in ("+0.37 points lost", "3 lost", "1 gained of 539", "limit 1.5", TOO_FEW):
        assert part in text


LABELS = ("cat", "dog", "fox")


def by_class(
    lost: tuple[int, int, int], *, images: int = 4000, gained: tuple[int, int, int] = (0, 0, 0), **limits: Any
) -> AccuracyResult:
    """The gate's result where each class has so many images, of which so many are lost, and so many gained."""
    truth_n = np.repeat(np.arange(3), images)
    before_n, after_n = truth_n.copy(), truth_n.copy()
    for class_id in range(3):
        rows = np.flatnonzero(truth_n == class_id)
        after_n[rows[: lost[class_id]]] = -1
        before_n[rows[lost[class_id] : lost[class_id] + gained[class_id]]] = (class_id + 1) % 3
    return compare(truth_n, before_n, after_n, LABELS, AccuracyGate(**limits))


def test_one_class_that_loses_too_much_fails_though_all_together_pass() -> None:
    result = by_class((160, 0, 0), max_loss_points=2, max_class_loss_points=2)
    assert (result.overall.verdict, result.classes["cat"].verdict, result.verdict) == (PASS, FAIL, FAIL)
    assert [reason.split(":")[0] for reason in result.reasons] == ["class cat"]
    assert by_class((20, 20, 20), max_loss_points=2, max_class_loss_points=2).verdict == PASS


def test_what_one_class_gains_does_not_pay_for_what_another_loses() -> None:
    result = by_class((160, 0, 0), gained=(0, 160, 0))
    assert result.overall.loss_points == 0
    assert result.verdict == FAIL
    assert result.classes["dog"].loss_points == -4


def test_a_class_with_few_images_is_too_few_unless_the_spec_allows_what_was_measured() -> None:
    limits = {"max_loss_points": 5, "max_class_loss_points": 2}
    assert by_class((1, 0, 0), images=60, **limits).verdict == TOO_FEW
    assert by_class((1, 0, 0), images=60, prove_classes=False, **limits).verdict == PASS
    over = by_class((2, 0, 0), images=60, prove_classes=False, **limits)  # 3.3 points measured
    assert (over.verdict, over.classes["cat"].verdict) == (TOO_FEW, TOO_FEW)
    assert "class cat" in over.reasons[-1]


def test_a_proven_loss_of_a_class_fails_whatever_the_spec_allows() -> None:
    assert by_class((30, 0, 0), images=60, prove_classes=False, max_loss_points=50).verdict == FAIL


def test_overall_is_always_to_be_proven() -> None:
    result = by_class((0, 0, 0), images=20, prove_classes=False)
    assert result.verdict == TOO_FEW
    assert result.reasons[0].startswith("top-1")


def test_unknown_and_wrong_are_equally_lost() -> None:
    truth_n = np.zeros(1000, np.int64)
    for answer in (-1, 1):
        lost_n = np.where(np.arange(1000) < 100, answer, 0)
        assert compare(truth_n, truth_n, lost_n, LABELS, AccuracyGate()).overall.lost == 100


def test_a_class_without_a_test_image_is_not_judged() -> None:
    truth_n = np.repeat([0, 1], 3000)
    assert list(compare(truth_n, truth_n, truth_n, LABELS, AccuracyGate()).classes) == ["cat", "dog"]


@pytest.mark.nightly
def test_many_classes_fail_by_chance_no_more_often_than_one() -> None:
    """Each of 20 classes truly loses exactly its limit: any FAIL is a false one."""
    rng = np.random.default_rng(3)
    labels, images, runs = [str(i) for i in range(20)], 500, 300
    truth_n = np.repeat(np.arange(20), images)
    failed = 0
    for _ in range(runs):
        after_n = np.where(rng.random(len(truth_n)) < 0.05, -1, truth_n)
        result = compare(truth_n, truth_n, after_n, labels, AccuracyGate(max_loss_points=50, max_class_loss_points=5))
        failed += result.verdict == FAIL
    assert failed / runs <= 0.05


def test_the_result_is_the_same_after_it_was_kept_as_evidence() -> None:
    result = by_class((3, 2, 1), gained=(1, 0, 0))
    assert AccuracyResult.parse(result.plain(), source="test") == result
    assert "worst class cat" in str(result)
