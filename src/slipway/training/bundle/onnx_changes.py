"""Changes an imported graph so that it can be served; `from_onnx.adopt` checks each change."""

from copy import deepcopy

import numpy as np
import onnx
import onnx.inliner
import onnx.reference

from slipway.contract import ExportError
from slipway.evaluation.predict import Float
from slipway.onnx_graph import OUTPUTS
from slipway.training.bundle.onnx_tensors import all_graphs, all_nodes

DOUBLE, FLOAT = onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT
TYPE_ATTRIBUTES = ("to", "dtype")
"""Attributes that name a type: those of Cast and of the nodes that create a tensor."""


def inline_functions(model: onnx.ModelProto) -> None:
    """Replace each call of a local function by the function's nodes."""
    if model.functions:
        model.CopyFrom(onnx.inliner.inline_local_functions(model))


def to_fp32(model: onnx.ModelProto) -> bool:
    """Turn FP64 weights, constants, casts, inputs and outputs into FP32. Returns whether there were any."""
    changed = False
    for graph in all_graphs(model.graph):
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type == DOUBLE:
                value.type.tensor_type.elem_type = FLOAT
                changed = True
        constants = [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
        for tensor in (*graph.initializer, *constants):
            if tensor.data_type == DOUBLE:
                single = onnx.numpy_helper.to_array(tensor).astype(np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(single, tensor.name))
                changed = True
    for node in all_nodes(model.graph):
        for attribute in node.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.i == DOUBLE:
                attribute.i = FLOAT
                changed = True
    return changed


def reference_answers(model: onnx.ModelProto, feeds: dict[str, Float], names: list[str]) -> list[Float]:
    """Compute the tensors `names` with ONNX's own reference implementation, in the graph's own types.

    Raises:
        ExportError: the reference implementation cannot run the graph.
    """
    asked = deepcopy(model)
    del asked.graph.output[:]
    asked.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    try:
        return list(onnx.reference.ReferenceEvaluator(asked).run(names, feeds))
    except Exception as error:  # numpy raises many kinds
        raise ExportError(
            f"it computes in FP64, and ONNX's reference cannot run it to check FP32 against it: {error}; "
            "export it in FP32 (torch: model.float())"
        ) from None


def vectors(graph: onnx.GraphProto, answers: dict[str, Float]) -> list[str]:
    """Flatten every output that holds one vector per image, such as `[n, d, 1, 1]`, and turn one logit into two.

    Returns:
        The changes made, in words.
    """
    done = []
    for name, found in answers.items():
        if found.ndim != 2:
            _append(graph, name, "Flatten", axis=1)
            done.append(f"{name}: [n{''.join(f', {side}' for side in found.shape[1:])}] flattened")
    if answers[OUTPUTS[0]][0].size == 1:
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 1], np.float32), f"{OUTPUTS[0]}_two"))
        _append(graph, OUTPUTS[0], "Mul", f"{OUTPUTS[0]}_two")
        done.append(f"{OUTPUTS[0]}: the one logit x became [0, x], whose softmax is sigmoid(x) for the second label")
    return done


def _append(graph: onnx.GraphProto, name: str, op_type: str, *inputs: str, **attributes: int) -> None:
    """Append a node that reads the tensor `name` as its last input and whose output takes over that name."""
    before = f"{name}_before_{op_type.lower()}"
    for node in all_nodes(graph):
        for names in (node.input, node.output):
            names[:] = [before if given == name else given for given in names]
    graph.node.append(onnx.helper.make_node(op_type, [before, *inputs], [name], **attributes))
