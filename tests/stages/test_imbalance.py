"""What a recipe does about rare classes: losses against their formulas, weights, and the images of an epoch."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassF1Score
from torchvision.ops import sigmoid_focal_loss

from slipway.contract import Spec, SpecError
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.recipe import Loss
from slipway.training.data.dataset import check_top_k
from slipway.training.data.targets import LabelTargets, reader_numbers
from slipway.training.learn import weighting
from slipway.training.learn.losses import loss_for
from slipway.training.learn.metrics import MacroF1, metrics_for, update
from slipway.training.learn.weighting import class_weights, repeated

SPEC: dict[str, Any] = {
    "name": "pets",
    "data": {"root": "images"},
    "preprocess": {"input_height": 32, "input_width": 32},
    "backbone": {"name": "resnet10t"},
}


def images_of(labels: Sequence[Sequence[int]]) -> list[LabelledImage]:
    return [
        LabelledImage(path=f"{row}.png", class_ids=tuple(class_ids), sha256="", split="train")
        for row, class_ids in enumerate(labels)
    ]


LONG_TAIL = images_of([[0]] * 100 + [[1]] * 10 + [[2]] * 2)
PAGES = images_of([[0, 1]] * 6 + [[0]] * 2 + [[]] * 2)


def loss_of(
    logits: torch.Tensor, target: torch.Tensor, *, task: Any = "multiclass", smoothing: float = 0.0, **loss: Any
) -> torch.Tensor:
    images = LONG_TAIL if task == "multiclass" else PAGES
    made = loss_for(Loss(**loss), task=task, images=images, classes=logits.shape[1], label_smoothing=smoothing)
    found: torch.Tensor = made(logits, target)
    return found


@pytest.fixture
def logits_nc() -> torch.Tensor:
    return 3 * torch.randn(7, 3, generator=torch.Generator().manual_seed(0))


CLASS_IDS = torch.tensor([0, 1, 2, 2, 1, 0, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_focal_loss_without_focus_is_cross_entropy(logits_nc: torch.Tensor, smoothing: float) -> None:
    expected = torch.nn.functional.cross_entropy(logits_nc, CLASS_IDS, label_smoothing=smoothing)
    found = loss_of(logits_nc, CLASS_IDS, smoothing=smoothing, kind="focal", gamma=0.0)
    assert found == pytest.approx(float(expected), rel=1e-6)
    assert loss_of(logits_nc, CLASS_IDS, smoothing=smoothing) == expected


def test_focal_loss_is_lin_s_formula(logits_nc: torch.Tensor) -> None:
    p_n = logits_nc.softmax(dim=1)[torch.arange(7), CLASS_IDS]
    expected = (-((1 - p_n) ** 2) * p_n.log()).mean()
    assert loss_of(logits_nc, CLASS_IDS, kind="focal") == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("loss", [{}, {"kind": "focal"}, {"class_weights": "inverse_frequency"}])
def test_shares_are_targets_as_class_ids_are(logits_nc: torch.Tensor, loss: dict[str, Any]) -> None:
    one_hot = torch.nn.functional.one_hot(CLASS_IDS, 3).float()
    by_id, by_share = (loss_of(logits_nc, target, smoothing=0.1, **loss) for target in (CLASS_IDS, one_hot))
    if "class_weights" not in loss:  # torch divides by the weights of class ids, and by the images of shares
        assert by_id == pytest.approx(float(by_share), rel=1e-6)
    mixed = loss_of(logits_nc, 0.5 * one_hot + 0.5 * one_hot.flip(0), **loss)
    assert torch.isfinite(mixed)


def test_multi_label_focal_loss_is_torchvision_s(logits_nc: torch.Tensor) -> None:
    target = (torch.rand(7, 3, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    expected = sigmoid_focal_loss(logits_nc, target, alpha=0.25, gamma=1.5, reduction="mean")
    found = loss_of(logits_nc, target, task="multilabel", kind="focal", alpha=0.25, gamma=1.5)
    assert found == pytest.approx(float(expected))
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits_nc, target)
    assert loss_of(logits_nc, target, task="multilabel") == pytest.approx(float(plain))
    assert loss_of(logits_nc, target, task="multilabel", kind="focal", gamma=0.0) == pytest.approx(float(plain))


def test_multi_label_weights_are_torch_s_positive_weights(logits_nc: torch.Tensor) -> None:
    target = torch.eye(7, 3)
    loss = Loss(class_weights="inverse_frequency")
    weights = class_weights(loss, task="multilabel", images=PAGES, classes=3)
    assert weights.tolist() == pytest.approx([2 / 8, 4 / 6, 9 / 1])  # absent against there; no image counts as one
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits_nc, target, pos_weight=torch.tensor(weights, dtype=torch.float32)
    )
    found = loss_of(logits_nc, target, task="multilabel", class_weights="inverse_frequency")
    assert found == pytest.approx(float(expected))


@pytest.mark.parametrize("extremely", [torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([[-1e4, 1e4, 0.0]])])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_and_its_slopes_stay_finite(extremely: torch.Tensor, gamma: float) -> None:
    logits = extremely.clone().requires_grad_()
    loss_of(logits, torch.tensor([0]), kind="focal", gamma=gamma).backward()
    assert torch.isfinite(logits.grad).all()


def test_class_weights_are_their_formulas_and_the_mean_image_weighs_one() -> None:
    counts = np.array([100, 10, 2])
    for loss, of_count in (
        (Loss(class_weights="inverse_frequency"), 1 / counts),
        (Loss(class_weights="effective_number", beta=0.9), 0.1 / (1 - 0.9**counts)),
    ):
        found = class_weights(loss, task="multiclass", images=LONG_TAIL, classes=3)
        assert found / found[0] == pytest.approx(of_count / of_count[0])
        assert (found * counts).sum() / counts.sum() == pytest.approx(1.0)


def test_the_effective_number_lies_between_no_weights_and_the_inverse_frequency() -> None:
    def weights(beta: float) -> Any:
        loss = Loss(class_weights="effective_number", beta=beta)
        return class_weights(loss, task="multiclass", images=LONG_TAIL, classes=3)

    inverse = class_weights(Loss(class_weights="inverse_frequency"), task="multiclass", images=LONG_TAIL, classes=3)
    assert weights(0.0) == pytest.approx(np.ones(3))
    assert weights(0.9999999) == pytest.approx(inverse, rel=1e-3)


def test_an_epoch_with_equal_balance_has_as_many_images_of_each_class() -> None:
    found = Counter(image.class_id for image in repeated(LONG_TAIL, balance="equal", classes=3, seed=0))
    assert found == {0: 100, 1: 100, 2: 100}
    assert repeated(LONG_TAIL, balance="none", classes=3, seed=0) == LONG_TAIL


@given(st.lists(st.integers(1, 60), min_size=2, max_size=5), st.integers(0, 2**31))
def test_square_root_repeats_by_the_square_root_and_loses_no_image(counts: list[int], seed: int) -> None:
    images = images_of([[class_id] for class_id, count in enumerate(counts) for _ in range(count)])
    listed = repeated(images, balance="square_root", classes=len(counts), seed=seed)
    times = Counter(image.path for image in listed)
    assert set(times) == {image.path for image in images}
    for image in images:
        factor = (max(counts) / counts[image.class_id]) ** 0.5
        assert int(factor) <= times[image.path] <= int(factor) + 1
    assert listed == repeated(images, balance="square_root", classes=len(counts), seed=seed)


def test_a_page_is_repeated_for_its_rarest_label_and_an_empty_one_not_at_all() -> None:
    pages = images_of([[0]] * 8 + [[0, 1]] * 2 + [[]])
    times = Counter(image.path for image in repeated(pages, balance="equal", classes=2, seed=0))
    assert [times[page.path] for page in pages] == [1] * 8 + [5] * 2 + [1]


def test_an_epoch_of_too_many_files_is_refused_with_the_milder_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighting, "LONGEST", 200)
    with pytest.raises(SpecError, match=r"an epoch of 300 files out of 112.*recipe.balance: square_root"):
        repeated(LONG_TAIL, balance="equal", classes=3, seed=0)
    with pytest.raises(SpecError, match=r"write recipe.loss.class_weights"):
        repeated(LONG_TAIL * 3, balance="square_root", classes=3, seed=0)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"recipe": {"loss": {"kind": "hinge"}}}, "'cross_entropy' or 'focal'"),
    ({"recipe": {"loss": {"gamma": 2}}}, "gamma belongs to kind: focal"),
    ({"recipe": {"loss": {"beta": 0.9}}}, "beta belongs to class_weights: effective_number"),
    ({"recipe": {"loss": {"kind": "focal", "alpha": 0.25}}}, "alpha belongs to multilabel"),
    (
        {
            "task": "multilabel",
            "recipe": {"loss": {"kind": "focal", "alpha": 0.25, "class_weights": "effective_number"}},
        },
        "weigh the same labels",
    ),
    ({"recipe": {"loss": {"class_weights": "inverse_frequency"}, "balance": "equal"}}, "same imbalance twice"),
    ({"recipe": {"balance": "weighted"}}, "'none', 'square_root' or 'equal'"),
    ({"decision": {"thresholds": {"precision": 0.9}}}, "decision.thresholds belongs to multilabel"),
    ({"task": "multilabel", "decision": {"unknown_threshold": 0.5}}, "for multilabel use decision.thresholds"),
    ({"task": "multilabel", "decision": {"thresholds": {"precision": 0.9, "recall": 0.9}}}, "one of precision, recall"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_a_spec_that_asks_for_what_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Spec.parse({**SPEC, **changes}, source="test")


def test_the_labels_of_a_batch_are_looked_up_by_its_rows() -> None:
    dataset = Dataset(root="", labels=("a", "b", "c"), images=tuple(images_of([[0, 2], [], [1]])))
    targets = LabelTargets(dataset)({"row": torch.tensor([2, 0, 1, 0])})
    assert targets.tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert reader_numbers(dataset, [dataset.images[2], dataset.images[0]], task="multilabel") == [2, 0]


def test_more_labels_than_an_answer_holds_are_an_error_before_training() -> None:
    dataset = Dataset(root="", labels=("a", "b", "c"), images=tuple(images_of([[0], [0, 1, 2]])))
    spec = Spec.parse({**SPEC, "task": "multilabel", "decision": {"top_k": 2}}, source="test")
    with pytest.raises(SpecError, match=r"decision.top_k: 2 labels per answer, but 1.png has 3; write 3 or more"):
        check_top_k(spec, dataset)


def test_macro_f1_is_torchmetrics_and_ten_thousand_classes_are_no_table() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = MacroF1(6), MulticlassF1Score(6)
    for _ in range(3):
        logits, class_id = torch.randn(20, 6, generator=generator), torch.randint(0, 5, (20,), generator=generator)
        logits[:, 5] -= 100  # a class that is neither there nor given
        ours.update(logits, class_id)
        theirs.update(logits, class_id)
    assert float(ours.compute()) == pytest.approx(float(theirs.compute()))
    large = MacroF1(10_000)
    large.update(torch.eye(10_000)[:64], torch.arange(64))
    assert large.compute() == 1.0
    assert sum(state.numel() for state in large.metric_state.values()) == 30_000


def test_logits_between_0_and_1_are_still_logits() -> None:
    metrics = metrics_for("multilabel", classes=2)
    update(metrics, torch.tensor([[0.1, 0.2], [0.3, 0.4]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert metrics.compute()["val_macro_f1"] == pytest.approx((1 + 2 / 3) / 2)  # all four are over 0.5
