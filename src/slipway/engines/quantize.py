"""A bundle's graph to explicit INT8: ModelOpt inserts Q/DQ nodes with ranges from the calibration sample."""

import contextlib
import io
import shutil
from pathlib import Path

import numpy as np
import onnx

from slipway.contract import Bundle, Manifest, MissingDependencyError, QuantizeError
from slipway.contract.files import complete_folder, sha256_file
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.evaluation.predict import Float, pixel_batches
from slipway.onnx_graph import INPUT, save

QUANTIZABLE = ("Conv", "Gemm", "MatMul")
LIBRARIES = ("nvidia-modelopt", "onnx", "onnxruntime", "nvidia-dali-cuda130")
BATCH = 16


def quantize(bundle: Bundle, out: Path) -> Manifest:
    """Write the INT8 graph of `bundle` to `out`, whole or not at all.

    Raises:
        QuantizeError: too few calibration images, or a graph that lost its INT8, its outputs or its dynamic batch.
    """
    calibration, files = bundle.spec.calibration, bundle.load_calibration()
    if len(files) < calibration.images:
        raise QuantizeError(
            f"{bundle.path}: {len(files)} calibration images, and the spec asks for {calibration.images}; export the "
            "bundle again from enough images"
        )
    batches = pixel_batches(
        iter(files), preprocess=bundle.preprocess, batch_size=BATCH, total=len(files), what="calibration sample"
    )
    pixels_nchw = np.concatenate(list(batches))
    with complete_folder(out) as staging:
        _run_modelopt(bundle.path / "model.onnx", staging / "model.onnx", pixels_nchw, method=calibration.method)
        counts = count_int8_layers(staging / "model.onnx")
        return Manifest.seal(
            staging,
            kind="graph",
            name=bundle.spec.name,
            bundle=bundle.id,
            inputs={"bundle": sha256_file(bundle.path / MANIFEST)},
            libraries=LIBRARIES,
            measured={"calibration_images": len(files), "calibration_method": calibration.method, **counts},
        )


def _run_modelopt(graph: Path, out: Path, pixels_nchw: Float, *, method: str) -> None:
    try:
        from modelopt.onnx import quantization
    except ImportError:
        raise MissingDependencyError("nvidia-modelopt", extra="build") from None
    messages = io.StringIO()  # a progress bar for every tensor; shown only if it fails
    # ModelOpt writes inferred shapes into the file that it is given: it gets a copy, at the place of the result.
    shutil.copyfile(graph, out)
    try:
        with contextlib.redirect_stdout(messages), contextlib.redirect_stderr(messages):
            quantization.quantize(
                str(out),
                quantize_mode="int8",
                calibration_data={INPUT: pixels_nchw},
                calibration_method=method,
                calibration_eps=["cpu"],
                high_precision_dtype="fp32",
                output_path=str(out),
                log_level="WARNING",
            )
        save(onnx.load(out), out)
    except Exception as error:
        last_words = messages.getvalue()[-2000:]
        raise QuantizeError(f"{graph}: ModelOpt could not quantise this graph: {error}\n{last_words}") from error


def count_int8_layers(graph: Path) -> dict[str, int]:
    """Layers whose input and weight both come from Q/DQ nodes, and all layers that could.

    Raises:
        QuantizeError: none is INT8, though INT8 was asked for.
    """
    nodes = onnx.load(graph).graph.node
    dequantized = {output for node in nodes if node.op_type == "DequantizeLinear" for output in node.output}
    layers = [node for node in nodes if node.op_type in QUANTIZABLE]
    quantized = [node for node in layers if dequantized.issuperset(node.input[:2])]
    if not quantized:
        raise QuantizeError(f"{graph}: INT8 was asked for, and none of {len(layers)} layers is quantised")
    return {"int8_layers": len(quantized), "layers": len(layers)}
