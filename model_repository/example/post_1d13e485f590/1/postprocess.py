"""Logits to answers, as `decision.json` says: temperature, top-k, thresholds, `unknown`, labels. numpy alone."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

UNKNOWN = b"unknown"
INTERNAL = 5  # the status of guard.py for an answer that is not finite


@dataclass(frozen=True)
class Answers:
    """Rows are images; columns are best first and padded to k with `""`, 0 and -1."""

    label_nk: npt.NDArray[np.object_]
    """UTF-8 bytes."""
    score_nk: npt.NDArray[np.float32]
    class_id_nk: npt.NDArray[np.int32]
    status_n: npt.NDArray[np.int32]
    probability_nc: npt.NDArray[np.float32]


def public_tensors(
    answers: Answers, *, bundle: bytes, embedding_nd: npt.NDArray[np.float32] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """What clients see, by the names that they know; EMBEDDING where one is given."""
    tensors: dict[str, npt.NDArray[Any]] = {
        "LABEL": answers.label_nk,
        "SCORE": answers.score_nk,
        "CLASS_ID": answers.class_id_nk,
        "STATUS": answers.status_n[:, np.newaxis],
        "BUNDLE": np.full((len(answers.status_n), 1), bundle, np.object_),
        "PROBABILITY": answers.probability_nc,
    }
    if embedding_nd is not None:  # the placeholder's embedding is nobody's answer
        tensors["EMBEDDING"] = np.where(tensors["STATUS"] == 0, embedding_nd, np.float32(0))
    return tensors


def decode_means(means: Mapping[str, Any], *, classes: int) -> npt.NDArray[np.float64]:
    """`class_means` of `decision.json`, base64 of INT8 `[classes, d]` and the embedding's units in one step of it."""
    steps_cd = np.frombuffer(base64.b64decode(means["int8"]), np.int8).reshape(classes, -1)
    means_cd: npt.NDArray[np.float64] = steps_cd.astype(np.float64) * means["step"]
    return means_cd


def nearness(embedding_nd: npt.NDArray[np.float32], means_cd: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Minus the distance of every embedding and every class mean, `[n, classes]`."""
    embeddings = embedding_nd.astype(np.float64)
    squares_nc = (embeddings**2).sum(axis=1)[:, None] - 2 * embeddings @ means_cd.T + (means_cd**2).sum(axis=1)
    near_nc: npt.NDArray[np.float64] = -np.sqrt(np.maximum(squares_nc, 0))
    return near_nc


def familiarity(score: str, evidence_nc: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How much each image is like what the network knows; `unknown` lies under a threshold.

    Args:
        score: `max_probability` (Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution
            Examples", 2017), `energy` (Liu et al., "Energy-based Out-of-distribution Detection", 2020) or `embedding`.
        evidence_nc: logits over the temperature, for `embedding` the nearness to each class's mean. -inf leaves a
            class out.
    """
    peak_n: npt.NDArray[np.float64] = evidence_nc.max(axis=1)
    if score == "embedding":
        return peak_n
    total_n = np.exp(evidence_nc - peak_n[:, None]).sum(axis=1)
    familiar_n: npt.NDArray[np.float64] = 1.0 / total_n if score == "max_probability" else peak_n + np.log(total_n)
    return familiar_n


def _best(rank_nc: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.intp]:
    """The columns of the `k` largest values of each row, best first, equal ones in the order of the columns.

    Only what reaches the k-th value is sorted: to sort all of 1,000 classes takes most of an answer's time.
    """
    least_n1 = np.partition(rank_nc, -k, axis=1)[:, -k, None]
    rows, columns = np.nonzero(rank_nc >= least_n1)
    order = np.lexsort((-rank_nc[rows, columns], rows))  # stable
    first_n1 = np.searchsorted(rows, np.arange(len(rank_nc)))[:, None]
    best_nk: npt.NDArray[np.intp] = columns[order][first_n1 + np.arange(k)]
    return best_nk


class Postprocessor:
    """Carries out one decision.

    Args:
        decision: the content of `decision.json`.
        labels: one a class, in class order.
    """

    def __init__(self, decision: Mapping[str, Any], labels: Sequence[str]) -> None:
        self._decision = decision
        # The last entry is what class id -1 reads: "".
        self._labels = np.array([*(label.encode() for label in labels), b""], np.object_)
        self._top_k: int = decision["top_k"]
        unknown = decision["unknown"] or {}
        self._score: str = unknown.get("score", "max_probability")
        means = unknown.get("class_means")
        self._means_cd = None if means is None else decode_means(means, classes=len(labels))

    @property
    def needs_embedding(self) -> bool:
        """Whether `run` is to be given the embeddings."""
        return self._means_cd is not None

    @classmethod
    def read(cls, folder: Path) -> "Postprocessor":
        """From `decision.json` and `labels.txt` of a folder."""
        labels = (folder / "labels.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        return cls(json.loads((folder / "decision.json").read_text(encoding="utf-8")), labels)

    def run(
        self,
        logits_nc: npt.NDArray[np.float32],
        status_n: npt.NDArray[np.int32],
        embedding_nd: npt.NDArray[np.float32] | None = None,
    ) -> Answers:
        """Answer every row of `logits_nc` `[n, classes]` whose `status_n` is 0; the others stay empty."""
        finite = np.isfinite(logits_nc).all(axis=1)
        status_n = np.where((status_n == 0) & ~finite, INTERNAL, status_n).astype(np.int32)
        answered = status_n == 0
        probability_nc = np.zeros(logits_nc.shape, np.float32)
        scaled_nc = self._scaled(logits_nc[answered])
        probability_nc[answered] = self._probabilities(scaled_nc)

        rank_nc = np.where(self._eligible(probability_nc, answered), probability_nc, np.float32(-1))
        k = min(self._top_k, rank_nc.shape[1])
        best_nk = _best(rank_nc, k)
        best_rank_nk = np.take_along_axis(rank_nc, best_nk, axis=1)
        given_nk = best_rank_nk >= 0.0
        class_id_nk = np.full((len(rank_nc), self._top_k), -1, np.int32)
        class_id_nk[:, :k] = np.where(given_nk, best_nk, -1)
        score_nk = np.zeros(class_id_nk.shape, np.float32)
        score_nk[:, :k] = np.where(given_nk, best_rank_nk, 0)
        label_nk = self._labels[class_id_nk]
        if self._decision["unknown"] is not None:
            unknown = answered.copy()
            unknown[answered] = self._unfamiliar(scaled_nc, None if embedding_nd is None else embedding_nd[answered])
            for array, first in ((label_nk, UNKNOWN), (class_id_nk, -1), (score_nk, score_nk[unknown, 0])):
                array[unknown, 1:] = array[unknown, :-1]  # the candidates follow
                array[unknown, 0] = first
        return Answers(label_nk, score_nk, class_id_nk, status_n, probability_nc)

    def _eligible(
        self, probability_nc: npt.NDArray[np.float32], answered: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        if self._decision["task"] == "multilabel":
            above_nc: npt.NDArray[np.bool_] = probability_nc >= np.asarray(self._decision["thresholds"], np.float32)
            return above_nc & answered[:, None]
        return answered[:, None]

    def _scaled(self, logits_nc: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        scaled_nc: npt.NDArray[np.float64] = logits_nc.astype(np.float64)
        if self._decision.get("platt") is not None:
            slope_c, offset_c = np.asarray(self._decision["platt"], np.float64).T
            scaled_nc = scaled_nc * slope_c + offset_c
        else:
            scaled_nc = scaled_nc / self._decision["temperature"]
        return scaled_nc

    def _probabilities(self, scaled_nc: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self._decision["task"] == "multilabel":
            sigmoid: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(scaled_nc, -700, 700)))
            return sigmoid
        exponent = np.exp(scaled_nc - scaled_nc.max(axis=1, keepdims=True))
        softmax: npt.NDArray[np.float64] = exponent / exponent.sum(axis=1, keepdims=True)
        return softmax

    def _unfamiliar(
        self, scaled_nc: npt.NDArray[np.float64], embedding_nd: npt.NDArray[np.float32] | None
    ) -> npt.NDArray[np.bool_]:
        if self._means_cd is None:
            evidence_nc = scaled_nc
        elif embedding_nd is None:
            raise ValueError("this decision finds `unknown` in the embedding, and was given none: map embedding_nd")
        else:
            evidence_nc = nearness(embedding_nd, self._means_cd)
        with np.errstate(over="ignore"):  # an energy can be larger than FP32 holds, and is familiar then
            score_n = familiarity(self._score, evidence_nc).astype(np.float32)
        # In FP32, as clients see a probability; NaN, of an embedding that is not finite, is like nothing that is known.
        return ~(score_n >= np.float32(self._decision["unknown"]["threshold"]))
