"""Many labels an image: thresholds, figures against scikit-learn, the gate, and the page."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from slipway.contract import Bundle, DataError, Decision, Manifest, Spec, bundle_id
from slipway.contract.bundle import CalibrationList
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.evidence.evaluation import PrimaryMetrics, read_bundle_evaluation
from slipway.contract.evidence.gate import FAIL, PASS, TOO_FEW
from slipway.contract.spec import AccuracyGate, DecisionPolicy, ThresholdPolicy
from slipway.engines.predictions_csv import flips, gate_rows, make_rows
from slipway.evaluation.bundle import evaluate_label_bundle
from slipway.evaluation.fit_decision import answer, fit_labels, fit_thresholds, refit_decision
from slipway.evaluation.fit_decision import given as given_by
from slipway.evaluation.gate import compare_labels
from slipway.evaluation.labels import evaluate_labels, label_reliability, weighted_average_precision
from slipway.evaluation.metrics import evaluate
from slipway.evaluation.predict import Predictions
from slipway.report.evaluation import render
from tests.support.report_builds import LABELS, Page, make_bundle

Float = npt.NDArray[np.float32]
Table = npt.NDArray[np.bool_]


def sample(images: int, classes: int, *, seed: int) -> tuple[Float, Table]:
    """Probabilities in steps, so that some are equal, and labels that they tell something about."""
    rng = np.random.default_rng(seed)
    probability_nc = (rng.integers(0, 21, (images, classes)) / 20).astype(np.float32)
    return probability_nc, rng.random((images, classes)) < 0.2 + 0.6 * probability_nc


def f1(probability_n: Float, truth_n: Table, threshold: float) -> float:
    given_n = probability_n >= np.float32(threshold)
    return float(2 * (given_n & truth_n).sum() / max(given_n.sum() + truth_n.sum(), 1))


@given(st.integers(2, 40), st.integers(0, 10**6))
@settings(max_examples=50)
def test_no_threshold_has_a_higher_f1_than_the_one_that_is_fitted(images: int, seed: int) -> None:
    probability_nc, truth_nc = sample(images, 1, seed=seed)
    truth_nc[0] = True
    (threshold,) = fit_thresholds(probability_nc, truth_nc, None, labels=("a",))
    best = max(f1(probability_nc[:, 0], truth_nc[:, 0], other) for other in np.linspace(0, 1, 201))
    assert f1(probability_nc[:, 0], truth_nc[:, 0], threshold) >= best - 1e-9


def test_a_threshold_lies_in_the_middle_and_nothing_seen_is_a_half() -> None:
    probability_nc = np.array([[0.1, 0.3], [0.2, 0.3], [0.8, 0.4], [0.9, 0.2]], np.float32)
    truth_nc = np.array([[0, 0], [0, 0], [1, 0], [1, 0]], np.bool_)
    assert fit_thresholds(probability_nc, truth_nc, None, labels=("a", "b")) == (0.5, 0.5)


@pytest.mark.parametrize("aim", [0.5, 0.8, 0.95])
def test_an_asked_for_recall_or_precision_is_reached_on_these_images(aim: float) -> None:
    rng = np.random.default_rng(0)
    truth_nc = rng.random((300, 2)) < 0.3
    probability_nc = (0.25 + 0.4 * truth_nc + 0.15 * rng.normal(size=truth_nc.shape)).clip(0, 1).astype(np.float32)
    recall = fit_thresholds(probability_nc, truth_nc, ThresholdPolicy(recall=aim), labels=("a", "b"))
    precision = fit_thresholds(probability_nc, truth_nc, ThresholdPolicy(precision=aim), labels=("a", "b"))
    for i in range(2):
        given_n = probability_nc[:, i] >= np.float32(recall[i])
        assert metrics.recall_score(truth_nc[:, i], given_n) >= aim
        given_n = probability_nc[:, i] >= np.float32(precision[i])
        assert metrics.precision_score(truth_nc[:, i], given_n) >= aim
    assert fit_thresholds(probability_nc, truth_nc, ThresholdPolicy(fixed=0.3), labels=("a", "b")) == (0.3, 0.3)


def test_a_precision_that_no_threshold_reaches_is_an_error_with_what_is_reached() -> None:
    probability_nc, truth_nc = np.array([[0.9], [0.5]], np.float32), np.array([[False], [True]])
    with pytest.raises(DataError, match=r"0\.9 given, but 'a' reaches at most 0\.500 on its 1 validation images"):
        fit_thresholds(probability_nc, truth_nc, ThresholdPolicy(precision=0.9), labels=("a",))


@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 10**6))
@settings(max_examples=15)
def test_every_number_of_an_evaluation_is_scikit_learn_s(images: int, classes: int, seed: int) -> None:
    probability_nc, truth_nc = sample(images, classes, seed=seed)
    given_nc = probability_nc >= 0.5
    if not truth_nc.any():
        with pytest.raises(DataError, match=f"none of {images} test images has a label"):
            evaluate_labels(probability_nc, given_nc, truth_nc, [f"l{i}" for i in range(classes)])
        return
    found = evaluate_labels(probability_nc, given_nc, truth_nc, [f"l{i}" for i in range(classes)])
    for average in ("macro", "micro"):
        expected = metrics.precision_recall_fscore_support(truth_nc, given_nc, average=average, zero_division=0)[:3]
        if classes > 1 or average == "macro":
            assert [getattr(getattr(found, average), name) for name in ("precision", "recall", "f1")] == pytest.approx(
                expected
            ) or classes == 1
    assert found.exact_match == pytest.approx((truth_nc == given_nc).all(axis=1).mean())
    for i, row in enumerate(found.per_class.values()):
        if truth_nc[:, i].any():
            assert row.ap == pytest.approx(metrics.average_precision_score(truth_nc[:, i], probability_nc[:, i]))
            assert row.ap_interval is not None
            assert row.ap_interval[0] <= row.ap_interval[1]
        else:
            assert row.ap is None
            assert row.ap_interval is None


@given(st.integers(1, 30), st.integers(0, 10**6))
def test_a_resample_s_average_precision_is_that_of_the_repeated_images(images: int, seed: int) -> None:
    probability_nc, truth_nc = sample(images, 1, seed=seed)
    times_n = np.random.default_rng(seed).integers(0, 4, images)
    (found,) = weighted_average_precision(probability_nc[:, 0], truth_nc[:, 0], times_n[None])
    truth_n, probability_n = (np.repeat(values, times_n) for values in (truth_nc[:, 0], probability_nc[:, 0]))
    expected = metrics.average_precision_score(truth_n, probability_n) if truth_n.any() else 0.0
    assert found == pytest.approx(expected)


def test_probabilities_that_mean_what_they_say_have_a_small_calibration_error() -> None:
    rng = np.random.default_rng(0)
    probability_nc = rng.random((3000, 4)).astype(np.float32)
    truth_nc = rng.random((3000, 4)) < probability_nc
    honest = label_reliability(probability_nc, truth_nc)
    sure = label_reliability((probability_nc > 0.5).astype(np.float32), truth_nc)
    assert honest.ece < 0.02
    assert sure.ece == pytest.approx(0.25, abs=0.02)
    assert honest.ece_interval[0] <= honest.ece_interval[1]
    assert sum(item.images for item in honest.bins) == 12_000


def test_ten_thousand_classes_are_evaluated_without_a_matrix() -> None:
    rng = np.random.default_rng(0)
    probability_nc = rng.random((200, 10_000), np.float32)
    found = evaluate(probability_nc, np.arange(200), [str(i) for i in range(10_000)])
    assert len(found.confusion) == 200
    assert sum(count for _, _, count in found.confusion) == 200


def predictions(images: int = 400, *, noise: float = 1.0, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    truth_nc = rng.random((images, 3)) < 0.4
    logits_nc = (4 * truth_nc - 3 + noise * np.random.default_rng(9).normal(size=(images, 3))).astype(np.float32)
    listed = [
        LabelledImage(path=f"{row:03}.png", class_ids=tuple(np.flatnonzero(ids).tolist()), sha256="", split="test")
        for row, ids in enumerate(truth_nc)
    ]
    return Predictions(listed, logits_nc, logits_nc)


def test_a_decision_for_other_outputs_is_fitted_to_them_again() -> None:
    seen = predictions()
    twice = Predictions(seen.images, 2 * seen.logits_nc + 1, seen.embedding_nd)
    first = fit_labels(DecisionPolicy(top_k=3), seen, LABELS)
    again = refit_decision(first, DecisionPolicy(top_k=3), twice, LABELS)
    assert first.platt is not None
    assert again.platt is not None
    assert again.platt[0][0] == pytest.approx(first.platt[0][0] / 2, abs=2e-3)
    one, other = answer(first, seen, LABELS), answer(again, twice, LABELS)
    assert (one.class_id_nk == other.class_id_nk).mean() > 0.99


LENIENT = AccuracyGate(max_loss_points=5.0, max_class_loss_points=10.0)


def test_the_gate_counts_images_with_all_labels_and_the_recall_of_each() -> None:
    truth_nc = predictions(2000).truth_nc
    same = compare_labels(truth_nc, truth_nc, truth_nc, LABELS, LENIENT)
    assert same.verdict == PASS
    assert same.overall.images == 2000
    assert {label: result.images for label, result in same.classes.items()} == dict(
        zip(LABELS, truth_nc.sum(axis=0), strict=True)
    )
    extra_nc, missing_nc = truth_nc.copy(), truth_nc.copy()
    extra_nc[:, 0] = True
    added = compare_labels(truth_nc, truth_nc, extra_nc, LABELS, LENIENT)
    assert added.verdict == FAIL, "a label too many is an image lost"
    assert added.overall.lost == (~truth_nc[:, 0]).sum()
    assert all(result.lost == 0 for result in added.classes.values()), "and no recall"
    missing_nc[:, 1] = False
    assert compare_labels(truth_nc, truth_nc, missing_nc, LABELS, LENIENT).classes[LABELS[1]].verdict == FAIL
    few = compare_labels(truth_nc[:30], truth_nc[:30], truth_nc[:30], LABELS, LENIENT)
    assert few.verdict == TOO_FEW
    assert few.reasons[0].startswith("all labels: too few images to tell")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """`colours` as a multi-label bundle, with an evaluation of made-up logits."""
    made = make_bundle(tmp_path_factory.mktemp("labels"))
    dataset = Dataset.read(made.path / "dataset.json")
    seen = predictions(len(dataset.images))
    images = [
        image.model_copy(update={"class_ids": other.class_ids})
        for image, other in zip(dataset.images, seen.images, strict=True)
    ]
    test = Predictions(images, seen.logits_nc, seen.embedding_nd)
    spec = json.loads((made.path / "spec.json").read_text()) | {"task": "multilabel", "decision": {"top_k": 3}}
    Spec.parse(spec, source="test").write(made.path / "spec.json")
    decision = fit_labels(DecisionPolicy(top_k=3), test, LABELS)
    decision.write(made.path / "decision.json")
    evaluate_label_bundle(decision, test, LABELS).write(made.path / "evaluation.json")
    dataset.model_copy(update={"images": tuple(images)}).write(made.path / "dataset.json")
    Manifest.seal(made.path, kind="bundle", name="colours", bundle=bundle_id(made.path))
    return Bundle.open(made.path)


def test_the_page_of_labels_shows_the_numbers_of_the_file_and_loads_nothing(bundle: Bundle) -> None:
    page = Page(render(bundle, read_bundle_evaluation(bundle.path, task=bundle.decision.task)))
    found = json.loads((bundle.path / "evaluation.json").read_text())
    assert f"{found['map']:.4f}" in page.text
    assert f"{found['exact_match']:.2%}" in page.text
    for label in LABELS:
        row = found["per_class"][label]
        assert f"{row['ap']:.3f} ({row['ap_interval'][0]:.2f} to {row['ap_interval'][1]:.2f})" in page.text
        assert f"{row['threshold']:.4f}" in page.text
    shown = [image["alt"] for image in page.all("img")]
    assert shown == [mistake["image"] for mistake in found["mistakes"]][:24]
    assert shown
    page.assert_loads_and_runs_nothing()


def test_mistakes_are_missing_and_extra_labels_the_surest_first(bundle: Bundle) -> None:
    found = json.loads((bundle.path / "evaluation.json").read_text())
    sureness = [1 - m["probability"] if m["kind"] == "missing" else m["probability"] for m in found["mistakes"]]
    assert sureness == sorted(sureness, reverse=True)
    for mistake in found["mistakes"]:
        assert (mistake["label"] in mistake["truth"]) == (mistake["kind"] == "missing")
        assert (mistake["label"] in mistake["answer"]) == (mistake["kind"] == "extra")


def test_rows_of_an_engine_are_read_back_into_the_same_gate(bundle: Bundle) -> None:
    seen, other = predictions(), predictions(noise=1.3)
    decision = bundle.decision
    before, after = (
        make_rows(split, answer(decision, split, LABELS), LABELS, task="multilabel") for split in (seen, other)
    )
    expected = compare_labels(
        seen.truth_nc,
        given_by(answer(decision, seen, LABELS), classes=3),
        given_by(answer(decision, other, LABELS), classes=3),
        LABELS,
        bundle.spec.accuracy,
    )
    assert gate_rows(before, after, bundle) == expected
    shown = flips(before, after, task="multilabel")
    assert shown
    assert all("[" not in flip.truth + flip.fp32 + flip.label for flip in shown)
    assert {flip.effect for flip in shown} <= {"lost", "gained", "wrong"}
    assert sum(flip.effect == "lost" for flip in shown) == expected.overall.lost


def test_a_report_says_map_of_labels_and_top_1_of_classes() -> None:
    assert PrimaryMetrics(images=3, macro_f1=0.5, ece=0.1, top1=0.75).primary_metrics == "top-1 75.00%"
    many = PrimaryMetrics(images=3, macro_f1=0.5, ece=0.1, map=0.9, exact_match=0.5)
    assert many.primary_metrics == "mAP 0.9000, all labels right 50.00%"


def test_calibration_lists_of_labels_read_back_and_those_of_classes_stay_as_they_were(tmp_path: Path) -> None:
    image = {"file": "00000.png", "sha256": "0" * 64}
    images = [{**image, "class_id": [0, 2]}, {**image, "class_id": []}]
    listed = CalibrationList.parse({"images": images}, source="test")
    listed.write(tmp_path / "calibration.json")
    assert CalibrationList.read(tmp_path / "calibration.json") == listed
    one = CalibrationList.parse({"images": [{**image, "class_id": 3}]}, source="test")
    assert '"class_id": 3,' in one.to_json()


def test_a_decision_without_platt_needs_none_of_it() -> None:
    plain = Decision.parse({"task": "multilabel", "top_k": 3, "thresholds": [0.5] * 3}, source="test")
    seen = predictions()
    given_nc = given_by(answer(plain, seen, LABELS), classes=3)
    assert (given_nc == (seen.logits_nc >= 0)).all()
