"""Calls ModelOpt quietly on a temporary file: it adds Q/DQ nodes for INT8 or FP8, and its AutoCast converts a graph to
FP16, nodes of large values excepted."""

import contextlib
import io
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tqdm import tqdm

from slipway.contract import MissingDependencyError, QuantizeError, SlipwayError
from slipway.engines.autotune import Autotune
from slipway.engines.graph_checks import (
    QUANTIZE,
    Array,
    Quantised,
    check_numbers,
    check_overflow,
    kept_in_fp32,
    layers,
    run_nodes,
)
from slipway.evaluation.calibration_pixels import CalibrationSample
from slipway.evaluation.predict import Float
from slipway.onnx_graph import INPUT

IMAGES = 32
"""Calibration images on which magnitudes are measured and overflow is detected."""
LARGEST = 512.0
"""AutoCast's default limit on the magnitude of an FP16 node's input or output."""


@contextlib.contextmanager
def modelopt_file(source: onnx.ModelProto) -> Iterator[Path]:
    """A copy of `source` that ModelOpt may change (it writes inferred shapes there, and other files beside it).

    Output printed inside the block, such as a progress bar for every tensor, is shown only if ModelOpt fails.

    Raises:
        QuantizeError: ModelOpt failed; includes its last output.
    """
    messages = io.StringIO()
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(source, path)
        try:
            with contextlib.redirect_stdout(messages), contextlib.redirect_stderr(messages):
                yield path
        except ImportError:
            raise MissingDependencyError("nvidia-modelopt", extra="build") from None
        except SlipwayError:
            raise
        except Exception as error:
            last_words = messages.getvalue()[-2000:]
            raise QuantizeError(f"ModelOpt could not convert this graph: {error}\n{last_words}") from error


def with_qdq(
    source: onnx.ModelProto,
    sample: CalibrationSample,
    precision: Quantised,
    *,
    method: str,
    autotune: Autotune | None = None,
) -> onnx.ModelProto:
    """The graph with ModelOpt's Q/DQ nodes, ranges from every image of `sample`, FP32 input and outputs, else FP16.

    Raises:
        QuantizeError: ModelOpt failed, or did not read every image.
    """
    with tqdm(total=len(sample), desc=f"calibration, {method}", unit="image", leave=False, disable=None) as progress:
        reader = _Reader(sample, progress)
        with modelopt_file(source) as path:
            from modelopt.onnx import quantization

            quantise = quantization.quantize if autotune is None else autotune.added_to(quantization.quantize)
            quantise(
                str(path),
                quantize_mode=precision,
                calibration_data_reader=reader,
                calibration_method=method,
                calibration_eps=["cpu"],
                high_precision_dtype="fp16",
                output_path=str(path),
                log_level="WARNING",
            )
            graph = onnx.load(path)
    del graph.graph.value_info[:]  # outdated shapes; runtimes infer their own
    is_quantised = any(node.op_type == QUANTIZE for node in graph.graph.node)  # else FP8 reads nothing
    if is_quantised and reader.used != len(sample):
        raise QuantizeError(f"ModelOpt read {reader.used} of {len(sample)} calibration images")
    return graph


class _Reader:
    """Calibration data for ModelOpt, one image at a time, as its own provider gives it."""

    def __init__(self, sample: CalibrationSample, progress: "tqdm[Any]") -> None:
        self._sample, self._progress = sample, progress
        self.rewind()

    def get_first(self) -> dict[str, Float]:
        return {INPUT: next(self._sample.pixels(images=1))}

    def get_next(self) -> dict[str, Float] | None:
        pixels_nchw = next(self._pixels, None)
        if pixels_nchw is None:
            return None
        self.used += 1
        self._progress.update()
        return {INPUT: pixels_nchw}

    def rewind(self) -> None:
        self.used = 0
        self._pixels = self._sample.pixels()


def to_fp16(source: onnx.ModelProto, sample: CalibrationSample) -> onnx.ModelProto:
    """Convert `source`, whose nodes have names, to FP16 with FP32 input and outputs.

    AutoCast keeps a node in FP32 if its weights exceed FP16's range, or its input or output exceeds a limit on
    reference data. By itself it holds every tensor of every reference image at once, and without images takes random
    data. Here magnitudes are measured image by image, and AutoCast is given the names of the nodes.

    Raises:
        QuantizeError: AutoCast failed, left no layer in FP16, or the graph overflows on calibration images.
    """
    wide = nodes_over(source, sample.pixels(images=IMAGES, what="magnitudes"), limit=LARGEST)
    with modelopt_file(source) as path:
        from modelopt.onnx.autocast import convert_to_mixed_precision

        graph: onnx.ModelProto = convert_to_mixed_precision(
            onnx_path=str(path),
            low_precision_type="fp16",
            keep_io_types=True,
            nodes_to_exclude=[f"{re.escape(name)}$" for name in wide],
            data_max=np.inf,  # no reference run of its own
        )
    del graph.graph.value_info[:]  # AutoCast leaves wrong shapes there, which ONNX Runtime trusts (edgenext_xx_small)
    if {node.name for node in layers(graph)}.issubset(kept_in_fp32(graph)):
        raise QuantizeError("FP16 was requested, but AutoCast kept every layer in FP32; use FP32 for this network")
    check_numbers(graph)
    check_overflow(graph, sample.pixels(images=IMAGES, what="FP16 overflow"))
    return graph


def nodes_over(source: onnx.ModelProto, pixels: Iterable[Array], *, limit: float) -> list[str]:
    """Names of the nodes with an input or output whose magnitude exceeds `limit` for any of `pixels`."""
    large: set[str] = set()
    for tensors in run_nodes(source, pixels):
        large.update(name for name, array in tensors.items() if array.size and not np.abs(array).max() <= limit)
    return [node.name for node in source.graph.node if not large.isdisjoint([*node.input, *node.output])]
