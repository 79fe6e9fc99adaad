"""What an engine is worth: both splits through the steps that serve it, its own decision, and the gate against FP32."""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slipway.contract import Bundle, CompileError, Decision, Engine
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset, Split
from slipway.engines.gate import ClassIds, GateResult, compare
from slipway.evaluation.confidence import fit_temperature
from slipway.evaluation.metrics import evaluate
from slipway.evaluation.predict import Network, Predictions, predict
from slipway.evaluation.unknown import refit
from slipway.steps.postprocess import UNKNOWN, Answers, Postprocessor

PREDICTIONS = "predictions.csv"
Row = dict[str, str]


@dataclass(frozen=True)
class Evaluation:
    """The numbers of one engine on the whole test split."""

    decision: Decision
    """The bundle's, with temperature and `unknown` fitted to this engine's outputs on the validation split."""
    metrics: dict[str, Any]
    rows: list[Row]
    gate: GateResult | None
    """None for the FP32 reference itself."""

    def write(self, folder: Path) -> None:
        """`decision.json`, `evaluation.json`, and `predictions.csv` with the label and score that a client gets."""
        self.decision.write(folder / "decision.json")
        (folder / "evaluation.json").write_text(json.dumps(self.metrics, indent=2) + "\n", encoding="utf-8")
        with (folder / PREDICTIONS).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def measured(self) -> dict[str, Any]:
        """What the engine's manifest records."""
        names = ("images", "top1", "macro_f1", "ece", "unknown_rate")
        gate = {"verdict": "reference"} if self.gate is None else asdict(self.gate)
        return {**{name: self.metrics[name] for name in names}, "temperature": self.decision.temperature, "gate": gate}


def evaluate_engine(
    bundle: Bundle, network: Network, *, name: str, arithmetic: str, decoder: str, reference: Engine | None
) -> Evaluation:
    """Fit the decision on the validation split, evaluate on the test split, and compare with `reference` (FP32).

    `network` runs `FP32 [n <= serving.max_batch_size, 3, H, W]` as it will be served; `name` says which in progress
    bars.

    Raises:
        CompileError: logits that are not finite.
        DataError: an image of the data set is gone or changed, or no threshold keeps what `decision.unknown` promises.
    """
    validation = run_split(bundle, network, "validation", decoder=decoder, what=f"validation split, {name}")
    broken = int((~np.isfinite(validation.logits_nc).all(axis=1)).sum())
    if broken:
        raise CompileError(
            f"{name}: logits of {broken} of {len(validation.images)} validation images are not finite; this network "
            "does not hold in that precision, so take another"
        )
    temperature = fit_temperature(validation.logits_nc, validation.truth_n)
    decision = refit(
        bundle.decision.model_copy(update={"temperature": temperature}),
        bundle.spec.decision.unknown,
        logits_nc=validation.logits_nc,
        embedding_nd=validation.embedding_nd,
        truth_n=validation.truth_n,
    )
    test = run_split(bundle, network, "test", decoder=decoder, what=f"test split, {name}")
    answers = _answer(test, decision, bundle.labels)
    rows = _rows(test, answers, bundle.labels)
    metrics = {
        "split": "test",
        "arithmetic": arithmetic,
        "decoder": decoder,
        **evaluate(answers.probability_nc, test.truth_n, bundle.labels),
        "unknown_rate": float((answers.label_nk[:, 0] == UNKNOWN).mean()),
    }
    gate = None
    if reference is not None:
        before = read_rows(reference.path)
        gate = compare(
            test.truth_n,
            _class_ids(before, bundle.labels),
            _class_ids(rows, bundle.labels),
            bundle.labels,
            bundle.spec.accuracy,
        )
        metrics |= {"gate": asdict(gate), "flips": _flips(before, rows)}
    return Evaluation(decision, metrics, rows, gate)


def run_split(bundle: Bundle, network: Network, split: Split, *, what: str, decoder: str = "cpu") -> Predictions:
    """Logits and embeddings of a split of the bundle's data set, by the serving preprocess with `decoder`."""
    dataset = Dataset.read(bundle.path / DATASET)
    return predict(
        network,
        dataset,
        dataset.of(split),
        preprocess=bundle.preprocess.model_copy(update={"decoder": decoder}),
        batch_size=bundle.spec.serving.max_batch_size,
        what=what,
    )


def read_rows(engine: Path) -> list[Row]:
    """`predictions.csv` of an engine folder."""
    with (engine / PREDICTIONS).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _answer(test: Predictions, decision: Decision, labels: tuple[str, ...]) -> Answers:
    status_n = np.zeros(len(test.images), np.int32)
    return Postprocessor(decision.model_dump(), labels).run(test.logits_nc, status_n, test.embedding_nd)


def _rows(test: Predictions, answers: Answers, labels: tuple[str, ...]) -> list[Row]:
    best = zip(test.images, answers.label_nk[:, 0], answers.score_nk[:, 0].tolist(), strict=True)
    return [
        {"image": image.path, "truth": labels[image.class_id], "label": label.decode(), "score": repr(score)}
        for image, label, score in best
    ]


def _class_ids(rows: list[Row], labels: tuple[str, ...]) -> ClassIds:
    class_ids = {label: class_id for class_id, label in enumerate(labels)}
    return np.array([class_ids.get(row["label"], -1) for row in rows], np.int64)


def _flips(before: list[Row], after: list[Row]) -> list[Row]:
    return [
        {
            "image": new["image"],
            "truth": new["truth"],
            "fp32": old["label"],
            "fp32_score": old["score"],
            "label": new["label"],
            "score": new["score"],
        }
        for old, new in zip(before, after, strict=True)
        if old["label"] != new["label"]
    ]
