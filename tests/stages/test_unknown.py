"""The score of `unknown`, its threshold and what it promises, against scikit-learn and cases worked out by hand."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import euclidean_distances

from slipway.contract import DataError, Decision, SpecError, Unknown
from slipway.contract.decision import Score
from slipway.contract.evidence.evaluation import ScoreFigures
from slipway.contract.spec import UnknownPolicy
from slipway.evaluation.unknown import (
    MEANS_SIZE,
    TILES,
    auroc,
    best_score,
    compare_scores,
    coverage_curve,
    evidence,
    fit_class_means,
    fit_threshold,
    foreign_network,
    noise,
    refit,
    score_of,
    shuffled,
)
from slipway.steps.postprocess import UNKNOWN, Postprocessor, decode_means, familiarity, nearness
from slipway.training.data.dataset import check_coverage

CLASSES, SIZE = 4, 16
Float = npt.NDArray[np.float32]
COVERAGE, PRECISION = UnknownPolicy(coverage=0.9), UnknownPolicy(precision=0.9)


def clusters(images: int, *, seed: int = 0) -> tuple[Float, Float, npt.NDArray[np.int64]]:
    """Logits, embeddings and truth of a network that separates its classes, not without mistakes."""
    rng = np.random.default_rng(seed)
    truth_n = np.arange(images) % CLASSES
    directions = np.random.default_rng(9).normal(size=(CLASSES, SIZE))
    embedding_nd = (directions[truth_n] + 0.5 * rng.normal(size=(images, SIZE))).astype(np.float32)
    return (embedding_nd @ directions.T.astype(np.float32) / 4), embedding_nd, truth_n


@given(st.integers(1, 60), st.integers(2, 6), st.integers(1, 30), st.integers(0, 10**6))
def test_the_class_means_are_kept_to_a_hundredth_of_the_largest_and_the_nearest_is_scikit_learn_s(
    images: int, classes: int, size: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    truth_n = np.concatenate([np.arange(classes), rng.integers(0, classes, images)])
    embedding_nd = rng.normal(size=(len(truth_n), size)).astype(np.float32)
    means = fit_class_means(embedding_nd, truth_n, classes=classes)
    assert means is not None
    assert means.size == classes * size
    means_cd = decode_means(means.model_dump(), classes=classes)
    expected = np.stack([embedding_nd[truth_n == class_id].mean(axis=0) for class_id in range(classes)])
    np.testing.assert_allclose(means_cd, expected, atol=np.abs(expected).max() / 100)
    distances_nc = euclidean_distances(embedding_nd.astype(np.float64), means_cd)
    np.testing.assert_allclose(nearness(embedding_nd, means_cd), -distances_nc, atol=1e-6)


def test_there_are_no_class_means_of_a_class_without_images_of_zeros_or_of_too_many_numbers() -> None:
    embedding_nd, truth_n = np.ones((3, 4), np.float32), np.array([0, 1, 1])
    assert fit_class_means(embedding_nd, truth_n, classes=2) is not None
    assert fit_class_means(embedding_nd, truth_n, classes=3) is None
    assert fit_class_means(0 * embedding_nd, truth_n, classes=2) is None
    wide = np.ones((2, MEANS_SIZE // 2 + 1), np.float32)
    assert fit_class_means(wide, np.array([0, 1]), classes=2) is None


@given(st.integers(2, 200), st.integers(0, 10**6), st.floats(0.5, 0.995))
def test_a_coverage_leaves_at_most_its_share_of_the_validation_images_unknown(
    images: int, seed: int, coverage: float
) -> None:
    score_n = np.random.default_rng(seed).normal(size=images)
    policy = UnknownPolicy(coverage=coverage)
    if (1 - coverage) * (images + 1) < 1 - 1e-6:
        with pytest.raises(DataError, match=rf"needs at least \d+ validation images, but there are {images}"):
            check_coverage(policy, images=images)
        return
    check_coverage(policy, images=images)
    threshold = fit_threshold(score_n, score_n > 0, policy)
    assert (score_n >= threshold).mean() >= coverage


def test_a_coverage_holds_for_new_images_on_average() -> None:
    rng = np.random.default_rng(0)
    policy, answered = UnknownPolicy(coverage=0.9), []
    for _ in range(400):
        score_n = rng.normal(size=40)
        threshold = fit_threshold(score_n, score_n > 0, policy)
        answered.append((rng.normal(size=500) >= threshold).mean())
    assert np.mean(answered) == pytest.approx(1 - 4 / 41, abs=0.007)  # the 4th of 40 parts 41 places of a new one


@given(st.integers(1, 400), st.integers(0, 10**6), st.floats(0.5, 0.99), st.booleans())
def test_a_precision_is_reached_by_what_is_answered_and_by_no_lower_threshold(
    images: int, seed: int, precision: float, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    score_n = rng.normal(size=images).round(1 if ties else 4)
    right_n = rng.random(images) < 1 / (1 + np.exp(-2 * score_n))
    policy = UnknownPolicy(precision=precision)
    reached = {value for value in score_n if right_n[score_n >= value].mean() >= precision}
    if not reached or precision ** (score_n >= min(reached)).sum() > 0.05:
        with pytest.raises(DataError, match="no threshold reaches it" if not reached else "proof takes"):
            fit_threshold(score_n, right_n, policy)
        return
    threshold = fit_threshold(score_n, right_n, policy)
    assert threshold == pytest.approx(min(reached), abs=1e-4)
    assert right_n[score_n >= threshold].mean() >= precision


@pytest.mark.parametrize("right", [True, False])
def test_all_right_answers_everything_and_all_wrong_is_an_error_that_says_what_to_change(right: bool) -> None:
    score_n, right_n = np.arange(29.0), np.full(29, right)
    if right:
        assert fit_threshold(score_n, right_n, PRECISION) == 0.0
    else:
        with pytest.raises(DataError, match=r"decision.unknown.precision: 0.9 given.*ask for less"):
            fit_threshold(score_n, right_n, PRECISION)


def test_a_coverage_that_the_validation_split_cannot_show_says_how_many_images_it_takes() -> None:
    check_coverage(None, images=1)
    check_coverage(UnknownPolicy(coverage=0.98), images=49)
    with pytest.raises(DataError, match=r"coverage: 0.98 needs at least 49 validation images, but there are 48"):
        check_coverage(UnknownPolicy(coverage=0.98), images=48)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_the_auroc_is_how_often_a_known_image_scores_higher(known: list[int], other: list[int]) -> None:
    higher = [(a > b) + (a == b) / 2 for a in known for b in other]
    assert auroc(np.array(known, float), np.array(other, float)) == pytest.approx(np.mean(higher))
    assert auroc(np.array(known, float), np.array([])) is None
    assert auroc(np.array(known, float), np.array([np.nan, -np.inf])) == 1.0


def compared(seed: int = 0) -> dict[Score, ScoreFigures]:
    logits_nc, embedding_nd, truth_n = clusters(200, seed=seed)
    means = fit_class_means(embedding_nd, truth_n, classes=CLASSES)
    far_nd = (30 + np.random.default_rng(seed).normal(size=(200, SIZE))).astype(np.float32)
    far = evidence(100 * np.eye(CLASSES, dtype=np.float32)[truth_n], far_nd, temperature=1.0, means=means)
    known = evidence(logits_nc, embedding_nd, temperature=1.0, means=means)
    return compare_scores(known, truth_n, {"noise": far})


def test_a_score_that_is_sure_of_noise_loses_to_the_distance_though_left_out_classes_do_not_show_it() -> None:
    found = compared()
    assert found["max_probability"].foreign_auroc["noise"] < 0.1
    assert found["embedding"].foreign_auroc["noise"] == 1.0
    assert min(score.foreign_auroc["left_out"] for score in found.values()) > 0.8
    assert best_score(found) == "embedding"


def test_of_scores_that_are_equal_to_three_decimals_the_simplest_wins() -> None:
    def of(value: float) -> ScoreFigures:
        return ScoreFigures(foreign_auroc={"noise": value}, wrong_auroc=None, aurc=0.0)

    same: dict[Score, ScoreFigures] = {"embedding": of(0.9904), "energy": of(0.9901)}
    assert best_score(same | {"max_probability": of(0.9896)}) == "max_probability"
    assert best_score(same) == "energy"


def test_leaving_a_class_out_is_scoring_the_logits_without_it() -> None:
    logits_nc, embedding_nd, truth_n = clusters(60)
    means = fit_class_means(embedding_nd, truth_n, classes=CLASSES)
    found = compare_scores(evidence(logits_nc, embedding_nd, temperature=2.0, means=means), truth_n, {})
    rest = np.stack([np.delete(row, truth) for row, truth in zip(logits_nc, truth_n, strict=True)]).astype(np.float64)
    for score in ("max_probability", "energy"):
        known_n, left_out_n = familiarity(score, logits_nc / 2.0), familiarity(score, rest / 2.0)
        expected = roc_auc_score([1] * 60 + [0] * 60, np.concatenate([known_n, left_out_n]))
        assert found[score].foreign_auroc["left_out"] == pytest.approx(expected, abs=1e-3)


def test_one_class_one_image_and_no_mistakes_leave_open_what_they_cannot_tell() -> None:
    one = evidence(np.ones((3, 1), np.float32), np.ones((3, 2), np.float32), temperature=1.0, means=None)
    found = compare_scores(one, np.zeros(3, np.int64), {})
    assert found["energy"] == ScoreFigures(foreign_auroc={}, wrong_auroc=None, aurc=0.0)
    assert best_score(found) == "max_probability"
    assert coverage_curve(np.array([0.5]), np.array([False])) == [(1.0, 0.0)]


@given(st.integers(1, 300), st.integers(0, 10**6))
def test_the_coverage_curve_ends_in_the_accuracy_of_all_images(images: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    right_n = rng.random(images) < 0.8
    curve = coverage_curve(rng.normal(size=images), right_n)
    assert curve[-1] == (1.0, pytest.approx(right_n.mean()))
    assert len(curve) == min(images, 50)
    assert [share for share, _ in curve] == sorted({share for share, _ in curve})


@pytest.mark.parametrize("score", ["max_probability", "energy", "embedding"])
@pytest.mark.parametrize("policy", [COVERAGE, PRECISION])
def test_what_is_fitted_is_what_the_step_answers(score: str, policy: UnknownPolicy) -> None:
    logits_nc, embedding_nd, truth_n = clusters(100)
    means = fit_class_means(embedding_nd, truth_n, classes=CLASSES) if score == "embedding" else None
    unknown = Unknown.model_validate({"score": score, "threshold": 0.0, "class_means": means})
    start = Decision(task="multiclass", top_k=2, temperature=0.7, unknown=unknown)
    decision = refit(start, policy, logits_nc=logits_nc, embedding_nd=embedding_nd, truth_n=truth_n)
    assert refit(start, None, logits_nc=logits_nc, embedding_nd=embedding_nd, truth_n=truth_n) is start
    step = Postprocessor(decision.model_dump(mode="json"), list("abcd"))
    answers = step.run(logits_nc, np.zeros(100, np.int32), embedding_nd)
    is_unknown_n = answers.label_nk[:, 0] == UNKNOWN
    assert decision.unknown is not None
    scores_n = score_of(decision, logits_nc, embedding_nd)
    np.testing.assert_array_equal(is_unknown_n, ~(scores_n >= decision.unknown.threshold))
    if policy is COVERAGE:
        assert 0 < is_unknown_n.mean() <= 0.1
    else:
        assert (logits_nc.argmax(axis=1) == truth_n)[~is_unknown_n].mean() >= 0.9
    assert step.needs_embedding == decision.needs_embedding == (score == "embedding")


def test_an_embedding_that_is_not_finite_or_far_away_is_unknown_and_its_neighbours_are_not() -> None:
    logits_nc, embedding_nd, truth_n = clusters(8)
    means = fit_class_means(embedding_nd, truth_n, classes=CLASSES)
    unknown = {"score": "embedding", "threshold": -100.0, "class_means": means and means.model_dump()}
    step = Postprocessor({"task": "multiclass", "top_k": 1, "temperature": 1.0, "unknown": unknown}, list("abcd"))
    embedding_nd[2], embedding_nd[5] = np.nan, 1e30
    with np.errstate(all="ignore"):
        answers = step.run(logits_nc, np.zeros(8, np.int32), embedding_nd)
    assert np.flatnonzero(answers.label_nk[:, 0] == UNKNOWN).tolist() == [2, 5]
    with pytest.raises(ValueError, match="map embedding_nd"):
        step.run(logits_nc, np.zeros(8, np.int32))


@pytest.mark.parametrize(
    ("unknown", "says"),
    [
        ({"score": "embedding", "threshold": -1.0}, "class_means belong to score: embedding"),
        ({"threshold": 0.5, "class_means": {"int8": "AAAA", "step": 1.0}}, "class_means belong to score: embedding"),
        ({"score": "embedding", "threshold": 0, "class_means": {"int8": "?", "step": 1.0}}, "class_means.int8|base64"),
        ({"score": "embedding", "threshold": 0, "class_means": {"int8": "AAAA", "step": 0.0}}, "greater than 0"),
        ({"score": "energy", "threshold": float("nan")}, "finite number"),
        ({"threshold": 1.5}, "between 0 and 1; given 1.5"),
    ],
)
def test_a_decision_whose_unknown_contradicts_itself_is_refused(unknown: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Decision.parse({"task": "multiclass", "top_k": 1, "unknown": unknown}, source="decision.json")


def test_the_energy_of_logits_as_large_as_float32_holds_is_familiar() -> None:
    unknown = {"score": "energy", "threshold": 100.0, "class_means": None}
    step = Postprocessor({"task": "multiclass", "top_k": 1, "temperature": 0.05, "unknown": unknown}, list("ab"))
    largest = np.finfo(np.float32).max
    answers = step.run(np.array([[largest, 0], [0, 0]], np.float32), np.zeros(2, np.int32))
    assert answers.label_nk[:, 0].tolist() == [b"a", UNKNOWN]


@given(st.integers(1, 3), st.integers(8, 21), st.integers(8, 21), st.integers(0, 10**6))
def test_shuffled_tiles_are_the_same_pixels_elsewhere(images: int, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels_nchw = rng.permutation(images * 3 * height * width).reshape(images, 3, height, width).astype(np.float32)
    out = shuffled(pixels_nchw, rng)
    for image in range(images):
        np.testing.assert_array_equal(np.sort(out[image].ravel()), np.sort(pixels_nchw[image].ravel()))
    rows, columns = height // TILES * TILES, width // TILES * TILES
    np.testing.assert_array_equal(out[:, :, rows:], pixels_nchw[:, :, rows:])
    np.testing.assert_array_equal(out[:, :, :, columns:], pixels_nchw[:, :, :, columns:])


def test_stand_ins_are_seeded_and_noise_keeps_within_each_channel() -> None:
    rng = np.random.default_rng(0)
    pixels_nchw = rng.normal(size=(2, 3, 8, 8)).astype(np.float32) * np.array([1, 2, 3], np.float32)[:, None, None]
    out = noise(pixels_nchw, rng)
    assert out.dtype == np.float32
    assert (out.min(axis=(0, 2, 3)) >= pixels_nchw.min(axis=(0, 2, 3)) - 1e-6).all()
    assert (out.max(axis=(0, 2, 3)) <= pixels_nchw.max(axis=(0, 2, 3)) + 1e-6).all()

    def echo(pixels: Float) -> tuple[Float, Float]:
        return pixels[:, 0, 0], pixels[:, 1, 0]

    first, again = (foreign_network(echo, "noise")(pixels_nchw)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, foreign_network(echo, "noise", seed=1)(pixels_nchw)[0])
