"""Converts a bundle's graph to strongly typed FP16 by ModelOpt's AutoCast; nodes with large values stay FP32."""

import re
from collections.abc import Iterable

import numpy as np
import onnx

from slipway.contract import QuantizeError
from slipway.engines.calibration_pixels import CalibrationSample
from slipway.engines.graph_checks import Array, check_numbers, check_overflow, kept_in_fp32, layers, run_nodes
from slipway.engines.modelopt import modelopt_file

IMAGES = 32
"""Calibration images on which magnitudes are measured and overflow is detected."""
LARGEST = 512.0
"""AutoCast's default limit on the magnitude of an FP16 node's input or output."""


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
