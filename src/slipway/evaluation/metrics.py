"""Computes the metrics of a classifier's probabilities on a labelled split."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from slipway.contract.evidence.evaluation import Cells, ClassFigures, ClassMetrics, Means
from slipway.evaluation.intervals import ERROR, f1_interval, share_interval
from slipway.evaluation.reliability import expected_calibration_error, predicted

TOP_K = (3, 5, 10)


def evaluate(
    probability_nc: npt.NDArray[np.float32], truth_n: npt.NDArray[np.int64], labels: Sequence[str]
) -> ClassMetrics:
    """Compute top-1, top-k, ECE, confusion, and precision, recall and F1 per class with 95 % intervals and means.

    `macro` weights every class with an image equally, `weighted` by its number of images. Rows of the confusion matrix
    are the truth.
    """
    predicted_n = predicted(probability_nc)
    classes = len(labels)
    given = predicted_n >= 0
    images_c = np.bincount(truth_n, minlength=classes)
    given_c = np.bincount(predicted_n[given], minlength=classes)
    right_c = np.bincount(truth_n[predicted_n == truth_n], minlength=classes)
    figures = [
        class_figures(images=i, given=p, right=r)
        for i, p, r in zip(images_c.tolist(), given_c.tolist(), right_c.tolist(), strict=True)
    ]
    values = {name: np.array([getattr(row, name) for row in figures]) for name in ("precision", "recall", "f1")}
    right = int(right_c.sum())
    macro = Means(**{name: float(value_c[images_c > 0].mean()) for name, value_c in values.items()})
    return ClassMetrics(
        images=len(truth_n),
        top1=right / len(truth_n),
        top1_interval=share_interval(right, len(truth_n), error=ERROR),
        top_k={str(k): top_k_accuracy(probability_nc, truth_n, k=k) for k in TOP_K if k < classes},
        macro_f1=macro.f1,
        macro=macro,
        weighted=Means(**{name: float(np.average(value_c, weights=images_c)) for name, value_c in values.items()}),
        ece=expected_calibration_error(probability_nc, truth_n),
        per_class=dict(zip(labels, figures, strict=True)),
        confusion=confusion(truth_n[given], predicted_n[given]),
    )


def confusion(truth_n: npt.NDArray[np.int64], predicted_n: npt.NDArray[np.int64]) -> Cells:
    """Return the cells that are not 0 (class, answer, images): a whole matrix of 10,000 classes takes gigabytes."""
    pairs, counts = np.unique(np.stack([truth_n, predicted_n]), axis=1, return_counts=True)
    return tuple((int(truth), int(label), int(count)) for (truth, label), count in zip(pairs.T, counts, strict=True))


def class_figures(*, images: int, given: int, right: int) -> ClassFigures:
    """Compute the figures of a class or label: `images` have it, `given` got it, `right` both. A share of none is 0."""
    return ClassFigures(
        images=images,
        precision=right / given if given else 0.0,
        precision_interval=share_interval(right, given, error=ERROR),
        recall=right / images if images else 0.0,
        recall_interval=share_interval(right, images, error=ERROR),
        f1=2 * right / (images + given) if images + given else 0.0,
        f1_interval=f1_interval(right, images + given - right, error=ERROR),
    )


def top_k_accuracy(probability_nc: npt.NDArray[np.float32], truth_n: npt.NDArray[np.int64], *, k: int) -> float:
    """Return the share of images whose class is among the `k` most probable; ties count in class order, as in serving.

    Where `k` is at least the number of classes, it is the share of images with an answer.
    """
    of_truth_n1 = np.take_along_axis(probability_nc, truth_n[:, None], axis=1)
    before_nc = np.arange(probability_nc.shape[1]) < truth_n[:, None]
    ahead_nc = (probability_nc > of_truth_n1) | ((probability_nc == of_truth_n1) & before_nc)
    return float(((ahead_nc.sum(axis=1) < k) & probability_nc.any(axis=1)).mean())


def mean_average_precision(
    probability_nc: npt.NDArray[np.float32], truth_nc: npt.NDArray[np.bool_], labels: Sequence[str]
) -> tuple[float | None, dict[str, float | None]]:
    """Multi-label: return the mean average precision over the classes with an image, and each class's (None without).

    Args:
        truth_nc: whether each image has each label.
    """
    from sklearn.metrics import average_precision_score  # a second to import, and of multi-label classifiers alone

    per_class = {
        label: float(average_precision_score(truth_nc[:, i], probability_nc[:, i])) if truth_nc[:, i].any() else None
        for i, label in enumerate(labels)
    }
    found = [value for value in per_class.values() if value is not None]
    return float(np.mean(found)) if found else None, per_class
