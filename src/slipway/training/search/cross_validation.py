"""Predicts every image of a data set with networks that never saw it: k-fold cross-validation.

The images of all three splits are dealt into folds: a wrong label misleads in the test split as much as in training.
For each fold the spec is trained on the other folds, part of which is its validation split. A fold's predictions are
written at once, so a killed run continues with the next fold.
"""

import csv
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from slipway.contract import DataError, Spec, SpecError
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset, LabelledImage, Split
from slipway.contract.recipe import Tracking
from slipway.evaluation.predict import Float, Predictions, predict
from slipway.system.files import sha256_bytes
from slipway.training.bundle.export import load_network
from slipway.training.data.dataset import scan
from slipway.training.data.sources import LABEL_COLUMNS
from slipway.training.data.splits import draw_parts
from slipway.training.learn.train import train

BATCH = 32
TEMPERATURES, NOISE = (0.05, 20.0), (0.0, 0.5)
STARTS = (0.25, 1.0)


@dataclass(frozen=True)
class OutOfFold:
    """Predictions by networks that were trained without the predicted image, in the order of `dataset.images`."""

    dataset: Dataset
    """The data set with the spec's splits."""
    fold_n: npt.NDArray[np.int64]
    probability_nc: Float
    """Softmax, calibrated on the fold's validation split despite wrong labels; for multi-label, the sigmoid."""

    def top1_by_fold(self) -> list[float]:
        """Return the top-1 accuracy of each fold of a multi-class data set."""
        truth_n = np.array([image.class_id for image in self.dataset.images])
        right_n = self.probability_nc.argmax(axis=1) == truth_n
        return [float(right_n[self.fold_n == fold].mean()) for fold in range(int(self.fold_n.max()) + 1)]


def cross_validate(spec: Spec, kept: Path, *, folds: int, seed: int) -> OutOfFold:
    """Train `spec` once for each fold, and predict that fold.

    Args:
        kept: a folder for the folds' predictions; only one process may write there at a time. Predictions of the same
            spec, images, folds and seed are reused.

    Raises:
        DataError: the images cannot be used, or a class has fewer images or groups than there are folds.
        SpecError: the spec asks for something that does not exist, or `folds` is under two.
    """
    if folds < 2:
        raise SpecError(f"folds: {folds} given; at least 2 are needed, and 5 is usual")
    if kept.exists() and not (kept.is_dir() and all("fold" in path.name for path in kept.iterdir())):
        raise SpecError(f"{kept}: something else stands where the folds are kept; rename it, or change --out")
    dataset = scan(spec.data, task=spec.task)
    fold_n = np.array(_deal(dataset, dataset.images, [1 / folds] * folds, seed=seed), np.int64)
    unit = sha256_bytes((spec.to_json() + dataset.to_json() + f"{folds} {seed}").encode())
    for leftover in kept.glob(".fold-*"):  # left by a killed process
        shutil.rmtree(leftover, ignore_errors=True)
    probability_nc = np.zeros((len(dataset.images), len(dataset.labels)), np.float32)
    for fold in range(folds):
        file = kept / f"fold_{fold}.npz"
        found = _read(file, unit)
        if found is None:
            print(
                f"fold {fold + 1} of {folds}: training without its {int((fold_n == fold).sum()):,} images", flush=True
            )
            found = _predict_fold(spec, dataset, fold_n, fold, seed=seed, work=kept)
            _keep(found, file, unit)
        probability_nc[fold_n == fold] = found
    return OutOfFold(dataset, fold_n, probability_nc)


def _deal(dataset: Dataset, images: Sequence[LabelledImage], shares: Sequence[float], *, seed: int) -> list[int]:
    return draw_parts(
        [image.class_ids for image in images],
        [image.sha256 for image in images],
        [image.group for image in images],
        labels=dataset.labels,
        shares=shares,
        seed=seed,
    )


def _read(file: Path, unit: str) -> Float | None:
    """Return the predictions in `file`; None where it is missing, incomplete or of another run."""
    try:
        with file.open("rb") as opened, np.load(opened) as kept:  # np.load would leave a damaged file open
            return kept["probability_nc"] if str(kept["unit"]) == unit else None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def _keep(probability_nc: Float, file: Path, unit: str) -> None:
    """Write the predictions to `file`, whole or not at all."""
    half = file.with_name(f".{file.name}")
    np.savez(half, probability_nc=probability_nc, unit=unit)
    half.replace(file)


def _predict_fold(
    spec: Spec, dataset: Dataset, fold_n: npt.NDArray[np.int64], fold: int, *, seed: int, work: Path
) -> Float:
    """Train on the other folds, and predict the images of `fold`."""
    rest = [image for image, its_fold in zip(dataset.images, fold_n.tolist(), strict=True) if its_fold != fold]
    share = spec.data.validation_fraction
    parts = _deal(dataset, rest, [1 - share, share], seed=seed)
    names: tuple[Split, Split] = ("train", "validation")
    splits: dict[str, Split] = {image.path: names[part] for image, part in zip(rest, parts, strict=True)}
    with _fold_table(dataset, splits, spec, work) as table:
        data = spec.data.model_copy(update={"csv": str(table)})
        without_unknown = spec.decision.model_copy(update={"unknown": None})  # its promise needs more validation images
        update = {"data": data, "decision": without_unknown, "tracking": Tracking(logger="none")}
        fold_spec = spec.model_copy(update=update)
        train(fold_spec, table.parent / "checkpoint")
        network = load_network(table.parent / "checkpoint", spec, classes=len(dataset.labels))
        listed = Dataset.read(table.parent / "checkpoint" / DATASET)

    def predictions(images: Sequence[LabelledImage], what: str) -> Predictions:
        return predict(network.run, listed, images, preprocess=spec.preprocess, batch_size=BATCH, what=what)

    held_out = [image for image, its_fold in zip(dataset.images, fold_n.tolist(), strict=True) if its_fold == fold]
    logits_nc = predictions(held_out, f"fold {fold + 1}").logits_nc
    if not np.isfinite(logits_nc).all():
        raise DataError(f"fold {fold + 1}: the network answers NaN or infinity; lower recipe.learning_rate")
    if spec.task == "multilabel":
        return np.asarray(expit(logits_nc), np.float32)
    validation = predictions(listed.of("validation"), f"fold {fold + 1}, validation split")
    temperature, _ = fit_noisy_temperature(validation.logits_nc, validation.truth_n)
    return np.asarray(softmax(logits_nc / temperature, axis=1), np.float32)


@contextmanager
def _fold_table(dataset: Dataset, splits: dict[str, Split], spec: Spec, work: Path) -> Iterator[Path]:
    """Write a table of the data set for the block, in its own folder; images without a split become its test split."""
    work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".fold-", dir=work) as folder:
        table = Path(folder) / "fold.csv"
        write_table(table, dataset, dataset.images, spec, splits=splits)
        yield table


def write_table(
    path: Path, dataset: Dataset, images: Sequence[LabelledImage], spec: Spec, *, splits: dict[str, Split]
) -> None:
    """Write `images` as a file for `data.csv`, each with its split in `splits`, or `test`.

    Raises:
        SpecError: a label contains `data.label_separator`.
    """
    separator, group_column = spec.data.label_separator, spec.data.group_column
    if spec.task == "multilabel" and (clash := [label for label in dataset.labels if separator in label]):
        raise SpecError(f"data.label_separator: {separator!r} is part of the label {clash[0]!r}; give another one")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", LABEL_COLUMNS[spec.task], "split", *([group_column] if group_column else [])])
        for image in images:
            labels = separator.join(dataset.labels[class_id] for class_id in image.class_ids)
            group = [image.group] if group_column else []
            writer.writerow([image.path, labels, splits.get(image.path, "test"), *group])


def fit_noisy_temperature(logits_nc: npt.NDArray[np.float32], given_n: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Fit temperature and share of wrong labels by maximum likelihood; every wrong label is equally likely.

    p(given) = (1 - share) softmax(logits / temperature)[given] + share / classes. A temperature alone would make the
    network as unsure as its labels are wrong, and cleanlab would then miss obvious errors. Source of the model:
    Sukhbaatar et al., "Training Convolutional Networks with Noisy Labels", 2015, with one number for its matrix.
    """
    logits, classes = logits_nc.astype(np.float64), logits_nc.shape[1]
    rows = np.arange(len(given_n))

    def loss(parameters: npt.NDArray[np.float64]) -> float:
        right_n = np.exp(log_softmax(logits / np.exp(parameters[0]), axis=1)[rows, given_n])
        return float(-np.log((1 - parameters[1]) * right_n + parameters[1] / classes + 1e-300).mean())

    bounds = (np.log(TEMPERATURES), NOISE)
    found = [minimize(loss, (np.log(start), 0.05), bounds=bounds, method="L-BFGS-B") for start in STARTS]
    log_temperature, share = min(found, key=lambda fit: float(fit.fun)).x
    return float(np.exp(log_temperature)), float(share)
