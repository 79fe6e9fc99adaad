"""What is changed in a team's graph so that it can be served; `from_onnx.adopt` proves each change."""

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
"""Of Cast, and of the nodes that make a tensor from nothing."""


def inline_functions(model: onnx.ModelProto) -> None:
    """Put the nodes of local functions in the places of their calls."""
    if model.functions:
        model.CopyFrom(onnx.inliner.inline_local_functions(model))


def to_fp32(model: onnx.ModelProto) -> bool:
    """Compute in FP32 whatever is FP64: weights, constants, casts, inputs and outputs. Says whether any was."""
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
    """What ONNX's own reference implementation computes for the tensors `names`, in the types that the graph has.

    Raises:
        ExportError: it cannot run the graph.
    """
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    del asked.graph.output[:]
    asked.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    try:
        return list(onnx.reference.ReferenceEvaluator(asked).run(names, feeds))
    except Exception as error:  # of many kinds: it runs numpy
        raise ExportError(
            f"it computes in FP64, and ONNX's reference cannot run it to prove that FP32 gives the same: {error}; "
            "export it in FP32 (torch: model.float())"
        ) from None


def vectors(graph: onnx.GraphProto, answers: dict[str, Float]) -> list[str]:
    """Make every output `[n, d]` that is one vector an image, such as `[n, d, 1, 1]`; and of one logit two.

    Returns:
        What was done, in words.
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
    """A node that takes the tensor `name` last, and whose output bears that name from now on."""
    before = f"{name}_before_{op_type.lower()}"
    for node in all_nodes(graph):
        for names in (node.input, node.output):
            names[:] = [before if given == name else given for given in names]
    graph.node.append(onnx.helper.make_node(op_type, [before, *inputs], [name], **attributes))
