"""A checkpoint to a bundle: the graph, what surrounds it, and what it is worth."""

import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from slipway.contract import DataError, Decision, ExportError, Manifest, ManifestError, Spec, bundle_id, write_labels
from slipway.contract.bundle import CalibrationImage, CalibrationList
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.files import complete_folder, sha256_file
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.spec import Calibration
from slipway.evaluation.confidence import fit_temperature
from slipway.evaluation.metrics import evaluate
from slipway.evaluation.plots import plot_confusion
from slipway.evaluation.predict import Float, Predictions, predict
from slipway.steps.engine_openvino import Engine
from slipway.steps.postprocess import Postprocessor
from slipway.training.network import Network
from slipway.training.to_onnx import write_onnx

MAX_LOGIT_DIFFERENCE = 1e-2  # FP32 in another order of summation; a wrong graph is off by far more
LIBRARIES = ("torch", "timm", "onnx", "onnxscript", "openvino", "nvidia-dali-cuda130", "scikit-learn")


def export(checkpoint: Path, out: Path) -> Manifest:
    """Write the bundle of `checkpoint` to `out`, whole or not at all.

    Raises:
        ManifestError: the checkpoint was changed.
        ExportError: ONNX and torch disagree on the test split.
        DataError: too few images for the calibration sample that the spec asks for.
    """
    Manifest.open(checkpoint, kind="checkpoint")
    spec, dataset = Spec.read(checkpoint / "spec.json"), Dataset.read(checkpoint / DATASET)
    network = Network(spec.backbone, classes=len(dataset.labels), pretrained=False)
    network.load_state_dict(_load_weights(checkpoint / "model.safetensors"))
    network.eval()
    with complete_folder(out) as staging:
        input_shape = (3, spec.preprocess.input_height, spec.preprocess.input_width)
        write_onnx(network, staging / "model.onnx", input_shape=input_shape)
        engine = Engine(staging / "model.onnx", arithmetic="f32", threads=spec.serving.threads)
        options: dict[str, Any] = {"preprocess": spec.preprocess, "batch_size": spec.serving.max_batch_size}
        test = predict(engine.run, dataset, dataset.of("test"), what="test split, ONNX", **options)
        reference = predict(_as_function(network), dataset, dataset.of("test"), what="test split, torch", **options)
        difference = _compare(test, reference)
        validation = predict(engine.run, dataset, dataset.of("validation"), what="validation split", **options)
        decision = _decide(spec, validation)
        evaluation = _evaluate(test, decision, dataset.labels)
        spec.write(staging / "spec.json")
        dataset.write(staging / DATASET)
        spec.preprocess.write(staging / "preprocess.json")
        decision.write(staging / "decision.json")
        write_labels(dataset.labels, staging / "labels.txt")
        _write_calibration(staging, dataset, spec.calibration)
        (staging / "evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n", encoding="utf-8")
        plot_confusion(np.array(evaluation["confusion"]), dataset.labels, staging / "confusion_matrix.png")
        return Manifest.seal(
            staging,
            kind="bundle",
            name=spec.name,
            bundle=bundle_id(staging),
            inputs={"checkpoint": sha256_file(checkpoint / MANIFEST)},
            libraries=LIBRARIES,
            seed=spec.calibration.seed,
            measured={
                "max_logit_difference": difference,
                "temperature": decision.temperature,
                **{name: evaluation[name] for name in ("images", "top1", "macro_f1", "ece", "ece_uncalibrated")},
            },
        )


def _load_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise ManifestError(f"{path}: not a safetensors file: {error}; train again") from None
    return weights


def _as_function(network: Network) -> Any:
    def run(pixels_nchw: Float) -> tuple[Float, Float]:
        with torch.inference_mode():
            logits_nc, embedding_nd = network(torch.from_numpy(pixels_nchw))
        return logits_nc.numpy(), embedding_nd.numpy()

    return run


def _compare(onnx: Predictions, reference: Predictions) -> float:
    """The largest logit difference between ONNX and torch, when every label is the same."""
    difference = float(np.abs(onnx.logits_nc - reference.logits_nc).max())
    flipped = np.flatnonzero(onnx.logits_nc.argmax(axis=1) != reference.logits_nc.argmax(axis=1))
    if len(flipped) or not difference <= MAX_LOGIT_DIFFERENCE:  # NaN is not within it
        names = ", ".join(onnx.images[row].path for row in flipped[:5])
        raise ExportError(
            f"ONNX and torch disagree on the test split: {len(flipped)} labels differ ({names}), logits by up to "
            f"{difference:.2g} (allowed: 0 labels, {MAX_LOGIT_DIFFERENCE:g}); this backbone does not export faithfully"
        )
    return difference


def _decide(spec: Spec, validation: Predictions) -> Decision:
    policy = spec.decision
    return Decision.parse(
        {
            "task": spec.task,
            "top_k": policy.top_k,
            "temperature": fit_temperature(validation.logits_nc, validation.truth_n),
            "unknown": None if policy.unknown_threshold is None else {"threshold": policy.unknown_threshold},
        },
        source="decision.json",
    )


def _evaluate(test: Predictions, decision: Decision, labels: tuple[str, ...]) -> dict[str, Any]:
    """The test split as served, in FP32 by OpenVINO; `ece_uncalibrated` is the same at temperature 1."""
    status_n = np.zeros(len(test.images), np.int32)
    raw = Postprocessor({**decision.model_dump(), "temperature": 1.0}, labels).run(test.logits_nc, status_n)
    answers = Postprocessor(decision.model_dump(), labels).run(test.logits_nc, status_n)
    uncalibrated = evaluate(raw.probability_nc, test.truth_n, labels)["ece"]
    return {
        "split": "test",
        "arithmetic": "f32",
        "ece_uncalibrated": uncalibrated,
        **evaluate(answers.probability_nc, test.truth_n, labels),
    }


def _write_calibration(bundle: Path, dataset: Dataset, calibration: Calibration) -> None:
    """Copy a seeded, stratified sample of the train split; its list is part of the bundle's id."""
    images: list[CalibrationImage] = []
    (bundle / "calibration").mkdir()
    for image in sample(dataset.of("train"), calibration):
        suffix = Path(image.path).suffix.lower()
        name = f"{len(images):05d}{suffix if re.fullmatch(r'[.][0-9a-z]+', suffix) else '.image'}"
        (bundle / "calibration" / name).write_bytes(dataset.load(image))
        images.append(CalibrationImage(file=name, class_id=image.class_id, sha256=image.sha256))
    CalibrationList(images=tuple(images)).write(bundle / "calibration.json")


def sample(train: list[LabelledImage], calibration: Calibration) -> list[LabelledImage]:
    """`calibration.images` of `train`, drawn with the seed, in the classes' proportions.

    Raises:
        DataError: there are fewer.
    """
    if len(train) < calibration.images:
        raise DataError(
            f"calibration.images: {calibration.images} asked for, and the train split has {len(train)}; add images, or "
            "write a smaller number into the spec"
        )
    rng = np.random.default_rng(calibration.seed)
    drawn: list[LabelledImage] = []
    by_class = groupby(sorted(train, key=lambda image: (image.class_id, image.path)), key=lambda image: image.class_id)
    seen = 0
    for _, group in by_class:
        images = list(group)
        seen += len(images)
        # Cumulative rounding: every class gets its share to within one image, and the total is exact.
        share = round(seen * calibration.images / len(train)) - len(drawn)
        drawn += [images[i] for i in rng.permutation(len(images))[:share]]
    return sorted(drawn, key=lambda image: image.path)
