"""A graph in ONNX Runtime, computed node by node in its own types, so that a CPU can judge what a GPU will compute."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from slipway.contract import CompileError, MissingDependencyError
from slipway.onnx_graph import DEQUANTIZE, INPUT, OUTPUTS, QUANTIZE

Float = npt.NDArray[np.float32]
PROVIDER = "CPUExecutionProvider"


def node_session(model: onnx.ModelProto, *, threads: int = 0) -> tuple[Any, list[str]]:
    """A session of ONNX Runtime in which every node's result is an output, and the names of all outputs, the graph's
    own first. Results of Q/DQ nodes are left out, since they are bounded.

    Nothing is fused, so each node rounds to its own type: an FP16 node gives FP16 numbers, or infinity. Left to its
    optimisations, ONNX Runtime computes FP16 nodes in FP32 on a CPU, and would hide an overflow.

    Args:
        threads: threads of each call; 0 lets ONNX Runtime take every core.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError("onnxruntime", extra="build") from None
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    graph = open_model.graph
    del graph.value_info[:]
    outputs = {value.name for value in graph.output}
    nodes = (node for node in graph.node if node.op_type not in (QUANTIZE, DEQUANTIZE))
    inner = (name for node in nodes for name in node.output if name and name not in outputs)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(open_model.SerializeToString(), options, providers=[PROVIDER])
    return session, [value.name for value in graph.output]


class TypedGraph:
    """`FP32 [n, 3, H, W]` in, logits and embedding out, like `engine_openvino.Engine`.

    Args:
        graph: an ONNX file with the tensors of `slipway.onnx_graph`.
        threads: threads of each call.

    Raises:
        CompileError: ONNX Runtime does not take the graph.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(self, graph: Path, *, threads: int) -> None:
        model = onnx.load(graph, load_external_data=False)
        try:
            self._session, names = node_session(model, threads=threads)
        except MissingDependencyError:
            raise
        except Exception as error:  # ONNX Runtime's own errors have no class in common
            raise CompileError(f"{graph}: ONNX Runtime does not take it: {error}") from None
        self._names = names[: len(model.graph.output)]

    def run(self, pixels_nchw: Float) -> tuple[Float, Float]:
        """Return `logits_nc` `[n, classes]` and `embedding_nd` `[n, d]`; d is 0 where the graph has no embedding."""
        results = dict(zip(self._names, self._session.run(self._names, {INPUT: pixels_nchw}), strict=True))
        logits, embedding = OUTPUTS
        return results[logits], results.get(embedding, np.zeros((len(pixels_nchw), 0), np.float32))
