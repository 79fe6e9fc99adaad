"""Evaluates an engine: both splits through the serving steps, its own decision, and the gate against FP32."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slipway.contract import Bundle, CompileError, Decision, Engine
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset, Split
from slipway.contract.evidence.evaluation import (
    EVALUATION,
    AnyEngineEvaluation,
    EngineEvaluation,
    LabelEngineEvaluation,
)
from slipway.engines.rows import Row, flips, gate_rows, make_rows, read_rows, write_rows
from slipway.evaluation.fit import answer, refit_decision
from slipway.evaluation.label_bundle import given
from slipway.evaluation.labels import evaluate_labels
from slipway.evaluation.metrics import evaluate
from slipway.evaluation.predict import Network, Predictions, predict
from slipway.steps.postprocess import UNKNOWN, Answers


@dataclass(frozen=True)
class Evaluated:
    """Results of one engine on the whole test split."""

    decision: Decision
    """The bundle's decision, fitted again to this engine's outputs on the validation split."""
    evaluation: AnyEngineEvaluation
    rows: list[Row]

    def write(self, folder: Path) -> None:
        """Write `decision.json`, `evaluation.json` and, with a client's labels and scores, `predictions.csv`."""
        self.decision.write(folder / "decision.json")
        self.evaluation.write(folder / EVALUATION)
        write_rows(self.rows, folder)


def evaluate_engine(
    bundle: Bundle, network: Network, *, name: str, arithmetic: str, decoder: str, reference: Engine | None
) -> Evaluated:
    """Fit the decision on the validation split, evaluate on the test split, and compare with `reference` (FP32).

    `network` runs `FP32 [n <= serving.max_batch_size, 3, H, W]` as it will be served; `name` is shown in
    progress bars.

    Raises:
        CompileError: logits are not finite.
        DataError: an image of the data set is missing or changed, or no threshold reaches the spec's target.
    """
    validation = run_split(bundle, network, "validation", decoder=decoder, what=f"validation split, {name}")
    broken = int((~np.isfinite(validation.logits_nc).all(axis=1)).sum())
    if broken:
        raise CompileError(
            f"{name}: logits of {broken} of {len(validation.images)} validation images are not finite; this precision "
            "does not suit the network, so use another"
        )
    decision = refit_decision(bundle.decision, bundle.spec.decision, validation, bundle.labels)
    test = run_split(bundle, network, "test", decoder=decoder, what=f"test split, {name}")
    answers = answer(decision, test, bundle.labels)
    rows = make_rows(test, answers, bundle.labels, task=decision.task)
    measured: dict[str, Any] = {"split": "test", "arithmetic": arithmetic, "decoder": decoder}
    if reference is not None:
        before = read_rows(reference.path)
        flipped = flips(before, rows, task=decision.task)
        measured |= {"gate": gate_rows(before, rows, bundle), "flips": flipped}
    return Evaluated(decision, _evaluation(decision, test, answers, bundle.labels, measured), rows)


def _evaluation(
    decision: Decision, test: Predictions, answers: Answers, labels: tuple[str, ...], measured: dict[str, Any]
) -> AnyEngineEvaluation:
    if decision.task == "multilabel":
        given_nc = given(answers, classes=len(labels))
        metrics = evaluate_labels(answers.probability_nc, given_nc, test.truth_nc, labels)
        return LabelEngineEvaluation(**metrics.fields(), **measured)
    unknown_rate = float((answers.label_nk[:, 0] == UNKNOWN).mean())
    found = evaluate(answers.probability_nc, test.truth_n, labels)
    return EngineEvaluation(**found.fields(), unknown_rate=unknown_rate, **measured)


def run_split(bundle: Bundle, network: Network, split: Split, *, what: str, decoder: str = "cpu") -> Predictions:
    """Logits and embeddings of one split of the bundle's data set, by the serving preprocess with `decoder`."""
    dataset, serving = Dataset.read(bundle.path / DATASET), bundle.spec.serving
    return predict(
        network,
        dataset,
        dataset.of(split),
        preprocess=bundle.preprocess.model_copy(update={"decoder": decoder}),
        batch_size=min(serving.max_batch_size, serving.gpu.max_batch_size),  # every engine takes that
        what=what,
    )
