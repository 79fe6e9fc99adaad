"""Fits a head to embeddings by scikit-learn; cross-validation on the train split chooses its regularisation."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit, log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from tqdm import tqdm

from slipway.contract import Spec
from slipway.contract.dataset import LabelledImage
from slipway.contract.evidence.build import HeadFit
from slipway.evaluation.labels import truth_of
from slipway.evaluation.predict import Float
from slipway.steps.head import Head
from slipway.training.learn.weighting import Floats, class_weights, repeat_factors

STRENGTHS = {"linear": (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0), "mlp": (1e-2, 1e-1, 1.0, 10.0)}
"""Candidates, the strongest regularisation first: among equals it wins."""
WITHOUT = {"linear": 1e-2, "mlp": 1e-1}
"""Strength of the regularisation without a cross-validation, by kind of head."""
FOLDS, IMAGES = {"linear": 5, "mlp": 3}, {"linear": 1000, "mlp": 500}
"""Folds, and most images in all of them. The best strength hardly depends on the number of images, as the prior of a
maximum a posteriori estimate does not."""
ITERATIONS = 300
"""Most iterations of a logistic regression."""
STEPS, BATCH, LEAST_EPOCHS = 200, 200, 30
"""An MLP learns for about so many steps of a batch, and at least so many epochs."""
LEAST_SPREAD = 0.1
"""Least deviation that a number is divided by, relative to all of them: the noise of a number that hardly changes stays
small."""
Truth = npt.NDArray[Any]
"""Class ids `INT64 [n]`, or for multi-label whether an image has a label, `BOOL [n, classes]`."""
Layers = list[tuple[Floats, Floats]]


@dataclass(frozen=True)
class Examples:
    """The train split of one engine in its `Space`."""

    x_nd: Floats
    truth: Truth
    weight_n: Floats
    present_c: Floats
    """Weight of an image with a label against one without it, by label (multi-label only)."""

    def rows(self, rows: npt.NDArray[np.intp]) -> "Examples":
        return Examples(self.x_nd[rows], self.truth[rows], self.weight_n[rows], self.present_c)


@dataclass(frozen=True)
class Space:
    """The space in which a head is fitted: embeddings standardised and, with fewer images than numbers, rotated into
    the space that they span. A linear head has the same weights there, and is found much faster."""

    mean_d: Floats
    std_d: Floats
    axes_dr: Floats | None

    @classmethod
    def of(cls, embedding_nd: Float, *, rotated: bool) -> "Space":
        mean_d, std_d = embedding_nd.mean(axis=0, dtype=np.float64), embedding_nd.std(axis=0, dtype=np.float64)
        least = LEAST_SPREAD * float(np.sqrt(np.square(std_d).mean()))
        std_d = np.maximum(std_d, least) if least else np.ones_like(std_d)
        standard = cls(mean_d, std_d, None)
        if not rotated or len(embedding_nd) >= len(mean_d):
            return standard
        return cls(mean_d, std_d, np.linalg.qr(standard.project(embedding_nd).T)[0])

    def project(self, embedding_nd: Float) -> Floats:
        x_nd: Floats = (embedding_nd - self.mean_d) / self.std_d
        return x_nd if self.axes_dr is None else x_nd @ self.axes_dr

    def unfolded(self, layers: Layers) -> Layers:
        """Return the same layers for embeddings outside this space."""
        (weight, bias), *others = layers
        weight_d = (weight if self.axes_dr is None else self.axes_dr @ weight) / self.std_d[:, None]
        return [(weight_d, bias - self.mean_d @ weight_d), *others]


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
        self.truth: Truth = truth_of([image.class_ids for image in images], task=spec.task, classes=classes)
        if self.multilabel:
            self.present_c = weight_c
        else:
            self.weight_n = self.weight_n * weight_c[self.truth]

    def choose(self, embedding_nd: Float) -> HeadFit:
        """Choose the strength of the regularisation by the log-loss of left-out images: from the strongest to the first
        that is worse than the one before it."""
        drawn = self._drawn()
        folds = self._folds(drawn)
        if folds < 2:
            return HeadFit(strength=WITHOUT[self.kind], folds=0, images=0)
        examples = self._examples(Space.of(embedding_nd, rotated=self.kind == "linear"), embedding_nd)
        splitter = (KFold if self.multilabel else StratifiedKFold)(folds, shuffle=True, random_state=self.seed)
        splits = list(splitter.split(drawn, np.zeros(len(drawn)) if self.multilabel else self.truth[drawn]))
        losses: dict[float, float] = {}
        for strength in tqdm(STRENGTHS[self.kind], "cross-validation", unit="strength", leave=False, disable=None):
            parts = ((examples.rows(drawn[kept]), examples.rows(drawn[left_out])) for kept, left_out in splits)
            losses[strength] = fmean(self._loss(self._layers(some, strength), others) for some, others in parts)
            if losses[strength] > min(losses.values()):
                break
        return HeadFit(
            strength=min(losses, key=losses.__getitem__),
            folds=folds,
            images=len(drawn),
            log_loss={f"{strength:g}": loss for strength, loss in losses.items()},
        )

    def fit(self, embedding_nd: Float, *, strength: float) -> Head:
        """The head of the whole train split; it takes embeddings as they are."""
        space = Space.of(embedding_nd, rotated=self.kind == "linear")
        return _head(space.unfolded(self._layers(self._examples(space, embedding_nd), strength)))

    def _examples(self, space: "Space", embedding_nd: Float) -> Examples:
        return Examples(space.project(embedding_nd), self.truth, self.weight_n, self.present_c)

    def _drawn(self) -> npt.NDArray[np.intp]:
        """The images of the cross-validation: all, or some of each class in turn."""
        order = np.random.default_rng(self.seed).permutation(len(self.images))
        seen = Counter[tuple[int, ...]]()
        turns = []
        for row in order:
            seen[self.images[row].class_ids] += 1
            turns.append(seen[self.images[row].class_ids])
        drawn: npt.NDArray[np.intp] = order[np.argsort(turns, kind="stable")]
        return drawn[: max(IMAGES[self.kind], FOLDS[self.kind] * self.classes)]

    def _folds(self, drawn: npt.NDArray[np.intp]) -> int:
        """Return the number of folds that the smallest class allows."""
        counts = Counter(class_id for row in drawn for class_id in self.images[row].class_ids)
        return min(FOLDS[self.kind], *(counts[class_id] for class_id in range(self.classes)))

    def _layers(self, examples: Examples, strength: float) -> Layers:
        # One thread: these matrices are small, and threads of BLAS that wait by spinning take each other's cores.
        with warnings.catch_warnings(), threadpool_limits(1):
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
        logits_nc = _head(layers).run(examples.x_nd.astype(np.float32)).astype(np.float64)
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
    fitted = LogisticRegression(C=strength, max_iter=ITERATIONS)
    fitted.fit(examples.x_nd, examples.truth, examples.weight_n)
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
    epochs = max(STEPS // -(-len(examples.x_nd) // BATCH), LEAST_EPOCHS)
    fitted = MLPClassifier((units,), alpha=1 / strength, random_state=seed, max_iter=epochs)
    fitted.fit(examples.x_nd.astype(np.float32), examples.truth, examples.weight_n)
    return list(zip(fitted.coefs_, fitted.intercepts_, strict=True))
