"""Accuracy from few labels, and how the labels are chosen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.studies.watch.accuracy import STREAMS, Stream, estimated
from slipway.errors import DataError, SpecError
from slipway.operations.labels.select import SelectSettings, probabilities, select, systematic
from slipway.operations.watch.accuracy import (
    LabelledAnswers,
    LiveAccuracy,
    RecallReference,
    Weighed,
    accuracy_of,
    is_lower,
    korn_graubard,
    least,
)
from slipway.operations.watch.rows import Rows

REFERENCE = RecallReference(recall={0: 0.95, 1: 0.95}, images={0: 1000, 1: 1000})


def rows(number, *, seed=0):
    rng = np.random.default_rng(seed)
    return Rows(rng.beta(9, 1, number), rng.gamma(4, 1, number), np.ones(number), rng.integers(0, 2, number))


def answers(correct, *, labelled=None, probability=1.0, confidence=0.9):
    """Rows of class 0 and 1 by turns, predicted rightly where `correct`."""
    truth = np.arange(len(correct)) % 2
    return LabelledAnswers(
        confidence=np.full(len(correct), confidence),
        class_id=np.where(correct, truth, 1 - truth),
        probability=np.full(len(correct), probability),
        labelled=np.ones(len(correct), dtype=bool) if labelled is None else labelled,
        truth=truth,
    )


def test_with_every_label_the_estimate_is_the_accuracy():
    found = accuracy_of(answers(np.arange(1000) % 10 > 0), reference=REFERENCE)
    assert found.overall.value == pytest.approx(0.9)
    assert found.overall.low < 0.9 < found.overall.high
    assert found.labels == 1000


def test_without_a_label_confidence_is_shown_and_no_accuracy():
    found = accuracy_of(answers(np.ones(50, dtype=bool), labelled=np.zeros(50, dtype=bool)), reference=REFERENCE)
    assert found.overall is None
    assert found.mean_confidence == pytest.approx(0.9)
    assert [(each.class_id, each.recall, each.alarm) for each in found.classes] == [(0, None, False), (1, None, False)]


def test_zero_rows_are_no_estimate():
    found = accuracy_of(answers(np.zeros(0, dtype=bool)), reference=REFERENCE)
    assert (found.rows, found.overall, found.mean_confidence) == (0, None, None)


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong_still_has_an_interval(right):
    found = accuracy_of(answers(np.full(30, right)), reference=REFERENCE)
    assert found.overall.value == pytest.approx(float(right))
    assert 0.05 < found.overall.high - found.overall.low < 0.3
    assert any(each.alarm for each in found.classes) is not right


def test_a_lost_recall_is_told_from_few_labels_and_an_unlucky_test_split_is_not():
    """8 of 13 labels are right where 992 of 1,000 test images were; 200 and 20 test images say less of what was."""
    few = Weighed(value=8 / 13, effective=13)
    lost = [is_lower(few, share=0.99, images=images, drop=0.02, error=0.005) for images in (1000, 200, 20)]
    assert lost == [True, True, False]
    assert not is_lower(Weighed(0.975, 200.0), share=0.99, images=1000, drop=0.02, error=0.005)
    assert not is_lower(Weighed(1.0, 1.0), share=1.0, images=1, drop=0.0, error=0.005)
    assert not is_lower(Weighed(0.0, 1.0), share=0.99, images=1000, drop=0.02, error=0.005)


def test_a_recall_that_is_lower_by_no_more_than_allowed_raises_few_alarms():
    """Test split and labels both have their chance, and 5 % are allowed."""
    rng = np.random.default_rng(0)
    for recall, images, labels in ((0.97, 1000, 60), (0.9, 200, 40), (0.8, 50, 200)):
        share = rng.binomial(images, recall, 1000) / images
        right = rng.binomial(labels, recall - 0.02, 1000) / labels
        wrong = [
            is_lower(Weighed(live, float(labels)), share=one, images=images, drop=0.02, error=0.05)
            for one, live in zip(share.tolist(), right.tolist(), strict=True)
        ]
        assert np.mean(wrong) <= 0.05


def test_one_label_says_little():
    found = accuracy_of(answers(np.ones(1, dtype=bool)), reference=REFERENCE)
    assert found.overall.high - found.overall.low > 0.7
    assert not any(each.alarm for each in found.classes)


def test_a_class_that_the_reference_lacks_is_listed_without_an_alarm():
    told = answers(np.ones(40, dtype=bool))
    strange = LabelledAnswers(
        told.confidence, told.class_id, told.probability, told.labelled, np.where(told.truth == 1, 7, 0)
    )
    found = {each.class_id: each for each in accuracy_of(strange, reference=REFERENCE).classes}
    assert found[7].recall.value == 0
    assert not found[7].known
    assert not found[7].alarm
    assert found[1].recall is None  # no label says class 1 any more
    assert found[1].precision.value == pytest.approx(0)


def test_unknown_is_never_right_and_no_class_of_its_own():
    told = answers(np.ones(40, dtype=bool))
    unsure = LabelledAnswers(told.confidence, np.full(40, -1), told.probability, told.labelled, told.truth)
    found = accuracy_of(unsure, reference=REFERENCE)
    assert found.overall.value == pytest.approx(0)
    assert [each.class_id for each in found.classes] == [0, 1]


def test_a_confidence_that_is_not_a_number_spoils_nothing():
    told = answers(np.arange(200) % 10 > 0)
    broken = LabelledAnswers(
        np.where(np.arange(200) % 3, told.confidence, np.nan),
        told.class_id,
        told.probability,
        told.labelled,
        told.truth,
    )
    assert accuracy_of(broken, reference=REFERENCE).overall.value == pytest.approx(0.9)


@pytest.mark.parametrize("probability", [0.0, -0.1, 1.1, np.nan])
def test_a_probability_that_is_none_is_refused(probability):
    with pytest.raises(DataError, match="over 0 and at most 1"):
        answers(np.ones(3, dtype=bool), probability=probability)


def test_an_accuracy_is_stored_and_read_again():
    found = accuracy_of(answers(np.arange(100) % 7 > 0), reference=REFERENCE)
    assert LiveAccuracy.parse(found.plain(), source="an accuracy") == found


@given(st.floats(0, 1), st.floats(0, 0.05), st.integers(1, 300))
def test_an_interval_holds_its_estimate(value, variance, labels):
    low, high = korn_graubard(value, variance, labels=labels, most=2.0 * labels)
    assert 0 <= low <= value + 1e-9
    assert value - 1e-9 <= high <= 1


@pytest.mark.parametrize("right", [1, 10, 19])
def test_beyond_a_bound_lies_a_fortieth_where_the_number_itself_counts_half(right):
    from scipy.stats import binom  # half a second to import

    low, high = korn_graubard(right / 20, 0.0, labels=20, most=20.0)
    assert binom.sf(right, 20, low) + binom.pmf(right, 20, low) / 2 == pytest.approx(0.025)
    assert binom.cdf(right - 1, 20, high) + binom.pmf(right, 20, high) / 2 == pytest.approx(0.025)
    assert korn_graubard(1.0, 0.0, labels=20, most=20.0) == (pytest.approx(0.05 ** (1 / 20)), 1.0)


@settings(max_examples=40, deadline=None)
@given(number=st.integers(1, 400), labels=st.integers(0, 400), explore=st.floats(0.05, 1), seed=st.integers(0, 5))
def test_probabilities_add_up_and_have_a_floor(number, labels, explore, seed):
    chosen = SelectSettings(explore=explore, novelty=(1 - explore) / 2)
    found = probabilities(rows(number, seed=seed), labels=labels, settings=chosen)
    assert found.sum() == pytest.approx(min(labels, number))
    assert (found <= 1 + 1e-12).all()
    if labels:
        assert (found >= explore * min(labels, number) / number - 1e-9).all()
    assert systematic(found, seed=seed).sum() == min(labels, number)


def test_rows_are_chosen_with_exactly_their_probabilities():
    asked = probabilities(rows(40), labels=10, settings=SelectSettings())
    shares = np.mean([systematic(asked, seed=seed) for seed in range(20_000)], axis=0)
    assert np.abs(shares - asked).max() < 4 * 0.5 / np.sqrt(20_000)


def test_doubtful_and_strange_rows_are_chosen_first_and_faults_count_as_both():
    usual = rows(500)
    confidence, distance = usual.confidence.copy(), usual.distance.copy()
    confidence[:] = 0.999
    confidence[0], distance[1], confidence[2], distance[3] = 0.5, 99.0, np.nan, np.nan
    told = Rows(confidence, distance, usual.norm, usual.class_id)
    found = probabilities(told, labels=20, settings=SelectSettings())
    assert (found[[0, 1, 2, 3]] > np.median(found)).all()
    assert np.isfinite(found).all()


def test_choosing_is_repeatable_and_takes_all_where_there_are_few():
    found = [select(rows(100), labels=10, settings=SelectSettings(), seed=3).chosen for _ in range(2)]
    assert (found[0] == found[1]).all()
    assert select(rows(5), labels=10, settings=SelectSettings(), seed=0).chosen.all()
    assert not select(rows(5), labels=0, settings=SelectSettings(), seed=0).chosen.any()
    with pytest.raises(DataError, match="give 0 or more"):
        select(rows(5), labels=-1, settings=SelectSettings(), seed=0)
    with pytest.raises(SpecError, match="at most 1"):
        SelectSettings.parse({"explore": 0.8, "novelty": 0.5}, source="fleet.yaml")


@pytest.mark.parametrize("stream", [STREAMS[0], STREAMS[2], STREAMS[3]], ids=lambda stream: stream.name)
def test_the_interval_of_a_precision_covers(stream):
    """The rows with one answer have a tenth of the labels. Each class is as good as all."""
    rng, none, covered = np.random.default_rng(7), RecallReference(recall={}, images={}), []
    for run in range(60):
        precisions = [one.precision for one in accuracy_of(stream.answers(rng, run)[0], reference=none).classes]
        covered += [one.low <= stream.true_accuracy() <= one.high for one in precisions if one is not None]
    assert np.mean(covered) >= 0.93


@pytest.mark.parametrize("stream", [STREAMS[0], STREAMS[3]], ids=lambda stream: stream.name)
def test_the_interval_covers_and_is_narrow(stream):
    found = estimated(stream, runs=60, seed=7)
    assert found.met
    assert found.alarms <= 0.05


def test_a_fixed_number_of_labels_makes_the_interval_of_sure_and_wrong_answers_narrower():
    """Were each row chosen by itself, the variance would make it 4.4 points."""
    found = estimated(STREAMS[5], runs=60, seed=7)
    assert found.covered >= 0.93
    assert found.half_width < 0.041


@pytest.mark.parametrize("times", [100, pytest.param(400, marks=pytest.mark.nightly)])
def test_a_small_test_split_gives_no_more_false_alarms_than_stated(times):
    """Every recall is 0.9, before and after: 200 test images of ten classes, and 200 labels."""
    rng, alarms, classes = np.random.default_rng(0), 0, 10
    confidence, every = np.full(200, 0.9), np.ones(200, dtype=bool)
    for _ in range(times):
        tested = rng.integers(0, classes, 200)
        right = rng.random(200) < 0.9
        images = {one: int((tested == one).sum()) for one in range(classes)}
        reference = RecallReference(
            recall={one: float(right[tested == one].mean()) for one in range(classes)}, images=images
        )
        truth = rng.integers(0, classes, 200)
        class_id = np.where(rng.random(200) < 0.9, truth, (truth + 1) % classes)
        found = accuracy_of(LabelledAnswers(confidence, class_id, np.ones(200), every, truth), reference=reference)
        alarms += any(each.alarm for each in found.classes)
    assert alarms <= 0.05 * times


def test_a_bound_of_the_test_split_holds_and_is_near_for_many_images():
    assert least(0.9, images=20, error=0.025) == pytest.approx(0.683, abs=0.001)
    assert least(0.9, images=100_000, error=0.025) == pytest.approx(0.898, abs=0.001)
    assert (least(0.0, images=20, error=0.025), least(1.0, images=1, error=0.025)) == (0, pytest.approx(0.025))


def test_a_lost_recall_is_an_alarm():
    assert estimated(Stream("lost", labels=400, lost_class=True), runs=20, seed=7).alarms >= 0.8
