"""What each gate and proof says where nothing can be shown: none may call it a pass."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slipway.benchmark.statistics import judge_block
from slipway.contract import DataError, ExportError, QuantizeError
from slipway.contract.dataset import LabelledImage
from slipway.contract.evidence.gate import FAIL, PASS, TOO_FEW, AccuracyResult
from slipway.contract.evidence.latency import LatencyVerdict
from slipway.contract.spec import AccuracyGate, Data, UnknownPolicy
from slipway.engines.sensitivity import _Judge
from slipway.evaluation.gate import ClassIds, compare, compare_labels
from slipway.evaluation.metrics import evaluate
from slipway.evaluation.predict import Predictions
from slipway.evaluation.reliability import reliability
from slipway.evaluation.unknown import fit_threshold
from slipway.lint import lint
from slipway.training.bundle.write import compare_outputs
from slipway.training.data.dataset import scan
from tests.support.colour_training import write_colours
from tests.support.quantizable import bundle_of, network, set_weight, weights_of

IMAGES, CLASSES = 1000, 10
LABELS = tuple(str(class_id) for class_id in range(CLASSES))
LIMITS = AccuracyGate(prove_classes=False)
RNG = np.random.default_rng(0)
TRUTH_N = np.repeat(np.arange(CLASSES), IMAGES // CLASSES)
SHIFTED_N = (TRUTH_N + 1) % CLASSES
CONSTANT_N, RANDOM_N = np.zeros(IMAGES, np.int64), RNG.integers(CLASSES, size=IMAGES)
UNKNOWN_N = np.full(IMAGES, -1)
MOSTLY_OTHER_N = np.where(np.arange(IMAGES) < 637, (SHIFTED_N + 1) % CLASSES, SHIFTED_N)
ONE_CLASS_N = np.zeros(IMAGES, np.int64)
SITUATIONS: dict[str, tuple[ClassIds, ClassIds, ClassIds, str]] = {
    "FP32 right on none, INT8 another label on 637": (TRUTH_N, SHIFTED_N, MOSTLY_OTHER_N, FAIL),
    "FP32 right on none, INT8 the same": (TRUTH_N, SHIFTED_N, SHIFTED_N, TOO_FEW),
    "a constant network": (TRUTH_N, CONSTANT_N, CONSTANT_N, TOO_FEW),
    "a random network": (TRUTH_N, RANDOM_N, RANDOM_N, TOO_FEW),
    "two random networks": (TRUTH_N, RANDOM_N, RANDOM_N[::-1].copy(), FAIL),
    "all answers unknown": (TRUTH_N, UNKNOWN_N, UNKNOWN_N, TOO_FEW),
    "no image": (TRUTH_N[:0], TRUTH_N[:0], TRUTH_N[:0], TOO_FEW),
    "images of one class": (ONE_CLASS_N, ONE_CLASS_N, ONE_CLASS_N, TOO_FEW),
    "a good network": (TRUTH_N, TRUTH_N, TRUTH_N, PASS),
    "a good network that becomes constant": (TRUTH_N, TRUTH_N, CONSTANT_N, FAIL),
    "a good network that answers unknown": (TRUTH_N, TRUTH_N, UNKNOWN_N, FAIL),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_accuracy_gate_passes_what_is_shown_alone(situation: str) -> None:
    truth_n, before_n, after_n, verdict = SITUATIONS[situation]
    result = compare(truth_n, before_n, after_n, LABELS, LIMITS)
    assert result.verdict == verdict, result
    assert bool(result.reasons) == (verdict != PASS)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_gate_of_many_labels_says_the_same(situation: str) -> None:
    truth_n, before_n, after_n, verdict = SITUATIONS[situation]
    one_hot = np.concatenate([np.eye(CLASSES, dtype=np.bool_), np.zeros((1, CLASSES), np.bool_)])  # -1: no label
    result = compare_labels(one_hot[truth_n], one_hot[before_n], one_hot[after_n], LABELS, LIMITS)
    assert result.verdict == verdict, result


def test_labels_at_chance_are_called_better_no_more_often_than_the_confidence_says() -> None:
    """Labels of an image hang together, and FP32 gives each to a share of the images whatever they show."""
    rng = np.random.default_rng(3)
    limits, shares = AccuracyGate(prove_classes=False, confidence=0.8), np.array([0.1, 0.5, 0.5, 0.9, 1.0])
    better = []
    for _ in range(100):
        truth_nc = (rng.random((60, 1)) + 0.2 * rng.random((60, 5))) < 0.4
        given_nc = rng.random((60, 1)) < shares
        better.append(compare_labels(truth_nc, given_nc, given_nc, LABELS[:5], limits).reference.verdict == PASS)
    assert np.mean(better) <= 0.2 + 0.08


def test_labels_that_are_seldom_all_right_are_no_chance() -> None:
    rng = np.random.default_rng(4)
    truth_nc = rng.random((300, 30)) < 0.2
    given_nc = truth_nc ^ (rng.random((300, 30)) < 0.1)
    assert (given_nc == truth_nc).all(axis=1).mean() < 0.1
    assert compare_labels(truth_nc, given_nc, given_nc, LABELS * 3, LIMITS).reference.verdict == PASS


def halved(share: float, *, images: tuple[int, int]) -> AccuracyResult:
    """Two classes of so many images; FP32 is right on `share` of each, and INT8 answers the same."""
    truth_n = np.repeat([0, 1], images)
    place_n = np.concatenate([np.arange(count) / count for count in images])
    answers_n = np.where(place_n < share, truth_n, 1 - truth_n)
    return compare(truth_n, answers_n, answers_n, LABELS[:2], LIMITS)


def test_a_rare_class_does_not_hide_that_a_network_is_better_than_chance() -> None:
    """Right on 90 % of both classes is fewer than the best constant answer has right, and is worth something."""
    assert halved(0.9, images=(950, 50)).verdict == PASS
    assert halved(0.5, images=(950, 50)).verdict == TOO_FEW
    constant_n = np.zeros(1000, np.int64)
    always = compare(np.repeat([0, 1], [990, 10]), constant_n, constant_n, LABELS[:2], LIMITS)
    assert (always.reference.recall_points, always.reference.chance_points, always.verdict) == (50, 50, TOO_FEW)


def test_a_network_at_chance_is_called_better_no_more_often_than_the_confidence_says() -> None:
    rng = np.random.default_rng(1)
    limits = AccuracyGate(prove_classes=False, confidence=0.8)
    for images in ((20, 20), (50, 5), (9, 9, 200)):
        truth_n = np.repeat(np.arange(len(images)), images)
        for shares in ([0.5, 0.5, 0.0], [0.9, 0.1, 0.0]):
            answers = (rng.choice(3, size=len(truth_n), p=shares) for _ in range(100))
            better = [compare(truth_n, a, a, LABELS[:3], limits).reference.verdict == PASS for a in answers]
            assert np.mean(better) <= 0.2 + 0.08


def test_flips_are_limited_by_the_spec_and_by_five_points_where_it_says_nothing() -> None:
    assert AccuracyGate().flip_limit_points == 5
    assert AccuracyGate(max_loss_points=20).flip_limit_points == 20, "every image lost has flipped"
    assert AccuracyGate(max_loss_points=20, max_flip_points=3).flip_limit_points == 3
    wrong_n = np.where(np.arange(IMAGES) % 5 == 0, SHIFTED_N, TRUTH_N)  # FP32 is wrong on every fifth image
    other_n = np.where(np.arange(IMAGES) % 20 == 0, (TRUTH_N + 2) % CLASSES, wrong_n)  # and INT8 otherwise on some
    for limit, verdict in ((7.0, PASS), (5.0, TOO_FEW), (3.0, FAIL)):
        limits = AccuracyGate(prove_classes=False, max_flip_points=limit)
        result = compare(TRUTH_N, wrong_n, other_n, LABELS, limits)
        assert (result.overall.lost, result.flips.flips) == (0, 50)
        assert result.verdict == result.flips.verdict == verdict


def test_the_search_for_sensitive_layers_refuses_a_reference_that_answers_nothing(tmp_path: Path) -> None:
    graph = network()
    set_weight(graph, "linear.weight", np.full_like(weights_of(graph)["linear.weight"], np.nan))
    with pytest.raises(QuantizeError, match="FP32 answers none of 30 validation images"):
        _Judge(bundle_of(graph, tmp_path / "c"))


def logits(scale: float, *, rows: int = 40) -> Predictions:
    image = LabelledImage(path="a.png", class_id=0, sha256="0" * 64, split="test")
    made = (scale * np.random.default_rng(2).normal(size=(rows, 3))).astype(np.float32)
    return Predictions([image] * rows, made, made)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_the_export_check_tells_a_graph_that_answers_the_mean_from_the_network_at_every_scale(scale: float) -> None:
    torch = logits(scale)
    mean = Predictions(torch.images, np.broadcast_to(torch.logits_nc.mean(axis=0), (40, 3)), torch.embedding_nd)
    with pytest.raises(ExportError, match="ONNX and torch disagree"):
        compare_outputs(mean, torch, task="multilabel")
    rounded = Predictions(torch.images, torch.logits_nc * np.float32(1 + 1e-6), torch.embedding_nd)
    assert compare_outputs(rounded, torch) < 1e-2


def test_a_precision_is_not_shown_by_one_lucky_image() -> None:
    score_n, right_n = np.arange(300.0), np.zeros(300, np.bool_)
    right_n[-1] = True
    with pytest.raises(DataError, match="reached on only 1 of 300 validation images, and proof takes 59 answers"):
        fit_threshold(score_n, right_n, UnknownPolicy(precision=0.95))
    right_n[-59:] = True
    assert fit_threshold(score_n, right_n, UnknownPolicy(precision=0.95)) <= 241


def test_answers_that_say_nothing_get_no_good_figure() -> None:
    """A constant network and one without answers: neither top-1 nor macro-F1 is more than chance has."""
    for probability_nc in (np.eye(CLASSES)[CONSTANT_N], np.zeros((IMAGES, CLASSES))):
        found = evaluate(probability_nc.astype(np.float32), TRUTH_N, LABELS)
        assert found.top1 <= 1 / CLASSES
        assert found.macro_f1 <= 1 / CLASSES
    sure_of_nothing = reliability(np.eye(CLASSES)[CONSTANT_N].astype(np.float32), TRUTH_N)
    assert sure_of_nothing.ece == pytest.approx(0.9)


def without(*, split: str, label: str | None) -> Callable[[Path], None]:
    def remove(root: Path) -> None:
        for folder in (root / split).iterdir():
            if label in (None, folder.name):
                for path in folder.iterdir():
                    path.unlink()

    return remove


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("label", ["red", None], ids=["one class", "every class"])
def test_no_split_may_lack_a_class_or_be_empty(tmp_path: Path, split: str, label: str | None) -> None:
    for seed, name in enumerate(("train", "validation", "test")):
        write_colours(tmp_path / name, each=2, seed=seed)
    without(split=split, label=label)(tmp_path)
    with pytest.raises(DataError, match=f"none in {split}"):
        scan(Data(root=str(tmp_path)))


def test_a_latency_verdict_of_no_request_and_a_lint_of_no_model_are_no_pass(tmp_path: Path) -> None:
    assert judge_block(0, requests=0).verdict == LatencyVerdict.TOO_FEW
    assert [finding.rule for finding in lint(tmp_path)] == ["repository-empty"]
