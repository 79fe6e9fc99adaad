"""Drift detectors: bounds of a reference, the mean time between false alarms, state, and rows with faults."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.errors import DataError
from slipway.operations.watch.drift import Detectors, DriftState, DriftWatch
from slipway.operations.watch.reference import WatchReference
from slipway.operations.watch.rows import ClassDirections, Rows

MEAN_ROWS = 432_000


def rows(number, *, seed, shift=0.0, classes=5, foreign=0.0):
    rng = np.random.default_rng(seed)
    new = rng.random(number) < foreign
    return Rows(
        confidence=np.clip(rng.beta(30, 0.5, number) - 0.4 * new, 0, 1),
        distance=rng.gamma(4, 0.1, number) + 0.8 * new,
        norm=10 + rng.normal(size=number) - shift,
        class_id=rng.integers(0, classes, number),
    )


@pytest.fixture(scope="module")
def watch():
    return DriftWatch(WatchReference.of(rows(1000, seed=0)))


@pytest.fixture
def start(watch):
    return watch.start(rows_between_false_alarms=MEAN_ROWS)


def test_the_bounds_hold_for_new_rows(watch):
    happened = watch.reference.happened(rows(50_000, seed=1)).mean(axis=0)
    assert (happened <= [event.bound for event in watch.reference.events]).all()


def test_the_bounds_hold_for_nearly_every_reference():
    new, failed = rows(20_000, seed=2), 0
    for seed in range(40):
        reference = WatchReference.of(rows(200, seed=100 + seed))
        failed += bool(
            (reference.happened(new).mean(axis=0) > [event.bound + 0.003 for event in reference.events]).any()
        )
    assert failed <= 6


@given(st.floats(0.001, 0.999))
@settings(max_examples=30)
def test_a_bet_is_expected_to_lose_at_every_probability_under_its_bound(watch, share):
    """The expected factor at `share` of each bound."""
    for index, event in enumerate(watch.reference.events):
        bets = watch.bets.event == index
        p = share * event.bound
        factor = p * watch.bets.hit[bets] + (1 - p) * watch.bets.miss[bets]
        assert (factor <= 1 + 1e-9).all()


def test_unchanged_rows_are_silent_and_the_evidence_is_at_most_their_number(watch, start):
    state = watch.feed(start, rows(20_000, seed=3))
    assert state.alarm is None
    assert state.rows == 20_000
    assert 10**state.log10_evidence < 20_000


def test_the_evidence_is_at_most_the_number_of_rows_on_average():
    """E M_n <= n, which is what makes the mean time between false alarms."""
    found = []
    for seed in range(60):
        watch = DriftWatch(WatchReference.of(rows(400, seed=1000 + seed)))
        state = watch.feed(watch.start(rows_between_false_alarms=MEAN_ROWS), rows(500, seed=2000 + seed))
        found.append(10**state.log10_evidence)
    assert np.mean(found) < 500


@pytest.mark.parametrize(
    ("kind", "detectors", "within"),
    [({"shift": 2.0}, {"norm"}, 60), ({"foreign": 0.3}, {"confidence", "distance"}, 120)],
)
def test_an_alarm_names_the_detector_and_the_beginning(watch, start, kind, detectors, within):
    state = watch.feed(watch.feed(start, rows(1000, seed=4)), rows(1000, seed=5, **kind))
    alarm = state.alarm
    assert alarm is not None
    assert 1000 <= alarm.row < 1000 + within
    assert alarm.detector in detectors
    assert abs(alarm.since_row - 1000) <= 25
    assert alarm.event.startswith(alarm.detector)
    assert alarm.log10_evidence >= np.log10(MEAN_ROWS)


def test_classes_of_half_a_percent_each_are_silent_while_nothing_changes():
    watch = DriftWatch(WatchReference.of(rows(4000, seed=0, classes=200)))
    state = watch.feed(watch.start(rows_between_false_alarms=MEAN_ROWS), rows(12_000, seed=1, classes=200))
    assert state.alarm is None
    assert 10**state.log10_evidence < 12_000


def test_a_class_that_every_row_has_is_not_bet_on():
    watch = DriftWatch(WatchReference.of(rows(400, seed=0, classes=1)))
    assert {event.kind for event in watch.reference.events if event.detector == "class"} == {"is_not", "other"}
    state = watch.feed(watch.start(rows_between_false_alarms=MEAN_ROWS), rows(5000, seed=1, classes=1))
    assert state.alarm is None


def test_a_class_that_disappears_is_an_alarm(watch, start):
    gone = rows(3000, seed=6)
    state = watch.feed(start, gone.take(np.flatnonzero(gone.class_id != 2)))
    assert state.alarm is not None
    assert state.alarm.event == "class 2 is less frequent"


def test_class_ids_that_the_reference_lacks_are_an_alarm(watch, start):
    known = rows(200, seed=7)
    strange = Rows(known.confidence, known.distance, known.norm, np.where(np.arange(200) % 4, known.class_id, -1))
    state = watch.feed(start, strange)
    assert state.alarm is not None
    assert state.alarm.event == "a class that the reference does not have"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers_are_an_alarm_and_not_a_crash(watch, start, value):
    known = rows(300, seed=8)
    distance = np.where(np.arange(300) % 5, known.distance, value)
    state = watch.feed(start, Rows(known.confidence, distance, known.norm, known.class_id))
    assert state.alarm is not None
    assert state.alarm.detector == "unusable"


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 450), max_size=5))
def test_the_state_is_the_same_however_rows_are_cut(watch, cuts):
    stream = rows(450, seed=9, shift=0.4)
    start = watch.start(rows_between_false_alarms=100)
    whole, parts = watch.feed(start, stream), start
    edges = [0, *sorted(cuts), 450]
    for first, last in pairwise(edges):
        text = parts.to_json()
        parts = watch.feed(DriftState.parse(json.loads(text), source="a state"), stream.take(slice(first, last)))
    assert parts.rows == whole.rows
    assert parts.since == whole.since
    assert parts.alarm is not None
    assert whole.alarm is not None
    assert (parts.alarm.row, parts.alarm.since_row) == (whole.alarm.row, whole.alarm.since_row)
    assert (parts.detectors, parts.doublings) == (whole.detectors, whole.doublings)
    assert parts.log10_evidence == whole.log10_evidence


def test_many_streams_at_once_are_the_streams_one_by_one_to_the_last_bit(watch, start):
    """The study `watch` simulates streams together. Strong shifts make detectors that take powers of two out."""
    streams = [rows(300, seed=20 + place, shift=place) for place in range(6)]
    factors = np.stack([watch.factors(stream) for stream in streams], axis=1)
    together = Detectors(np.zeros(factors.shape[1:]), np.zeros(factors.shape[1:], np.int64))
    alarms = np.full(len(streams), -1)
    for row, of_row in enumerate(factors):
        together.take(of_row)
        alarms[(alarms < 0) & (together.mixture(watch.bets.weights) >= MEAN_ROWS)] = row
        if row % 7 == 6:
            together.settle()
    assert together.doublings.any()
    for place, stream in enumerate(streams):
        alone = watch.feed(start, stream)
        assert (alone.alarm.row if alone.alarm else -1) == alarms[place]
        assert np.array_equal(
            np.ldexp(alone.detectors, np.array(alone.doublings) - together.doublings[place]), together.values[place]
        )


def test_the_recursion_is_that_of_shiryaev_and_roberts(watch, start):
    stream = rows(230, seed=10, shift=1.0)
    happened = watch.reference.happened(stream)
    detectors = np.zeros(watch.bets.event.size)
    for row in happened:
        detectors = (detectors + 1) * np.where(row[watch.bets.event] > 0, watch.bets.hit, watch.bets.miss)
    assert watch.feed(start, stream).detectors == pytest.approx(detectors)


def test_no_rows_change_nothing_and_an_alarm_stays(watch, start):
    none = rows(10, seed=0).take(slice(0, 0))
    assert watch.feed(start, none) == start
    alarmed = watch.feed(start, rows(400, seed=11, shift=3.0))
    later = watch.feed(alarmed, rows(400, seed=12))
    assert later.alarm == alarmed.alarm
    assert later.alarm is not None


def test_evidence_that_grows_without_end_stays_a_number(watch, start):
    state = watch.feed(start, rows(20_000, seed=13, shift=8.0))
    assert state.log10_evidence > 1000
    assert DriftState.parse(json.loads(state.to_json()), source="a state") == state


def test_a_state_belongs_to_its_reference(start):
    other = DriftWatch(WatchReference.of(rows(500, seed=14)))
    with pytest.raises(DataError, match="start the watch again"):
        other.feed(start, rows(10, seed=0))


def test_a_reference_needs_rows_and_numbers():
    with pytest.raises(DataError, match="give at least 100"):
        WatchReference.of(rows(99, seed=0))
    bad = rows(200, seed=0)
    with pytest.raises(DataError, match="under 100 values that are numbers in norm"):
        WatchReference.of(Rows(bad.confidence, bad.distance, np.full(200, np.nan), bad.class_id))
    with pytest.raises(DataError, match="equal length"):
        Rows(bad.confidence, bad.distance, bad.norm[:3], bad.class_id)


def test_a_reference_is_stored_and_read_again_and_brightness_is_optional():
    known = rows(300, seed=15)
    bright = Rows(known.confidence, known.distance, known.norm, known.class_id, np.linspace(0, 1, 300))
    reference = WatchReference.of(bright)
    assert WatchReference.parse(json.loads(reference.to_json()), source="a reference") == reference
    with pytest.raises(DataError, match="rows without brightness"):
        reference.happened(known)


def test_equal_values_and_a_single_class_are_a_reference_too():
    same = Rows(np.ones(150), np.zeros(150), np.ones(150), np.zeros(150, dtype=np.int64))
    watch = DriftWatch(WatchReference.of(same))
    assert watch.feed(watch.start(rows_between_false_alarms=1000), same).alarm is None


def test_the_distance_is_one_minus_the_largest_cosine_seen_from_the_centre():
    means = ClassDirections.of(np.array([[1.0, 0], [0, 1], [2, 0], [0, 2]]), np.array([0, 1, 0, 1]))
    assert means.distance(np.array([[0.75, 0.75], [1.75, -0.25], [0.0, 0.0]])) == pytest.approx([1, 0, 1], abs=1e-9)
    with pytest.raises(DataError, match="0 embeddings"):
        ClassDirections.of(np.zeros((0, 2)), np.zeros(0, dtype=np.int64))
