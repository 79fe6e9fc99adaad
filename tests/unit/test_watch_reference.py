"""The test split's reference: class means that contain no test image, columns that are missing, and its file."""

from pathlib import Path

import numpy as np
import pytest

from slipway.errors import SpecError
from slipway.operations.watch.accuracy import Estimate
from slipway.operations.watch.drift import DriftWatch
from slipway.operations.watch.labelled import is_lower
from slipway.operations.watch.live import gap_of
from slipway.operations.watch.rows import ClassDirections, Floats, Ints, Rows, rows_of
from slipway.operations.watch.test_split import drift_reference, folder_of, read_reference
from tests.support.watch_rows import made_reference

CLASSES, SIZE = 10, 256
Split = tuple[Ints, Floats]


def drawn(rng: np.random.Generator, count: int, means: Floats) -> Split:
    class_id = rng.integers(0, CLASSES, count)
    return class_id, means[class_id] + rng.normal(0, 1, (count, SIZE))


def rows(split: Split, means: ClassDirections, *, brightness: float = 0.5) -> Rows:
    class_id, embedding = split
    count = class_id.size
    return rows_of(np.full(count, 0.9), class_id, np.full(count, brightness), embedding, means)


def test_means_of_the_test_split_itself_would_alarm_at_unchanged_rows_and_others_do_not() -> None:
    alarms = {"validation": 0, "test": 0}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        centres = rng.normal(0, 0.2, (CLASSES, SIZE))
        splits = {"validation": drawn(rng, 400, centres), "test": drawn(rng, 400, centres)}
        live = drawn(rng, 1000, centres)
        for name, (class_id, embedding) in splits.items():
            means = ClassDirections.of(embedding, class_id)
            reference = drift_reference(rows(splits["test"], means), has_embedding=True)
            assert reference is not None
            watch = DriftWatch(reference)
            state = watch.feed(watch.start(rows_between_false_alarms=432_000), rows(live, means))
            alarms[name] += state.alarm is not None
    assert alarms == {"validation": 0, "test": 5}


def test_brightness_is_left_out_where_many_rows_have_none_and_few_without_one_are_usual() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (CLASSES, SIZE))
    split = drawn(rng, 400, centres)
    means = ClassDirections.of(split[1], split[0])
    for missing, watched in ((4, True), (40, False)):
        found = rows(split, means)
        assert found.brightness is not None
        found.brightness[:missing] = np.nan
        reference = drift_reference(found, has_embedding=True)
        assert reference is not None
        assert any(event.detector == "brightness" for event in reference.events) is watched
        assert reference.rows == 400
    assert drift_reference(found.take(slice(0, 99)), has_embedding=True) is None


def test_images_without_a_brightness_in_the_reference_and_live_alike_are_no_change() -> None:
    """0.8 % of the images cannot be measured, and their class is no other image's."""

    def some(rng: np.random.Generator, count: int) -> Rows:
        unmeasured = rng.random(count) < 0.008
        class_id = np.where(unmeasured, 3, rng.integers(0, 3, count))
        brightness = np.where(unmeasured, np.nan, rng.beta(20, 20, count))
        return rows_of(rng.beta(30, 1, count), class_id, brightness, None, None)

    for seed in range(3):
        rng = np.random.default_rng(seed)
        reference = drift_reference(some(rng, 3000), has_embedding=False)
        assert reference is not None
        watch = DriftWatch(reference)
        state = watch.feed(watch.start(rows_between_false_alarms=432_000), some(rng, 8000))
        assert state.alarm is None
        more = some(rng, 2000)
        assert more.brightness is not None
        more.brightness[::10] = np.nan
        alarm = watch.feed(state, more).alarm
        assert alarm is not None
        assert alarm.detector == "unusable"


def test_the_file_is_read_as_it_was_written_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "watch").mkdir()
    made = made_reference(tmp_path)
    found = read_reference(tmp_path, "digits")
    assert found == made
    assert found.means is not None
    assert made.means is not None
    assert found.means.arrays.directions.shape == (3, 3)
    assert read_reference(tmp_path, "cats") is None
    (folder_of(tmp_path, "digits") / "reference.json").write_text('{"classifier": 3}')
    with pytest.raises(SpecError, match=r"reference.json.*(.|\n)*slipway watch reference writes it again"):
        read_reference(tmp_path, "digits")
    with pytest.raises(SpecError, match=r"classifier '\.\./x'"):
        folder_of(tmp_path, "../x")


@pytest.mark.parametrize(
    "changes",
    [{"images": {}}, {"images": {0: 2**70, 1: 1, 2: 1}}, {"accuracy": -1e308}, {"recall": {0: 1.5}, "images": {0: 1}}],
)
def test_figures_that_no_test_split_has_are_a_damaged_file(tmp_path: Path, changes: dict[str, object]) -> None:
    (tmp_path / "watch").mkdir()
    made = made_reference(tmp_path)
    (folder_of(tmp_path, "digits") / "reference.json").write_text(made.model_copy(update=changes).to_json())
    with pytest.raises(SpecError, match=r"reference.json.*(.|\n)*slipway watch reference writes it again"):
        read_reference(tmp_path, "digits")


def test_an_accuracy_is_shown_to_be_lower_than_what_the_test_split_shows_and_no_sooner(tmp_path: Path) -> None:
    (tmp_path / "watch").mkdir()
    estimate = Estimate(value=0.9, low=0.85, high=0.93, labels=200)
    assert not is_lower(estimate, made_reference(tmp_path, rows=60), points=2)
    assert is_lower(estimate, made_reference(tmp_path, rows=6000), points=2)


def test_the_gap_is_0_of_equal_rows_and_1_of_disjoint_ones(tmp_path: Path) -> None:
    (tmp_path / "watch").mkdir()
    made = made_reference(tmp_path)
    brightness = np.array(made.measures["brightness"])
    count = brightness.size
    same = Rows(np.full(count, 2.0), np.full(count, 9.0), np.full(count, 99.0), np.zeros(count, np.int64), brightness)
    gaps = {one.measure: one.distance for one in gap_of(made, same)}
    assert gaps["brightness"] == 0
    assert (gaps["confidence"], gaps["distance"], gaps["norm"]) == (1, 1, 1)
    assert gaps["class"] == pytest.approx(1 - made.predicted[0] / 600)
