"""Logits to answers, as `decision.json` says: temperature, top-k, thresholds, `unknown`, labels. numpy alone."""

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

    @classmethod
    def read(cls, folder: Path) -> "Postprocessor":
        """From `decision.json` and `labels.txt` of a folder."""
        labels = (folder / "labels.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        return cls(json.loads((folder / "decision.json").read_text(encoding="utf-8")), labels)

    def run(self, logits_nc: npt.NDArray[np.float32], status_n: npt.NDArray[np.int32]) -> Answers:
        """Answer every row of `logits_nc` `[n, classes]` whose `status_n` is 0; the others stay empty."""
        finite = np.isfinite(logits_nc).all(axis=1)
        status_n = np.where((status_n == 0) & ~finite, INTERNAL, status_n).astype(np.int32)
        answered = status_n == 0
        probability_nc = np.zeros(logits_nc.shape, np.float32)
        probability_nc[answered] = self._probabilities(logits_nc[answered])

        eligible_nc = np.broadcast_to(answered[:, None], logits_nc.shape)
        if self._decision["task"] == "multilabel":
            eligible_nc = eligible_nc & (probability_nc >= np.asarray(self._decision["thresholds"], np.float32))
        rank_nc = np.where(eligible_nc, probability_nc, -1.0)
        # A stable sort: equal probabilities come in class order.
        best_nk = np.argsort(-rank_nc, axis=1, kind="stable")[:, : self._top_k]
        given_nk = np.take_along_axis(rank_nc, best_nk, axis=1) >= 0.0
        padding = ((0, 0), (0, self._top_k - best_nk.shape[1]))
        class_id_nk = np.pad(np.where(given_nk, best_nk, -1), padding, constant_values=-1).astype(np.int32)
        score_nk = np.pad(np.where(given_nk, np.take_along_axis(probability_nc, best_nk, axis=1), 0), padding)
        label_nk = self._labels[class_id_nk]
        if self._decision["unknown"] is not None:
            unknown = answered & (score_nk[:, 0] < self._decision["unknown"]["threshold"])
            for array, first in ((label_nk, UNKNOWN), (class_id_nk, -1), (score_nk, score_nk[unknown, 0])):
                array[unknown, 1:] = array[unknown, :-1]  # the candidates follow
                array[unknown, 0] = first
        return Answers(label_nk, score_nk, class_id_nk, status_n, probability_nc)

    def _probabilities(self, logits_nc: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        scaled = logits_nc.astype(np.float64) / self._decision["temperature"]
        if self._decision["task"] == "multilabel":
            sigmoid: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(scaled, -700, 700)))
            return sigmoid
        exponent = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        softmax: npt.NDArray[np.float64] = exponent / exponent.sum(axis=1, keepdims=True)
        return softmax
