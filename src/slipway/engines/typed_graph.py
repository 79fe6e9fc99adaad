"""Runs a graph in ONNX Runtime, node by node in its own types, so that a CPU can judge the results of a GPU."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from slipway.contract import CompileError
from slipway.errors import requiring
from slipway.onnx_graph import OUTPUTS
from slipway.steps.engine_openvino import Input

Float = npt.NDArray[np.float32]
PROVIDER = "CPUExecutionProvider"


class TypedGraph:
    """Pixels in, logits and embedding out, like `engine_openvino.Engine`.

    Nothing is fused, Q/DQ nodes round, and so does every FP16 node: it gives FP16 numbers, or infinity.

    Args:
        graph: an ONNX file with the tensors of `slipway.onnx_graph`.
        threads: threads of each call.
        served: the content to run instead of that of the file, such as the graph behind its normalisation.

    Raises:
        CompileError: ONNX Runtime does not take the graph.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(self, graph: Path, *, threads: int, served: bytes | None = None) -> None:
        with requiring("onnxruntime", extra="build"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        model = onnx.load(graph, load_external_data=False) if served is None else onnx.load_from_string(served)
        (self._input,) = (value.name for value in model.graph.input)
        self._names = [value.name for value in model.graph.output]
        try:
            data = rounded(model).SerializeToString()
            self._session: Any = onnxruntime.InferenceSession(data, options, providers=[PROVIDER])
        except Exception as error:  # ONNX Runtime's own errors have no class in common
            raise CompileError(f"{graph}: ONNX Runtime does not take it: {error}") from None

    def run(self, pixels: Input) -> tuple[Float, Float]:
        """Return `logits_nc` `[n, classes]` and `embedding_nd` `[n, d]`; an output that the graph lacks is `[n, 0]`."""
        results = dict(zip(self._names, self._session.run(self._names, {self._input: pixels}), strict=True))
        logits, embedding = OUTPUTS
        none = np.zeros((len(pixels), 0), np.float32)
        return results.get(logits, none), results.get(embedding, none)


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` in which every result passes through an Identity node before another node reads it.

    On a CPU, ONNX Runtime computes FP16 nodes in FP32 between conversions that it adds, and leaves out those that meet:
    a chain of FP16 nodes would never round. An Identity takes FP16 as it is, and so keeps the conversions apart, unless
    it stands alone between nodes that do not; what makes an output of the graph is left as it is even then.
    """
    copy = deepcopy(model)
    nodes = list(copy.graph.node)
    inner = {name for node in nodes for name in node.output if name} - {value.name for value in model.graph.output}
    del copy.graph.node[:], copy.graph.value_info[:]
    for node in nodes:
        node.input[:] = [f"{name}/rounded" if name in inner else name for name in node.input]
        identities = [
            helper.make_node("Identity", [name], [f"{name}/rounded"]) for name in node.output if name in inner
        ]
        copy.graph.node.extend([node, *identities])
        copy.graph.output.extend(onnx.ValueInfoProto(name=identity.output[0]) for identity in identities)
    return copy
