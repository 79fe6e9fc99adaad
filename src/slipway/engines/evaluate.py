"""Evaluates an engine: both splits through the serving steps, its own decision, and the gate against FP32."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slipway.contract import Bundle, BundleEngine, CompileError, Decision
from slipway.contract.base_bundle import Owner
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset, Split
from slipway.contract.evidence.build import BatchLatency, EngineJudged
from slipway.contract.evidence.evaluation import (
    EVALUATION,
    AnyEngineEvaluation,
    Conditions,
    EngineEvaluation,
    LabelEngineEvaluation,
)
from slipway.contract.evidence.gate import FAIL, PASS, REFERENCE, TOO_FEW, Ungated
from slipway.engines.predictions_csv import Row, flips, gate_rows, make_rows, read_rows, write_rows
from slipway.evaluation.fit_decision import answer, given, refit_decision
from slipway.evaluation.labels import evaluate_labels
from slipway.evaluation.metrics import evaluate
from slipway.evaluation.predict import Float, Pixels, Predictions, ServedNetwork, predict_served
from slipway.steps.postprocess import UNKNOWN, Answers

WARM_UP, RUNS = 5, 40


@dataclass(frozen=True)
class Evaluated:
    """Results of one engine on the whole test split."""

    decision: Decision
    """The bundle's decision, fitted again to this engine's outputs on the validation split."""
    evaluation: AnyEngineEvaluation
    rows: list[Row]

    @property
    def severity(self) -> int:
        """Rank of the gate's verdict, the worst one the highest."""
        gate = self.evaluation.gate
        return 0 if gate is None else (PASS, TOO_FEW, FAIL).index(gate.verdict)

    @property
    def judged(self) -> EngineJudged:
        given = {"temperature": self.decision.temperature, "gate": self.evaluation.gate or Ungated(verdict=REFERENCE)}
        return EngineJudged(**self.evaluation.fields(EngineJudged) | given)

    def write(self, folder: Path) -> None:
        """Write `decision.json`, `evaluation.json` and, with a client's labels and scores, `predictions.csv`."""
        self.decision.write(folder / "decision.json")
        self.evaluation.write(folder / EVALUATION)
        write_rows(self.rows, folder)


def evaluate_engine(
    bundle: Bundle,
    network: ServedNetwork,
    *,
    name: str,
    arithmetic: str,
    decoder: str,
    reference: BundleEngine | None,
    single_image_profile: bool = False,
) -> Evaluated:
    """Fit the decision on the validation split, evaluate on the test split, and compare with `reference` (FP32).

    `network` runs `UINT8 [n <= serving.max_batch_size, H, W, 3]` as it will be served; `name` is shown in
    progress bars. With `single_image_profile`, `network` computes a single image by kernels of their own: the test
    split is evaluated once more, image by image, and the worse verdict counts.

    Raises:
        CompileError: logits are not finite.
        DataError: an image of the data set is missing or changed, or no threshold reaches the spec's target.
    """
    validation = run_split(bundle, network, "validation", decoder=decoder, what=f"validation split, {name}")
    _require_finite(validation, "validation", name)
    decision = refit_decision(bundle.decision, bundle.spec.decision, validation, bundle.labels)
    test = run_split(bundle, network, "test", decoder=decoder, what=f"test split, {name}")
    alone = None
    if single_image_profile:
        what = f"test split image by image, {name}"
        alone = run_split(bundle, image_by_image(network), "test", decoder=decoder, what=what)
        _require_finite(alone, "test", name)
    conditions = Conditions(arithmetic=arithmetic, decoder=decoder)
    return worse_profile(bundle, decision, test, reference, conditions, alone=alone)


def _require_finite(found: Predictions, split: Split, name: str) -> None:
    broken = int((~np.isfinite(found.logits_nc).all(axis=1)).sum())
    if broken:
        raise CompileError(
            f"{name}: logits of {broken} of {len(found.images)} {split} images are not finite; this precision "
            "does not suit the network, so use another"
        )


def image_by_image(network: ServedNetwork) -> ServedNetwork:
    """`network`, given one image after the other."""

    def run(pixels_nhwc_u8: Pixels) -> tuple[Float, Float]:
        answers = [network(pixels_nhwc_u8[index : index + 1]) for index in range(len(pixels_nhwc_u8))]
        logits, embeddings = zip(*answers, strict=True)
        return np.concatenate(logits), np.concatenate(embeddings)

    return run


def worse_profile(
    bundle: Bundle,
    decision: Decision,
    test: Predictions,
    reference: BundleEngine | None,
    conditions: Conditions,
    *,
    alone: Predictions | None,
) -> Evaluated:
    """Compare as `compared` does. If the engine computes single images in another way, with the outputs `alone`, return
    the worse of both results."""
    if alone is None:
        return compared(bundle, decision, test, reference, conditions)
    ways = {"batches": test, "single images": alone}
    both = [
        compared(bundle, decision, ways[way], reference, conditions.model_copy(update={"profile": way})) for way in ways
    ]
    return max(both, key=lambda evaluated: evaluated.severity)


def compared(
    bundle: Bundle, decision: Decision, test: Predictions, reference: BundleEngine | None, conditions: Conditions
) -> Evaluated:
    """Evaluate `decision` on an engine's outputs for the test split, and compare with `reference` (FP32)."""
    answers = answer(decision, test, bundle.labels)
    rows = make_rows(test, answers, bundle.labels, task=decision.task)
    evaluation = _evaluation(decision, test, answers, bundle.labels, conditions)
    if reference is not None:
        before = read_rows(reference.path)
        flipped = flips(before, rows, task=decision.task)
        evaluation = evaluation.model_copy(update={"gate": gate_rows(before, rows, bundle), "flips": flipped})
    return Evaluated(decision, evaluation, rows)


def _evaluation(
    decision: Decision, test: Predictions, answers: Answers, labels: tuple[str, ...], conditions: Conditions
) -> AnyEngineEvaluation:
    if decision.task == "multilabel":
        given_nc = given(answers, classes=len(labels))
        metrics = evaluate_labels(answers.probability_nc, given_nc, test.truth_nc, labels)
        return LabelEngineEvaluation(split="test", **metrics.fields(), **conditions.fields())
    unknown_rate = float((answers.label_nk[:, 0] == UNKNOWN).mean())
    found = evaluate(answers.probability_nc, test.truth_n, labels)
    return EngineEvaluation(split="test", **found.fields(), unknown_rate=unknown_rate, **conditions.fields())


def run_split(owner: Owner[Any], network: ServedNetwork, split: Split, *, what: str, decoder: str) -> Predictions:
    """Logits and embeddings of one split of a bundle's or base's data set, by the serving preprocess with `decoder`."""
    dataset = Dataset.read(owner.path / DATASET)
    return predict_served(
        network,
        dataset,
        dataset.of(split),
        preprocess=owner.preprocess.model_copy(update={"decoder": decoder}),
        batch_size=owner.spec.serving.common_batch_size,
        what=what,
    )


def time_batches(network: ServedNetwork, bundle: Owner[Any], *, batch_sizes: Iterable[int]) -> dict[int, BatchLatency]:
    """Milliseconds of one call for each batch size, on random pixels.

    They only accompany the accuracy; `choose` compares precisions, interleaved and end to end.
    """
    rng = np.random.default_rng(0)
    result = {}
    for size in sorted(batch_sizes):
        pixels_nhwc_u8 = rng.integers(0, 256, (size, *bundle.preprocess.input_size, 3), np.uint8)
        times_ms = []
        for _ in range(WARM_UP + RUNS):
            started = time.perf_counter()
            network(pixels_nhwc_u8)
            times_ms.append(1000 * (time.perf_counter() - started))
        p50_ms, p90_ms = np.percentile(times_ms[WARM_UP:], [50, 90])
        result[size] = BatchLatency(p50_ms=float(p50_ms), p90_ms=float(p90_ms))
    return result
