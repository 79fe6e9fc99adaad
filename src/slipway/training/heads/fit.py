"""Fits a head to embeddings by scikit-learn; cross-validation on the train split chooses its regularisation."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit, log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier

from slipway.contract import Spec
from slipway.contract.dataset import LabelledImage
from slipway.contract.evidence.build import HeadFit
from slipway.evaluation.predict import Float, table
from slipway.steps.head import Head
from slipway.training.learn.weighting import class_weights, repeat_factors

STRENGTHS = {"linear": (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), "mlp": (1e-2, 1e-1, 1.0, 10.0)}
"""Candidates, the strongest regularisation first: among equals it wins."""
WITHOUT = {"linear": 1e-2, "mlp": 1e-1}
"""What is taken without a cross-validation."""
FOLDS, IMAGES = {"linear": 5, "mlp": 3}, 2000
"""Folds, and most images in all of them. The best strength hardly depends on the number of images, as the prior of a
maximum a posteriori estimate does not."""
ITERATIONS = {"linear": 1000, "mlp": 200}
LEAST_SPREAD = 0.1
"""Least deviation that a number is divided by, relative to all of them: the noise of a number that hardly changes stays
small."""
Floats = npt.NDArray[np.float64]
Truth = npt.NDArray[Any]
"""Class ids `INT64 [n]`, or for multi-label whether an image has a label, `BOOL [n, classes]`."""
Layers = list[tuple[Floats, Floats]]


@dataclass(frozen=True)
class Examples:
    """The train split of one engine, standardised."""

    x_nd: Float
    truth: Truth
    weight_n: Floats
    present_c: Floats
    """For multi-label, the weight of an image with a label against one without it."""

    def rows(self, rows: npt.NDArray[np.intp]) -> "Examples":
        return Examples(self.x_nd[rows], self.truth[rows], self.weight_n[rows], self.present_c)


class Fitter:
    """Fits heads for the train split of one task.

    Args:
        images: the train split.
    """

    def __init__(self, spec: Spec, images: Sequence[LabelledImage], *, classes: int) -> None:
        self.images, self.classes, self.multilabel = images, classes, spec.task == "multilabel"
        self.kind, self.units, self.seed = spec.recipe.head.kind, spec.recipe.head.units, spec.recipe.seed
        weight_c = np.ones(classes)
        if spec.recipe.loss.class_weights != "none":
            weight_c = class_weights(spec.recipe.loss, task=spec.task, images=images, classes=classes)
        self.weight_n = repeat_factors(images, balance=spec.recipe.balance, classes=classes)
        self.present_c = np.ones(classes)
        if self.multilabel:
            self.truth: Truth = table([image.class_ids for image in images], classes=classes)
            self.present_c = weight_c
        else:
            self.truth = np.array([image.class_id for image in images], np.int64)
            self.weight_n = self.weight_n * weight_c[self.truth]

    def choose(self, embedding_nd: Float) -> HeadFit:
        """Choose the strength of the regularisation by the log-loss of left-out images."""
        examples, _, _ = self._standardise(embedding_nd)
        drawn = self._drawn()
        folds = self._folds(drawn)
        if folds < 2:
            return HeadFit(strength=WITHOUT[self.kind], folds=0, images=0)
        splitter = (KFold if self.multilabel else StratifiedKFold)(folds, shuffle=True, random_state=self.seed)
        strata = np.zeros(len(drawn)) if self.multilabel else self.truth[drawn]
        losses: dict[float, list[float]] = {strength: [] for strength in STRENGTHS[self.kind]}
        for kept, left_out in splitter.split(drawn, strata):
            some, others = examples.rows(drawn[kept]), examples.rows(drawn[left_out])
            for strength, found in losses.items():
                found.append(self._loss(self._layers(some, strength), others))
        mean = {strength: float(np.mean(found)) for strength, found in losses.items()}
        return HeadFit(
            strength=min(mean, key=mean.__getitem__),
            folds=folds,
            images=len(drawn),
            log_loss={f"{strength:g}": loss for strength, loss in mean.items()},
        )

    def fit(self, embedding_nd: Float, *, strength: float) -> Head:
        """The head of the whole train split; it takes embeddings as they are."""
        examples, mean_d, std_d = self._standardise(embedding_nd)
        (weight, bias), *others = self._layers(examples, strength)
        weight = weight / std_d[:, None]
        layers = [(weight, bias - mean_d @ weight), *others]
        return _head(layers)

    def _standardise(self, embedding_nd: Float) -> tuple[Examples, Floats, Floats]:
        """Also returns the mean of each number, and its deviation or the least one that is taken."""
        mean_d, std_d = embedding_nd.mean(axis=0, dtype=np.float64), embedding_nd.std(axis=0, dtype=np.float64)
        least = LEAST_SPREAD * float(np.sqrt(np.square(std_d).mean()))
        std_d = np.maximum(std_d, least) if least else np.ones_like(std_d)
        x_nd = ((embedding_nd - mean_d) / std_d).astype(np.float32)
        return Examples(x_nd, self.truth, self.weight_n, self.present_c), mean_d, std_d

    def _drawn(self) -> npt.NDArray[np.intp]:
        """The images of the cross-validation: all, or some of each class in turn."""
        order = np.random.default_rng(self.seed).permutation(len(self.images))
        seen = Counter[tuple[int, ...]]()
        turns = []
        for row in order:
            seen[self.images[row].class_ids] += 1
            turns.append(seen[self.images[row].class_ids])
        drawn: npt.NDArray[np.intp] = order[np.argsort(turns, kind="stable")]
        return drawn[: max(IMAGES, FOLDS[self.kind] * self.classes)]

    def _folds(self, drawn: npt.NDArray[np.intp]) -> int:
        """As many as the images of the smallest class allow."""
        counts = Counter(class_id for row in drawn for class_id in self.images[row].class_ids)
        return min(FOLDS[self.kind], *(counts[class_id] for class_id in range(self.classes)))

    def _layers(self, examples: Examples, strength: float) -> Layers:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the budget of iterations regularises too
            if self.kind == "mlp":
                layers = _mlp(examples, strength, units=self.units, seed=self.seed)
            elif self.multilabel:
                layers = _one_for_each_label(examples, strength)
            else:
                layers = _linear(examples, strength)
        weight, bias = layers[-1]
        if bias.size == 1 and not self.multilabel:  # one logit z for two classes becomes -z/2 and z/2
            layers[-1] = np.hstack([-weight, weight]) / 2, np.append(-bias, bias) / 2
        return layers

    def _loss(self, layers: Layers, examples: Examples) -> float:
        """Mean log-loss, weighted as in the fit."""
        logits_nc = _head(layers).run(examples.x_nd).astype(np.float64)
        if self.multilabel:
            sign_nc = np.where(examples.truth, 1.0, -1.0)
            loss_nc = -log_expit(sign_nc * logits_nc) * np.where(examples.truth, examples.present_c, 1.0)
            loss_n = loss_nc.mean(axis=1)
        else:
            loss_n = -log_softmax(logits_nc, axis=1)[np.arange(len(logits_nc)), examples.truth]
        return float(np.average(loss_n, weights=examples.weight_n))


def _head(layers: Layers) -> Head:
    return Head([weight.astype(np.float32) for weight, _ in layers], [bias.astype(np.float32) for _, bias in layers])


def _linear(examples: Examples, strength: float) -> Layers:
    fitted = LogisticRegression(C=strength, max_iter=ITERATIONS["linear"])
    fitted.fit(examples.x_nd.astype(np.float64), examples.truth, examples.weight_n)
    return [(fitted.coef_.T, fitted.intercept_)]


def _one_for_each_label(examples: Examples, strength: float) -> Layers:
    """One logistic regression for each label: an image has it, or not."""
    columns = []
    for truth_n, present in zip(examples.truth.T, examples.present_c, strict=True):
        if truth_n.all() or not truth_n.any():  # nothing to tell apart: the share of the images, smoothed
            having, lacking = truth_n.sum() + 1, (~truth_n).sum() + 1
            columns.append((np.zeros((examples.x_nd.shape[1], 1)), np.log([having / lacking])))
            continue
        weight_n = examples.weight_n * np.where(truth_n, present, 1.0)
        columns += _linear(Examples(examples.x_nd, truth_n, weight_n, examples.present_c), strength)
    weights, biases = zip(*columns, strict=True)
    return [(np.hstack(weights), np.concatenate(biases))]


def _mlp(examples: Examples, strength: float, *, units: int, seed: int) -> Layers:
    fitted = MLPClassifier((units,), alpha=1 / strength, random_state=seed, max_iter=ITERATIONS["mlp"])
    fitted.fit(examples.x_nd, examples.truth, examples.weight_n)
    return list(zip(fitted.coefs_, fitted.intercepts_, strict=True))
