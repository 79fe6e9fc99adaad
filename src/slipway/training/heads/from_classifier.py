"""Makes a head of a trained classifier whose backbone is that of a base, and proves that its answers stay the same."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from slipway.contract import Bundle, ExportError, Spec, SpecError
from slipway.contract.base_bundle import Base
from slipway.contract.dataset import Dataset
from slipway.contract.decision import Task
from slipway.evaluation.predict import Float, Predictions, predict
from slipway.onnx_graph import OUTPUTS, producers
from slipway.steps.engine_openvino import Engine
from slipway.steps.head import Head
from slipway.training.bundle.write import Fault, compare_outputs
from slipway.training.heads.embeddings import Embeddings
from slipway.training.heads.spec import of_base

TAKEN = ("name", "task", "data", "decision", "accuracy", "latency")
"""Fields of the classifier's spec that its head keeps; the others are the base's, or about training a network."""

OTHER = Fault(
    "the base with the head and the whole classifier",
    "its backbone is not that of the base: make a base of its weights (slipway base), or fit a head to its images "
    "instead (slipway head SPEC)",
)


def spec_of(bundle: Bundle, base: Base) -> Spec:
    """The spec of the head of a classifier.

    Raises:
        SpecError: the classifier has no graph of its own, or other preprocessing than the base.
    """
    if bundle.base is not None:
        raise SpecError(f"{bundle.path}: a head already; give the run of a whole classifier")
    ours, theirs = bundle.preprocess.plain(), base.preprocess.plain()
    different = [f"{name} {ours[name]}, not {theirs[name]}" for name in sorted(ours) if ours[name] != theirs[name]]
    if different:
        raise SpecError(
            f"{bundle.path}: its preprocess has {'; '.join(different)} as the base {base.path} has, so the pixels "
            "differ; make a base with this preprocess"
        )
    given = bundle.spec.plain()
    return Spec.parse({**{name: given[name] for name in TAKEN}, **of_base(base)}, source=str(bundle.path / "spec.json"))


def layers_of(graph: Path) -> Head:
    """The layers between `embedding_nd` and `logits_nc` of a graph.

    Raises:
        ExportError: they are not linear layers with ReLU between them.
    """
    model = onnx.load(graph, load_external_data=False).graph
    makers = producers(model)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.initializer}
    logits, embedding = OUTPUTS
    layers: list[tuple[Float, Float]] = []
    tensor = logits
    while tensor != embedding:
        node = makers.get(tensor)
        kind = None if node is None else node.op_type
        if node is None or kind not in ("Gemm", "Relu", "Identity"):
            raise ExportError(
                f"{graph}: {kind or 'an input'} stands between the embedding and the logits, and a head has linear "
                "layers and ReLU; fit one to the images instead (slipway head SPEC)"
            )
        if kind == "Gemm":
            layers.insert(0, _linear(node, arrays, graph))
        tensor = node.input[0]
    return Head([weight for weight, _ in layers], [bias for _, bias in layers])


def _linear(node: onnx.NodeProto, arrays: dict[str, npt.NDArray[Any]], graph: Path) -> tuple[Float, Float]:
    """Weight `[from, to]` and bias of a Gemm."""
    options = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    scaled = (options.get("alpha", 1.0), options.get("beta", 1.0), options.get("transA", 0)) != (1.0, 1.0, 0)
    if scaled or len(node.input) != 3 or any(name not in arrays for name in node.input[1:]):
        raise ExportError(f"{graph}: its last layers are computed in a way that a head has not; fit one to the images")
    weight, bias = (arrays[name].astype(np.float32) for name in node.input[1:])
    return np.ascontiguousarray(weight.T if options.get("transB", 0) else weight), bias


def prove(bundle: Bundle, head: Head, dataset: Dataset, embeddings: Embeddings) -> float:
    """Compare the base and the head with the whole classifier, in FP32 on the test split.

    Returns:
        The largest difference of a logit.

    Raises:
        ExportError: a label, a logit or an embedding differs: the backbones are not the same.
    """
    threads = bundle.spec.serving.threads
    whole = predict(
        Engine(bundle.path / "model.onnx", arithmetic="f32", threads=threads).run,
        dataset,
        dataset.of("test"),
        preprocess=bundle.preprocess,
        batch_size=bundle.spec.serving.max_batch_size,
        what="test split, whole classifier",
    )
    if whole.embedding_nd.shape[1] != head.embedding_size:
        raise ExportError(f"{bundle.path}: an embedding of {whole.embedding_nd.shape[1]} numbers is not the base's")
    found = embeddings.answer(head, dataset.of("test"))
    return compare_outputs(found, whole, task=bundle.decision.task, fault=OTHER)


def agreement(found: Predictions, expected: Predictions, *, task: Task) -> float:
    """The share of images, or for multi-label of images and labels, that are answered alike."""
    if task == "multilabel":
        return float(((found.logits_nc > 0) == (expected.logits_nc > 0)).mean())
    return float((found.logits_nc.argmax(axis=1) == expected.logits_nc.argmax(axis=1)).mean())
