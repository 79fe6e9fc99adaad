"""A graph to an OpenVINO engine of the cpu lane, evaluated on the whole test split and gated against FP32."""

import csv
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.contract import Bundle, Engine, EngineSettings, Manifest
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.files import complete_folder, sha256_file
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.spec import Precision
from slipway.engines.gate import GateResult, compare
from slipway.evaluation.metrics import evaluate
from slipway.evaluation.predict import Predictions, predict
from slipway.onnx_graph import output_sizes
from slipway.steps import engine_openvino
from slipway.steps.postprocess import Postprocessor

ARITHMETIC = "f32"  # pinned: OpenVINO would choose BF16 by itself where the processor has it
LIBRARIES = ("openvino", "onnx", "nvidia-dali-cuda130", "scipy", "scikit-learn")
PREDICTIONS = "predictions.csv"
Row = dict[str, str]


def build_engine(
    bundle: Bundle, graph: Path, out: Path, *, precision: Precision, reference: Engine | None
) -> tuple[Engine, GateResult | None]:
    """Write the engine folder `out` for the ONNX file `graph`, with its evaluation, whatever the verdict.

    `reference` is the FP32 engine that the gate compares with; None for that engine itself.

    Raises:
        DataError: an image of the test split is gone or changed.
    """
    with complete_folder(out) as staging:
        shutil.copyfile(graph, staging / "model.onnx")
        sizes = output_sizes(graph)
        EngineSettings(
            target="openvino",
            precision=precision,
            arithmetic=ARITHMETIC,
            classes=sizes["logits_nc"],
            embedding_size=sizes["embedding_nd"],
        ).write(staging / "engine.json")
        test = _run_test_split(bundle, graph, what=f"test split, {precision}")
        evaluation, rows = _evaluate(bundle, test)
        gate = None
        if reference is not None:
            before = _read_rows(reference.path / PREDICTIONS)
            gate = compare(_correct(before), _correct(rows), bundle.spec.accuracy)
            evaluation["gate"] = asdict(gate)
            evaluation["flips"] = [
                {"image": new["image"], "truth": new["truth"], "fp32": old["label"], precision: new["label"]}
                for old, new in zip(before, rows, strict=True)
                if old["label"] != new["label"]
            ]
        (staging / "evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n", encoding="utf-8")
        _write_rows(staging / PREDICTIONS, rows)
        Manifest.seal(
            staging,
            kind="engine",
            name=bundle.spec.name,
            bundle=bundle.id,
            inputs={"bundle": sha256_file(bundle.path / MANIFEST), "graph": sha256_file(graph)},
            libraries=LIBRARIES,
            measured={
                **{name: evaluation[name] for name in ("images", "top1", "macro_f1", "ece")},
                "gate": {"verdict": "reference"} if gate is None else asdict(gate),
            },
        )
    return Engine.open(out, bundle_id=bundle.id), gate


def _run_test_split(bundle: Bundle, graph: Path, *, what: str) -> Predictions:
    """The whole test split as it will be served: same preprocess, arithmetic and threads."""
    dataset, serving = Dataset.read(bundle.path / DATASET), bundle.spec.serving
    return predict(
        engine_openvino.Engine(graph, arithmetic=ARITHMETIC, threads=serving.threads).run,
        dataset,
        dataset.of("test"),
        preprocess=bundle.preprocess,
        batch_size=serving.max_batch_size,
        what=what,
    )


def _evaluate(bundle: Bundle, test: Predictions) -> tuple[dict[str, Any], list[Row]]:
    """Metrics, and one row an image: the label and the score that a client gets."""
    status_n = np.zeros(len(test.images), np.int32)
    answers = Postprocessor(bundle.decision.model_dump(), bundle.labels).run(test.logits_nc, status_n)
    best = zip(test.images, answers.label_nk[:, 0], answers.score_nk[:, 0].tolist(), strict=True)
    rows = [
        {"image": image.path, "truth": bundle.labels[image.class_id], "label": label.decode(), "score": repr(score)}
        for image, label, score in best
    ]
    metrics = evaluate(answers.probability_nc, test.truth_n, bundle.labels)
    return {"split": "test", "arithmetic": ARITHMETIC, **metrics}, rows


def _correct(rows: list[Row]) -> npt.NDArray[np.bool_]:
    return np.array([row["label"] == row["truth"] for row in rows])


def _write_rows(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _read_rows(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
