"""Rules for every ONNX file of Slipway: named tensors, a dynamic batch, a single file, and no trace of the machine."""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

INPUT, OUTPUTS = "pixels_nchw", ("logits_nc", "embedding_nd")
"""The embedding is missing from a network that has none, and the logits from a base: see `output_sizes`."""
SERVED_INPUT = "pixels_nhwc_u8"
"""The input of a graph that an engine serves, which normalises by itself: UINT8 `[n, H, W, 3]`."""
TYPES = {SERVED_INPUT: onnx.TensorProto.UINT8}
"""The types of inputs and outputs that are not FP32."""


def load(path: Path) -> onnx.ModelProto:
    """Read and check a graph; files beside it are never opened.

    Raises:
        ValueError: cut short or no ONNX file at all, with weights in other files, or not as `check` asks.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        raise ValueError("the file is cut short, or no ONNX file") from None
    external = [tensor.name for tensor in model.graph.initializer if tensor.data_location == tensor.EXTERNAL]
    if external:
        raise ValueError(
            f"{len(external)} weights ({external[0]}, …) lie outside of the ONNX file; save it as one file"
        )
    check(model)
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Strip, check and write `model`; equal models give equal bytes.

    Raises:
        ValueError: the model is not as `check` asks.
    """
    path.write_bytes(to_bytes(model))


def to_bytes(model: onnx.ModelProto, *, input_name: str = INPUT) -> bytes:
    """Return the bytes that `save` would write for a graph with that input."""
    strip(model)
    check(model, input_name=input_name)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def check(model: onnx.ModelProto, *, input_name: str = INPUT) -> None:
    """Raises ValueError: no valid ONNX, an input or output of another name or type, or a fixed batch."""
    one_or_both = (OUTPUTS, OUTPUTS[:1], OUTPUTS[1:])
    for allowed, values in (((input_name,),), model.graph.input), (one_or_both, model.graph.output):
        names, expected = tuple(value.name for value in values), allowed[0]
        if names not in allowed:
            raise ValueError(f"the graph has tensors {names} where {expected} are needed")
        for value in values:
            if value.type.tensor_type.elem_type != TYPES.get(value.name, onnx.TensorProto.FLOAT):
                given = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
                raise ValueError(f"the graph's {value.name} is {given}; inputs and outputs are FLOAT (FP32)")
            dimensions = value.type.tensor_type.shape.dim
            if not dimensions or not dimensions[0].dim_param:
                raise ValueError(f"the graph's {value.name} has a fixed batch; export it with a dynamic one")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"not a valid ONNX graph: {error}") from None


def strip(model: onnx.ModelProto) -> None:
    """Remove `metadata_props` (torch writes paths of the machine there), doc strings and the producer, in place."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    model.producer_name, model.producer_version = "slipway", ""


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Tensor name to the node that makes it."""
    return {output: node for node in graph.node for output in node.output}


def output_sizes(path: Path) -> dict[str, int]:
    """Size of each output without the batch: `{"logits_nc": classes, "embedding_nd": d}`; 0 where there is none."""
    graph = onnx.load(path, load_external_data=False).graph
    return dict.fromkeys(OUTPUTS, 0) | {
        value.name: value.type.tensor_type.shape.dim[1].dim_value for value in graph.output
    }
