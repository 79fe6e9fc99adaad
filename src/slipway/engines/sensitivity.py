"""The search for layers to keep in FP16 when plain INT8 loses too much on the validation split."""

import tempfile
from collections.abc import Collection, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from tqdm import tqdm

from slipway.contract import Bundle, DataError, QuantizeError
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.evidence.build import Sensitivity, SensitivitySearch, Step, Validation
from slipway.contract.evidence.gate import FAIL
from slipway.engines.graph_checks import DEQUANTIZE, QUANTIZE, quantised_layers
from slipway.evaluation.calibration_pixels import BATCH, CalibrationSample
from slipway.evaluation.fit_decision import answer, fit_labels, given
from slipway.evaluation.gate import compare_answers
from slipway.evaluation.labels import truth_of
from slipway.evaluation.predict import Float, predict
from slipway.onnx_graph import producers, save
from slipway.steps.engine_openvino import Engine


class SearchFailedError(QuantizeError):
    """No graph was accepted; `path` has every step."""

    def __init__(self, message: str, path: SensitivitySearch) -> None:
        super().__init__(message)
        self.path = path


def search(
    bundle: Bundle, int8: onnx.ModelProto, sample: CalibrationSample
) -> tuple[onnx.ModelProto, SensitivitySearch]:
    """Plain INT8 if validation accepts it, else with as few of the 1, 2, 4, … worst layers in FP16 as it accepts.

    A graph is accepted if the loss and the flips measured on the validation split are within their limits, and the
    gate does not fail it there. The test split is never used. A layer's Q/DQ nodes are simply removed: its weights are
    stored unquantised, so nothing is calibrated again.
    Source: partial quantisation as in Wu et al., "Integer Quantization for Deep Learning Inference: Principles and
    Empirical Evaluation", 2020, with the error of the logits instead of accuracy.

    Raises:
        SearchFailedError: the spec's steps are used up, or nothing would be left in INT8.
        DataError: an image of the validation split is missing or changed.
    """
    limits, accuracy = bundle.spec.sensitive_layers, bundle.spec.accuracy
    judge = _Judge(bundle)

    def found(steps: Sequence[Step], ranking: Sequence[Sensitivity]) -> SensitivitySearch:
        return SensitivitySearch(
            max_loss_points=accuracy.max_loss_points,
            max_steps=limits.max_steps,
            steps=tuple(steps),
            ranking=tuple(ranking),
            ranking_images=min(limits.images, len(sample)) if ranking else 0,
        )

    steps, ranking = [judge.step(int8, kept=())], []
    graph = int8
    if not steps[-1].accepted and limits.max_steps:
        ranking = rank(int8, sample, images=limits.images, threads=bundle.spec.serving.threads)
    while not steps[-1].accepted:
        kept = tuple(entry.layer for entry in ranking[: 2 ** (len(steps) - 1)])
        graph = keep_in_fp16(int8, kept)
        if len(steps) > limits.max_steps or not quantised_layers(graph, "int8"):
            raise SearchFailedError(_spent(steps, bundle), found(steps, ranking))
        steps.append(judge.step(graph, kept=kept))
    return graph, found(steps, ranking)


def rank(int8: onnx.ModelProto, sample: CalibrationSample, *, images: int, threads: int) -> list[Sensitivity]:
    """Every quantised node by how far it alone moves the logits of calibration images, worst first."""
    pixels_nchw = sample.stacked(images=images, what="images of the ranking")
    nodes = quantised_nodes(int8)
    names = {node.name for node in nodes}
    exact_nc = _logits(keep_in_fp16(int8, names), pixels_nchw, threads=threads)
    spread = np.square(exact_nc - exact_nc.mean(axis=0)).sum() + np.finfo(np.float32).tiny
    ranking = []
    for node in tqdm(nodes, desc="ranking of layers", unit="layer", leave=False, disable=None):
        moved_nc = _logits(keep_in_fp16(int8, names - {node.name}), pixels_nchw, threads=threads)
        error = float(np.square(moved_nc - exact_nc).sum() / spread)
        ranking.append(Sensitivity(layer=node.name, op=node.op_type, error=error))
    return sorted(ranking, key=lambda entry: -entry.error)


def quantised_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Every node that reads a dequantised tensor: layers, and the additions and poolings between them."""
    dequantised = {output for node in model.graph.node if node.op_type == DEQUANTIZE for output in node.output}
    return [node for node in model.graph.node if not dequantised.isdisjoint(node.input)]


def keep_in_fp16(int8: onnx.ModelProto, layers: Collection[str]) -> onnx.ModelProto:
    """A copy in which the nodes named by `layers` bypass the Q/DQ nodes before them."""
    model = deepcopy(int8)
    graph = model.graph
    makers = producers(graph)
    for node in graph.node:
        if node.name in layers:
            node.input[:] = [_unquantised(name, makers) for name in node.input]
    _remove_orphans(graph)
    return model


def _unquantised(tensor: str, makers: dict[str, onnx.NodeProto]) -> str:
    dequantize = makers.get(tensor)
    if dequantize is None or dequantize.op_type != DEQUANTIZE:
        return tensor
    source: str = makers[dequantize.input[0]].input[0]
    return source


def _remove_orphans(graph: onnx.GraphProto) -> None:
    """Remove Q/DQ nodes that no node reads, with their scales."""
    for op_type in (DEQUANTIZE, QUANTIZE):
        read = _read(graph)
        for node in [node for node in graph.node if node.op_type == op_type and read.isdisjoint(node.output)]:
            graph.node.remove(node)
    read = _read(graph)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)


def _read(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.input} | {value.name for value in graph.output}


def _logits(model: onnx.ModelProto, pixels_nchw: Float, *, threads: int) -> npt.NDArray[np.float64]:
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        engine = _engine(model, Path(folder), threads=threads)
        batches = (pixels_nchw[start : start + BATCH] for start in range(0, len(pixels_nchw), BATCH))
        return np.concatenate([engine.run(batch)[0] for batch in batches]).astype(np.float64)


def _engine(model: onnx.ModelProto, folder: Path, *, threads: int) -> Engine:
    save(model, folder / "model.onnx")
    try:
        return Engine(folder / "model.onnx", arithmetic="f32", threads=threads)
    except RuntimeError as error:
        raise QuantizeError(f"OpenVINO, which judges INT8 here, could not compile the graph: {error}") from error


class _Judge:
    """Compares graphs with FP32 on the validation split, image by image."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._dataset = Dataset.read(bundle.path / DATASET)
        self._images = self._dataset.of("validation")
        if not self._images:
            raise QuantizeError(f"{bundle.path}: no validation images to judge INT8 with; make the bundle with some")
        threads = bundle.spec.serving.threads
        fp32 = Engine(bundle.path / "model.onnx", arithmetic="f32", threads=threads)
        self._reference = self._answers(fp32, what="validation split, FP32")
        if not (self._reference > (-1 if bundle.decision.task == "multiclass" else 0)).any():
            raise QuantizeError(
                f"{bundle.path}: FP32 answers none of {len(self._images)} validation images (its logits are not finite,"
                " or no threshold fits them), so INT8's loss cannot be measured; train or import the network again"
            )

    def step(self, graph: onnx.ModelProto, *, kept: Sequence[str]) -> Step:
        spec, threads = self._bundle.spec, self._bundle.spec.serving.threads
        with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
            engine = _engine(graph, Path(folder), threads=threads)
            answers = self._answers(engine, what=f"validation split, INT8, {len(kept)} layers in FP16")
        class_ids, labels = [image.class_ids for image in self._images], self._bundle.labels
        truth = truth_of(class_ids, task=self._bundle.decision.task, classes=len(labels))
        result = compare_answers(truth, self._reference, answers, labels, spec.accuracy)
        overall, flips = result.overall, result.flips
        return Step(
            kept_fp16=tuple(kept),
            int8_layers=len(quantised_layers(graph, "int8")),
            validation=Validation(
                images=overall.images,
                lost=overall.lost,
                gained=overall.gained,
                loss_points=overall.loss_points,
                flips=flips.flips,
                verdict=result.verdict,
            ),
            accepted=result.verdict != FAIL
            and overall.loss_points <= spec.accuracy.max_loss_points
            and flips.flip_points <= flips.max_flip_points,
        )

    def _answers(self, engine: Engine, *, what: str) -> npt.NDArray[Any]:
        """The class with the greatest logit of each image, -1 if a logit is not finite. For multi-label, the labels
        `[n, classes]` given by a decision fitted to these outputs; none at all if it cannot be fitted."""
        bundle = self._bundle
        validation = predict(
            engine.run,
            self._dataset,
            self._images,
            preprocess=bundle.preprocess,
            batch_size=bundle.spec.serving.common_batch_size,
            what=what,
        )
        finite_n = np.isfinite(validation.logits_nc).all(axis=1)
        if bundle.decision.task == "multiclass":
            return np.where(finite_n, validation.logits_nc.argmax(axis=1), -1)
        if not finite_n.all():
            return np.zeros(validation.logits_nc.shape, np.bool_)
        try:
            decision = fit_labels(bundle.spec.decision, validation, bundle.labels)
        except DataError:  # no threshold reaches the requested precision, so this graph is useless
            return np.zeros(validation.logits_nc.shape, np.bool_)
        given_nc: npt.NDArray[np.bool_] = given(answer(decision, validation, bundle.labels), classes=len(bundle.labels))
        return given_nc


def _spent(steps: Sequence[Step], bundle: Bundle) -> str:
    spec = bundle.spec
    other = "max" if spec.calibration.method == "entropy" else "entropy"
    tried = "; ".join(
        f"{len(step.kept_fp16)} in FP16: {step.validation.loss_points:+.2f} points ({step.validation.lost} lost, "
        f"{step.validation.gained} gained, {step.validation.flips} flipped of {step.validation.images})"
        for step in steps
    )
    worst = ", ".join(steps[-1].kept_fp16[:4])
    return (
        f"INT8 loses more than {spec.accuracy.max_loss_points:g} points on the validation split, or flips more than "
        f"{spec.accuracy.flip_limit_points:g} ({tried})"
        f"{f'; the most sensitive layers are {worst}' if worst else ''}; calibrate with more images or by "
        f"calibration.method: {other}, raise sensitive_layers.max_steps, or list fp16 instead of int8"
    )
