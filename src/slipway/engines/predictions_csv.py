"""`predictions.csv`: the answer to each test image. Multi-label cells are JSON lists in class order."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slipway.contract import Bundle
from slipway.contract.decision import Task
from slipway.contract.evidence.evaluation import Flip
from slipway.contract.evidence.gate import AccuracyResult
from slipway.evaluation.gate import ClassIds, Table, compare_answers
from slipway.evaluation.labels import table
from slipway.evaluation.predict import Predictions
from slipway.steps.postprocess import Answers
from slipway.system.text import from_cell, to_cell

PREDICTIONS = "predictions.csv"
Row = dict[str, str]


def make_rows(test: Predictions, answers: Answers, labels: tuple[str, ...], *, task: Task) -> list[Row]:
    """`image`, `truth`, `label` and `score` of each image, as a client gets them."""
    if task == "multilabel":
        return _label_rows(test, answers, labels)
    best = zip(test.images, answers.label_nk[:, 0], answers.score_nk[:, 0].tolist(), strict=True)
    return [
        {"image": image.path, "truth": labels[image.class_id], "label": label.decode(), "score": repr(score)}
        for image, label, score in best
    ]


def _label_rows(test: Predictions, answers: Answers, labels: tuple[str, ...]) -> list[Row]:
    rows = []
    for image, class_id_k, score_k in zip(test.images, answers.class_id_nk, answers.score_nk, strict=True):
        pairs = zip(class_id_k.tolist(), score_k.tolist(), strict=True)
        given = sorted((class_id, score) for class_id, score in pairs if class_id >= 0)
        rows.append(
            {
                "image": image.path,
                "truth": _listed([labels[class_id] for class_id in image.class_ids]),
                "label": _listed([labels[class_id] for class_id, _ in given]),
                "score": _listed([score for _, score in given]),
            }
        )
    return rows


def _listed(items: Sequence[str | float]) -> str:
    return json.dumps(items, ensure_ascii=False)


def write_rows(rows: list[Row], folder: Path) -> None:
    with (folder / PREDICTIONS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({column: to_cell(cell) for column, cell in row.items()} for row in rows)


def read_rows(engine: Path) -> list[Row]:
    """`predictions.csv` of an engine folder."""
    with (engine / PREDICTIONS).open(newline="", encoding="utf-8") as file:
        return [{column: from_cell(cell) for column, cell in row.items()} for row in csv.DictReader(file)]


def gate_rows(before: list[Row], after: list[Row], bundle: Bundle) -> AccuracyResult:
    """The accuracy gate's result on the answers of FP32 and of an engine to the same images."""
    read = _table if bundle.decision.task == "multilabel" else _class_ids
    truth, candidate = (read(after, column, bundle.labels) for column in ("truth", "label"))
    reference = read(before, "label", bundle.labels)
    return compare_answers(truth, reference, candidate, bundle.labels, bundle.spec.accuracy)


def _class_ids(rows: list[Row], column: str, labels: tuple[str, ...]) -> ClassIds:
    """The class id of each answer; -1 for `unknown`."""
    class_ids = {label: class_id for class_id, label in enumerate(labels)}
    return np.array([class_ids.get(row[column], -1) for row in rows], np.int64)


def _table(rows: list[Row], column: str, labels: tuple[str, ...]) -> Table:
    class_ids = {label: class_id for class_id, label in enumerate(labels)}
    return table([[class_ids[label] for label in json.loads(row[column])] for row in rows], classes=len(labels))


def flips(before: list[Row], after: list[Row], *, task: Task) -> tuple[Flip, ...]:
    """The images that were answered differently from FP32."""
    named, least = (_named, _least) if task == "multilabel" else (str, float)
    return tuple(
        Flip(
            image=new["image"],
            truth=named(new["truth"]),
            fp32=named(old["label"]),
            fp32_score=least(old["score"]),
            label=named(new["label"]),
            score=least(new["score"]),
        )
        for old, new in zip(before, after, strict=True)
        if old["label"] != new["label"]
    )


def _named(cell: str) -> str:
    return ", ".join(json.loads(cell)) or "none"


def _least(cell: str) -> float:
    return min(json.loads(cell), default=0.0)
