"""Finds the pixels, logits and embedding of an imported graph, and cuts the graph down to them under our names."""

from collections.abc import Iterator, Mapping

import onnx

from slipway.contract import ExportError
from slipway.onnx_graph import INPUT, OUTPUTS, producers

PROBABILITIES = ("Softmax", "Sigmoid", "HardSigmoid")
BETWEEN = ("Add", "Sub", "Mul", "Div", "Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Dropout", "LogSoftmax")
"""Operators allowed between the head's matrix product and the logits. Softmax of LogSoftmax is Softmax."""
HEADS = ("Gemm", "MatMul", "Conv")
"""A convolution's input is an embedding where it is one vector per image; `from_onnx` runs the graph to check."""
WITHOUT = "import it without one: --no-embedding (`unknown` then uses the logits, and EMBEDDING is not served)"


def find_input(graph: onnx.GraphProto, input_size: tuple[int, int]) -> str:
    """Return the name of the only input. Raises ExportError where it is not `FP32 [n, 3, *input_size]`."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        found = ", ".join(map(_describe, inputs)) or "none"
        raise ExportError(f"{len(inputs)} inputs ({found}); export it with one, FP32 [n, 3, H, W]")
    (value,) = inputs
    shape, described, size = _shape(value), f"the input is {_describe(value)}", "x".join(map(str, input_size))
    if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise ExportError(f"{described}; export it with an FP32 input: Slipway makes the other precisions")
    if len(shape) != 4:
        raise ExportError(f"{described}; export it with [n, 3, H, W]")
    if shape[3] == 3 and shape[1] != 3:
        raise ExportError(f"{described}, channels last; export it with [n, 3, H, W] (tf2onnx: --inputs-as-nchw)")
    if isinstance(shape[1], int) and shape[1] != 3:
        raise ExportError(f"{described}; images have 3 channels, RGB: export it with [n, 3, H, W]")
    if isinstance(shape[0], int):
        raise ExportError(
            f"{described}, a fixed batch of {shape[0]}; export it with a dynamic one (torch.onnx.export: "
            "dynamic_shapes, or dynamic_axes where it has no dynamo)"
        )
    if any(isinstance(side, int) and side != wanted for side, wanted in zip(shape[2:], input_size, strict=True)):
        raise ExportError(
            f"{described}, but preprocess makes {size} pixels: change preprocess.input_height and input_width, or "
            "export it for that size"
        )
    return str(value.name)


def find_logits(graph: onnx.GraphProto, logits: str | None) -> str:
    """Return the logits tensor: the one given, or the only output. Raises ExportError where it must be given."""
    made_by = producers(graph)
    outputs = [value.name for value in graph.output]
    described = _outputs(graph)
    _check_made(graph, logits, option="--logits")
    if logits is None and OUTPUTS[0] not in outputs and len(outputs) != 1:
        raise ExportError(f"{len(outputs)} outputs ({described}); name the logits: --logits NAME")
    logits = logits or (OUTPUTS[0] if OUTPUTS[0] in outputs else outputs[0])
    last = made_by.get(logits)
    while last is not None and last.op_type in ("Identity", "Cast", "Reshape", "Flatten", "Squeeze"):
        last = made_by.get(last.input[0])
    if last is not None and last.op_type in PROBABILITIES:
        raise ExportError(
            f"{logits} comes out of {last.op_type}: these are probabilities, but the temperature needs logits; "
            f"name its input (--logits {last.input[0]}), or export the network without it"
        )
    return logits


def find_embedding(graph: onnx.GraphProto, logits: str, embedding: str | None) -> str:
    """Return the embedding tensor: the one given, or found. Raises ExportError where it must be given."""
    _check_made(graph, embedding, option="--embedding")
    if embedding is None and OUTPUTS[1] in [value.name for value in graph.output]:
        embedding = OUTPUTS[1]
    embedding = embedding or _head_input(graph, producers(graph), logits)
    if embedding is None or embedding == logits:
        raise ExportError(
            f"found no matrix product before {logits} whose input is the embedding; name the embedding tensor [n, d]: "
            f"--embedding NAME (the outputs are {_outputs(graph)}; any other tensor of the graph may be named), or "
            f"{WITHOUT}"
        )
    return embedding


def _check_made(graph: onnx.GraphProto, name: str | None, *, option: str) -> None:
    if name is not None and name not in producers(graph):
        raise ExportError(f"{option} {name}: the graph computes no such tensor; its outputs are {_outputs(graph)}")


def _outputs(graph: onnx.GraphProto) -> str:
    return ", ".join(map(_describe, graph.output))


def _head_input(graph: onnx.GraphProto, made_by: Mapping[str, onnx.NodeProto], logits: str) -> str | None:
    """Return the input of the last of `HEADS` with constant weights before `logits`; None where there is none."""
    constant = {tensor.name for tensor in graph.initializer} | {""}
    for node in graph.node:  # topologically sorted
        if all(name in constant for name in node.input) and not list(subgraphs(node)):
            constant.update(node.output)
    name = logits
    while (node := made_by.get(name)) is not None:
        variable = [given for given in node.input if given not in constant]
        if node.op_type in HEADS:
            return str(node.input[0]) if variable == [node.input[0]] else None
        if node.op_type not in BETWEEN or len(variable) != 1:
            return None
        (name,) = variable
    return None


def rename(graph: onnx.GraphProto, tensors: Mapping[str, str]) -> None:
    """Give tensors our names; another tensor that already has one of them is renamed."""
    names = {ours: f"{ours}_given" for ours in tensors} | {given: ours for ours, given in tensors.items()}

    def rename(graph: onnx.GraphProto) -> None:
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.name = names.get(value.name, value.name)
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
            for inner in subgraphs(node):
                rename(inner)

    del graph.value_info[:]  # may hold a fixed batch; it is inferred anew
    rename(graph)


def declare(graph: onnx.GraphProto, input_size: tuple[int, int], sizes: Mapping[str, int | None]) -> None:
    """Make our tensors the graph's input and outputs; `sizes` holds the outputs' sizes, where known."""

    def value(name: str, *shape: int | None) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", *shape])

    del graph.input[:], graph.output[:]
    graph.input.append(value(INPUT, 3, *input_size))
    graph.output.extend(value(name, size) for name, size in sizes.items())


def prune(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that no output needs, in place."""
    needed, kept = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(_reads(node))
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    if INPUT not in needed:
        raise ExportError("the logits do not depend on the input; name another tensor: --logits NAME")
    nodes = kept[::-1]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield `graph` and every branch and body inside it."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from all_graphs(inner)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for part in all_graphs(graph):
        yield from part.node


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield every name that `node` reads, including those in its branches and bodies."""
    yield from node.input
    for inner in subgraphs(node):
        yield from (value.name for value in inner.output)
        for nested in inner.node:
            yield from _reads(nested)


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in dims]


def _describe(value: onnx.ValueInfoProto) -> str:
    dtype = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    return f"{value.name} {dtype} [{', '.join(map(str, _shape(value)))}]"
