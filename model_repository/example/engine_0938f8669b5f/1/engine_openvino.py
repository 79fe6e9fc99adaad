"""One graph in OpenVINO on the CPU, with its arithmetic pinned."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov

Float = npt.NDArray[np.float32]


class Engine:
    """`FP32 [n, 3, H, W]` in, logits and embedding out.

    Args:
        graph: an ONNX file with input `pixels_nchw` and outputs `logits_nc` and `embedding_nd`.
        arithmetic: `f32` or `bf16`; what layers without Q/DQ nodes compute in. OpenVINO would choose by itself
            (BF16 where the processor has it), so it is always set, and read back.
        threads: of this one engine.

    Raises:
        ValueError: OpenVINO did not take the arithmetic.
    """

    def __init__(self, graph: Path, *, arithmetic: str, threads: int) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": arithmetic,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned one-thread engines of several processes all sit on the first core.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = ov.Core().compile_model(str(graph), "CPU", settings)
        taken = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if taken != arithmetic:
            raise ValueError(f"{graph}: arithmetic {arithmetic} was asked for and OpenVINO runs {taken}")
        self._request = compiled.create_infer_request()

    def run(self, pixels_nchw: Float) -> tuple[Float, Float]:
        """Return `logits_nc` `[n, classes]` and `embedding_nd` `[n, d]`, copied out of OpenVINO's buffers."""
        results = self._request.infer({"pixels_nchw": pixels_nchw}, share_inputs=True)
        return results["logits_nc"], results["embedding_nd"]
