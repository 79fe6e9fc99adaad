"""Writes a bundle folder: around a graph, for export and import, or around a head."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slipway.contract import ExportError, Manifest, Spec, bundle_id, write_labels
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.decision import Task
from slipway.contract.evidence.build import BundleMeasured, NetworkOrigin
from slipway.contract.evidence.evaluation import EVALUATION, AnyBundleEvaluation
from slipway.contract.preprocess import PIXEL_LIBRARIES
from slipway.evaluation.bundle import evaluate_bundle, evaluate_label_bundle
from slipway.evaluation.fit_decision import Outputs, fit_decision
from slipway.evaluation.predict import Forward, Predictions, predict
from slipway.evaluation.unknown import foreign_network
from slipway.steps.engine_openvino import Engine
from slipway.system.files import complete_folder
from slipway.training.bundle.calibration import write_calibration
from slipway.training.data.dataset import check_coverage
from slipway.training.data.sources import read_from

MAX_LOGIT_DIFFERENCE = 1e-2
"""Largest allowed difference of logits. FP32 sums in another order differ less, a wrong graph far more. For embeddings
it is relative to the largest value."""
MAX_SHARE_OF_SPREAD, ROUNDING = 0.1, 1e-4
"""Logits that vary little between images are compared more closely: a graph that gives every image their mean would
pass an absolute limit. FP32 cannot be more exact than its rounding, relative to the largest logit."""


class Fault(NamedTuple):
    """Words for outputs that should be the same and are not."""

    who: str
    so: str


EXPORT = Fault("ONNX and torch", "this backbone does not export faithfully")
IMAGES_A_CLASS = 50
"""Most training images whose embeddings are averaged into a class mean."""
LIBRARIES = ("openvino", "scikit-learn")


def write_bundle(
    out: Path,
    *,
    spec: Spec,
    dataset: Dataset,
    write_graph: Callable[[Path], None],
    reference: Forward | None,
    inputs: Mapping[str, str],
    libraries: Sequence[str],
    origin: NetworkOrigin,
) -> Manifest:
    """Write the bundle `out`, whole or not at all.

    Args:
        write_graph: writes the FP32 graph to the given path.
        reference: the network the graph was made from, to compare it with on the test split.
        inputs: the sha256 of each file the network was read from, by name.
        libraries: the distributions that made the graph; their versions are recorded.
        origin: where the network comes from, for the manifest.

    Raises:
        ExportError: the graph and `reference` disagree on the test split, or the graph's answers are not finite.
        DataError: too few images for the calibration sample or the `unknown` that the spec asks for, or an image that
            serving would refuse.
    """
    check_coverage(spec.decision.unknown, images=len(dataset.of("validation")))

    def run(network: Forward, images: Sequence[LabelledImage], what: str) -> Predictions:
        size = spec.serving.max_batch_size
        return predict(network, dataset, images, preprocess=spec.preprocess, batch_size=size, what=what)

    with complete_folder(out, kind="bundle", inputs=read_from(spec.data, out=out)) as staging:
        describe(staging, spec=spec, dataset=dataset)
        write_calibration(staging, dataset, spec.calibration, task=spec.task)
        write_graph(staging / "model.onnx")
        network = Engine(staging / "model.onnx", arithmetic="f32", threads=spec.serving.threads).run
        test = run(network, dataset.of("test"), "test split, ONNX")
        if reference is not None:
            torch = run(reference, dataset.of("test"), "test split, torch")
            difference = compare_outputs(test, torch, task=spec.task)
            origin = origin.model_copy(update={"max_logit_difference": difference})
        validation = run(network, dataset.of("validation"), "validation split")
        for predictions in (test, validation):
            check_finite(predictions)
        outputs = Outputs(
            validation=validation,
            test=test,
            train=lambda: run(network, some_of_each_class(dataset), "train split, class means"),
            foreign=lambda kind: run(foreign_network(network, kind), validation.images, f"validation split, {kind}"),
        )
        return decide_and_seal(
            staging,
            outputs,
            spec=spec,
            dataset=dataset,
            inputs=inputs,
            libraries=("onnx", *libraries),
            seed=spec.calibration.seed,
            origin=origin,
        )


def some_of_each_class(dataset: Dataset) -> list[LabelledImage]:
    """Draw up to `IMAGES_A_CLASS` training images of each class with the seed."""
    images, taken, chosen = dataset.of("train"), Counter[int](), []
    for row in np.random.default_rng(0).permutation(len(images)):
        image = images[row]
        if taken[image.class_id] < IMAGES_A_CLASS:
            taken[image.class_id] += 1
            chosen.append(image)
    return chosen


def describe(staging: Path, *, spec: Spec, dataset: Dataset) -> None:
    """Write what a bundle says without a network: spec, data set, preprocess and labels."""
    spec.write(staging / "spec.json")
    dataset.write(staging / DATASET)
    spec.preprocess.write(staging / "preprocess.json")
    write_labels(dataset.labels, staging / "labels.txt")


def decide_and_seal(
    staging: Path,
    outputs: Outputs,
    *,
    spec: Spec,
    dataset: Dataset,
    inputs: Mapping[str, str],
    libraries: Sequence[str],
    seed: int,
    origin: NetworkOrigin,
) -> Manifest:
    """Fit the decision to `outputs`, evaluate it, and seal the bundle, whose other files are in `staging`.

    Args:
        inputs, libraries, origin: as for `write_bundle`.
        seed: for the manifest.
    """
    decision, unknown = fit_decision(spec, outputs, labels=dataset.labels)
    decision.write(staging / "decision.json")
    if spec.task == "multilabel":
        evaluation: AnyBundleEvaluation = evaluate_label_bundle(decision, outputs.test, dataset.labels)
    else:
        evaluation = evaluate_bundle(decision, outputs.validation, outputs.test, dataset.labels, unknown=unknown)
    evaluation.write(staging / EVALUATION)
    return Manifest.seal(
        staging,
        kind="bundle",
        name=spec.name,
        bundle=bundle_id(staging),
        inputs=inputs,
        libraries=(*LIBRARIES, *PIXEL_LIBRARIES[spec.preprocess.decoder], *libraries),
        seed=seed,
        measured=BundleMeasured.of(
            evaluation,
            **origin.fields(),
            temperature=decision.temperature,
            embedding_size=outputs.test.embedding_nd.shape[1],
            classes_without_images=len(dataset.labels) - len({c for i in dataset.images for c in i.class_ids}),
        ),
    )


def compare_outputs(
    found: Predictions, reference: Predictions, *, task: Task = "multiclass", fault: Fault = EXPORT
) -> float:
    """Return the largest logit difference between ONNX and torch, once the best label of each image agrees.

    Multi-label answers depend on thresholds that are not fitted yet, so for them only the logits are compared.

    Args:
        fault: who disagrees in the message, and what follows.

    Raises:
        ExportError: labels, logits or embeddings differ.
    """
    difference = float(np.abs(found.logits_nc - reference.logits_nc).max())
    spread, largest = float(reference.logits_nc.std(axis=0).max()), float(np.abs(reference.logits_nc).max())
    allowed = min(MAX_LOGIT_DIFFERENCE, max(MAX_SHARE_OF_SPREAD * spread, ROUNDING * largest))
    best_n, other_n = found.logits_nc.argmax(axis=1), reference.logits_nc.argmax(axis=1)
    flipped = np.flatnonzero((best_n != other_n) & (task == "multiclass"))
    if len(flipped) or not difference <= allowed:  # also catches NaN
        names = f" ({', '.join(found.images[row].path for row in flipped[:5])})" if len(flipped) else ""
        raise ExportError(
            f"{fault.who} disagree on the test split: {len(flipped)} labels differ{names}, logits by up to "
            f"{difference:.2g} (allowed: 0 labels, {allowed:.2g}); {fault.so}"
        )
    compare_embeddings(found, reference, fault=fault)
    return difference


def compare_embeddings(found: Predictions, reference: Predictions, *, fault: Fault = EXPORT) -> float:
    """Return the largest difference of ONNX's and torch's embeddings; raises ExportError where they disagree."""
    apart = float(np.abs(found.embedding_nd - reference.embedding_nd).max())
    allowed = MAX_LOGIT_DIFFERENCE * float(np.abs(reference.embedding_nd).max())
    if not apart <= allowed:
        raise ExportError(
            f"{fault.who} disagree on the test split: embeddings by up to {apart:.2g} "
            f"(allowed: {allowed:.2g}); {fault.so}"
        )
    return apart


def check_finite(predictions: Predictions) -> None:
    """Raises ExportError: a logit or an embedding is NaN or infinity; names the images."""
    finite_n = np.isfinite(predictions.logits_nc).all(axis=1) & np.isfinite(predictions.embedding_nd).all(axis=1)
    if not finite_n.all():
        rows = np.flatnonzero(~finite_n)
        names = ", ".join(predictions.images[row].path for row in rows[:5])
        raise ExportError(
            f"the network answers NaN or infinity for {len(rows)} of {len(finite_n)} images ({names}); check its "
            "weights, preprocess.mean and preprocess.std"
        )
