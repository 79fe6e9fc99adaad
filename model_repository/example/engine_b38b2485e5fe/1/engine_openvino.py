"""One graph in OpenVINO on the CPU, with its arithmetic pinned, and its compiled form kept for the next start."""

import ctypes
import hashlib
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it would report each import of openvino
import openvino as ov  # noqa: E402

Float = npt.NDArray[np.float32]
Input = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
"""What the graph takes: UINT8 `[n, H, W, 3]`, or normalised FP32 `[n, 3, H, W]`."""
_HASH_BYTES = 32  # a blob file is the sha256 of what follows it


class Engine:
    """Pixels in, logits and embedding out.

    Args:
        graph: an ONNX file with one input, `pixels_nhwc_u8` where it is served or a network's own `pixels_nchw`, and
            outputs `logits_nc` and `embedding_nd`, or one of them.
        arithmetic: `f32` or `bf16`; what layers without Q/DQ nodes compute in. OpenVINO would choose by itself
            (BF16 where the processor has it), so it is always set, and read back.
        threads: of this one engine.
        cache: folder of compiled blobs, or None. A blob belongs to the graph's bytes, these settings, the OpenVINO
            version and the processor; one that is damaged is compiled again. (OpenVINO's own CACHE_DIR goes by the
            file's path, and takes a damaged blob as it is.)

    Raises:
        ValueError: the processor does not have the arithmetic, or OpenVINO did not take it.
    """

    def __init__(self, graph: Path, *, arithmetic: str, threads: int, cache: Path | None = None) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": arithmetic,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned one-thread engines of several processes all sit on the first core.
            "ENABLE_CPU_PINNING": False,
        }
        capabilities = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if arithmetic == "bf16" and "BF16" not in capabilities:  # it would be emulated, slowly and without a word
            raise ValueError(f"{graph}: this processor has no BF16, only {', '.join(capabilities)}")
        compiled = _compile(graph, settings) if cache is None else _compile_once(graph, settings, cache)
        taken = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if taken != arithmetic:
            raise ValueError(f"{graph}: arithmetic {arithmetic} was asked for and OpenVINO runs {taken}")
        self._request = compiled.create_infer_request()
        _give_back_memory()

    def run(self, pixels: Input) -> tuple[Float, Float]:
        """Return `logits_nc` `[n, classes]` and `embedding_nd` `[n, d]`, copied out of OpenVINO's buffers.

        Where the graph has no such output, classes or d is 0.
        """
        results = self._request.infer([pixels], share_inputs=True)
        none = np.zeros((len(pixels), 0), np.float32)
        return results.get("logits_nc", none), results.get("embedding_nd", none)


def _give_back_memory() -> None:
    """What compiling has freed stays with the process otherwise: 20 MiB of a small network's 70."""
    with suppress(OSError, AttributeError):  # another C library may have no such call
        ctypes.CDLL(None).malloc_trim(0)


def _compile(graph: Path, settings: dict[str, Any]) -> Any:
    return ov.Core().compile_model(str(graph), "CPU", settings)


def _compile_once(graph: Path, settings: dict[str, Any], cache: Path) -> Any:
    core = ov.Core()
    processor = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    belongs_to = repr((ov.get_version(), processor, sorted(settings.items()))).encode()
    blob = cache / f"{hashlib.sha256(graph.read_bytes() + belongs_to).hexdigest()}.blob"
    data = blob.read_bytes() if blob.is_file() else b""
    if hashlib.sha256(data[_HASH_BYTES:]).digest() == data[:_HASH_BYTES]:
        return core.import_model(data[_HASH_BYTES:], "CPU", settings)
    compiled = _compile(graph, settings)
    try:
        _write(blob, compiled.export_model().getvalue())
    except OSError as error:  # a full or read-only disk costs the next start a second, and nothing else
        print(f"{cache}: the compiled engine is not kept: {error}", file=sys.stderr)
    return compiled


def _write(blob: Path, data: bytes) -> None:
    """Whole or not at all: several instances start at once."""
    blob.parent.mkdir(parents=True, exist_ok=True)
    part = blob.with_suffix(f".{os.getpid()}")
    try:
        part.write_bytes(hashlib.sha256(data).digest() + data)
        os.replace(part, blob)
    finally:
        part.unlink(missing_ok=True)
