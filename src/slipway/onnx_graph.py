"""What every ONNX file of ours is: named tensors, a dynamic batch, one file, nothing of a machine inside."""

from pathlib import Path

import onnx

INPUT, OUTPUTS = "pixels_nchw", ("logits_nc", "embedding_nd")


def save(model: onnx.ModelProto, path: Path) -> None:
    """Strip, check and write `model`; equal models give equal bytes.

    Raises:
        ValueError: an input or output is not as named above, or the batch is fixed.
    """
    strip(model)
    onnx.checker.check_model(model, full_check=True)
    for expected, values in (((INPUT,), model.graph.input), (OUTPUTS, model.graph.output)):
        names = tuple(value.name for value in values)
        if names != expected:
            raise ValueError(f"the graph has tensors {names} where {expected} are needed")
        for value in values:
            if not value.type.tensor_type.shape.dim[0].dim_param:
                raise ValueError(f"the graph's {value.name} has a fixed batch; export it with a dynamic one")
    path.write_bytes(model.SerializeToString(deterministic=True))


def strip(model: onnx.ModelProto) -> None:
    """Remove `metadata_props` (torch writes paths of the machine there), doc strings and the producer, in place."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    model.producer_name, model.producer_version = "slipway", ""


def output_sizes(path: Path) -> dict[str, int]:
    """Size of each output without the batch: `{"logits_nc": classes, "embedding_nd": d}`."""
    graph = onnx.load(path, load_external_data=False).graph
    return {value.name: value.type.tensor_type.shape.dim[1].dim_value for value in graph.output}
