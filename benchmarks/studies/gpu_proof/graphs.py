"""Writes ONNX graphs as JSON and one `.npz` of numbers, for `torch_graph` on a machine without onnx."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from benchmarks.studies.gpu_proof.folder import ProofError, sha256
from benchmarks.studies.gpu_proof.torch_graph import Graph, Node


def write_graphs(graphs: Mapping[str, Path], folder: Path) -> None:
    """Write each graph as `<folder>/<name>.json`, and numbers that several share once into `<folder>/weights.npz`.

    Raises:
        ProofError: a graph with several inputs, or a node with several outputs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, npt.NDArray[Any]] = {}
    for name, path in graphs.items():
        described = _describe(onnx.load(path), path, numbers)
        (folder / f"{name}.json").write_text(json.dumps(described) + "\n", encoding="utf-8")
    np.savez(folder / "weights.npz", **numbers)  # type: ignore[arg-type, unused-ignore]


def _describe(model: onnx.ModelProto, path: Path, numbers: dict[str, npt.NDArray[Any]]) -> Graph:
    graph = model.graph
    if len(graph.input) != 1 or any(len(node.output) != 1 for node in graph.node):
        raise ProofError(f"{path}: more than one input, or a node with several outputs; the executor takes one of each")
    constants = {}
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        key = sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes())[:20]
        numbers[key] = array
        constants[tensor.name] = key
    nodes: list[Node] = [
        {
            "op": node.op_type,
            "name": node.name,
            "inputs": list(node.input),
            "outputs": list(node.output),
            "attributes": {attribute.name: _plain(attribute) for attribute in node.attribute},
        }
        for node in graph.node
    ]
    outputs = [value.name for value in graph.output]
    return {"input": graph.input[0].name, "outputs": outputs, "constants": constants, "nodes": nodes}


def _plain(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    return list(value) if isinstance(value, (list, tuple)) or hasattr(value, "__len__") else value
