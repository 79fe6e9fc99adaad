"""Converts a bundle's graph to a typed one: INT8 or FP8 by ModelOpt's Q/DQ nodes and FP16 elsewhere, or FP16 by
AutoCast."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, get_args

import onnx

from slipway.contract import Bundle, Manifest, QuantizeError
from slipway.contract.base_bundle import Base
from slipway.contract.evidence.build import FAILED_SUFFIX, SEARCH, AcceptedStep, GraphMeasured
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.preprocess import PIXEL_LIBRARIES
from slipway.engines import graph_checks
from slipway.engines.autotune import LEFT, autotuning
from slipway.engines.modelopt import IMAGES, to_fp16, with_qdq
from slipway.engines.sensitivity import SearchFailedError, search
from slipway.evaluation.calibration_pixels import CalibrationSample
from slipway.onnx_graph import load, save
from slipway.system.files import complete_folder, sha256_file
from slipway.system.targets import check_file, check_folder

Typed = Literal["int8", "fp8", "fp16"]
LIBRARIES = ("nvidia-modelopt", "onnx", "onnxruntime", "openvino")


def quantize(bundle: Bundle | Base, out: Path, *, precision: Typed = "int8", autotune: bool = False) -> Manifest:
    """Write the graph folder `out`, whole or not at all. The manifest's `measured` has its figures.

    INT8 takes its ranges from the calibration sample and leaves everything else in FP16; if that loses too much on the
    validation split, `search` keeps sensitive layers in FP16. FP8 takes its ranges from the same images; only its gate
    on a GPU judges it. FP16 leaves nodes with large values in FP32. Input and outputs are FP32. A base has no labels,
    so nothing is searched for it: the gate on its embeddings judges plain INT8. With `autotune`, layers are INT8 or FP8
    only where TensorRT is faster so on this machine's GPU.

    Raises:
        CompileError: autotune found no GPU.
        QuantizeError: the calibration images are too few or of one class; the graph is incomplete, not finite or
            already quantised; a layer is not INT8 or FP8 that should be; a value exceeds FP16; INT8 loses too much
            whatever stays in FP16; or autotune lacks trtexec, has no Q/DQ nodes to place, or finds no place for one.
        DataError: an image of the validation split is missing or changed.
    """
    if precision == "fp16" and autotune:
        raise QuantizeError("autotune places Q/DQ nodes, and FP16 has none; give --precision int8 or fp8 with it")
    check_folder(out, kind="graph", inputs=[bundle.path])
    failed = out.with_name(f"{out.name}{FAILED_SUFFIX}")
    check_file(failed, mark=("steps",), what="the steps of a search")
    sample = CalibrationSample(bundle)
    largest = math.inf if precision == "fp16" else graph_checks.FP16_MAX  # ModelOpt would clamp them silently
    source = open_source(bundle.path / "model.onnx", largest=largest)
    failed.unlink(missing_ok=True)
    with _kept_for_the_report(failed), complete_folder(out, kind="graph") as staging:
        if precision == "fp16":
            graph = to_fp16(source, sample)
            measured = GraphMeasured(calibration_images=min(IMAGES, len(sample)))
        else:
            graph, measured = _quantised(bundle, source, sample, precision, autotune=autotune)
            if precision == "int8" and isinstance(bundle, Bundle):
                graph, measured = _searched(bundle, graph, sample, measured, staging)
        counted = _counted(graph, measured, precision)
        save(graph, staging / "model.onnx")
        return Manifest.seal(
            staging,
            kind="graph",
            name=bundle.spec.name,
            bundle=bundle.id,
            inputs={
                "bundle": sha256_file(bundle.path / MANIFEST),
                "model": sha256_file(bundle.path / "model.onnx"),
                "calibration": sha256_file(bundle.path / "calibration.json"),
            },
            libraries=(*LIBRARIES, *PIXEL_LIBRARIES[bundle.preprocess.decoder]),
            measured=counted,
        )


@contextmanager
def _kept_for_the_report(failed: Path) -> Iterator[None]:
    """Write the steps of a search that ends without a graph to the file `failed`."""
    try:
        yield
    except SearchFailedError as error:
        error.path.write(failed)
        raise QuantizeError(f"{error}; every step is in {failed}") from None


def open_source(path: Path, *, largest: float = math.inf) -> onnx.ModelProto:
    """The FP32 graph of a bundle, checked, with a unique name for every node and without Identity nodes.

    Raises:
        QuantizeError: the graph is cut short, not ours or already quantised, or has weights that are not finite
            or above `largest`.
    """
    try:
        source = load(path)
    except ValueError as error:
        raise QuantizeError(f"{path}: {error}") from None
    if any(node.op_type == graph_checks.QUANTIZE for node in source.graph.node):
        raise QuantizeError(f"{path}: already quantised; make the bundle from the FP32 network")
    _remove_identities(source.graph)
    times = Counter(node.name for node in source.graph.node)
    for index, node in enumerate(source.graph.node):
        if not node.name or times[node.name] > 1:
            node.name = f"{node.name or node.op_type}_{index}"
    graph_checks.check_numbers(source, largest=largest)
    return source


def _remove_identities(graph: onnx.GraphProto) -> None:
    """Remove Identity nodes, which ModelOpt does not look through: in ghostnet_100, 21 of 96 layers were not INT8."""
    outputs = {value.name for value in graph.output}
    same: dict[str, str] = {}
    for node in list(graph.node):
        node.input[:] = [same.get(name, name) for name in node.input]
        if node.op_type == "Identity" and node.output[0] not in outputs:
            same[node.output[0]] = node.input[0]
            graph.node.remove(node)


def _quantised(
    bundle: Bundle | Base,
    source: onnx.ModelProto,
    sample: CalibrationSample,
    precision: graph_checks.Quantised,
    *,
    autotune: bool,
) -> tuple[onnx.ModelProto, GraphMeasured]:
    """The graph with Q/DQ nodes, checked, and its calibration."""
    method = bundle.spec.calibration.method
    with ExitStack() as stack:
        search = stack.enter_context(autotuning(bundle)) if autotune else None
        graph = with_qdq(source, sample, precision, method=method, autotune=search)
        graph_checks.check_numbers(graph)
        pixels_nchw, left = next(sample.pixels(images=1)), LEFT if autotune else ""
        reasons = graph_checks.check_quantised(source, graph, precision, pixels_nchw=pixels_nchw, otherwise=left)
        graph_checks.check_overflow(graph, sample.pixels(images=IMAGES, what="FP16 overflow"))
        return graph, GraphMeasured(
            calibration_images=len(sample),
            calibration_method=method,
            not_quantised=reasons,
            autotune=None if search is None else search.measured(),
        )


def _searched(
    bundle: Bundle, plain: onnx.ModelProto, sample: CalibrationSample, measured: GraphMeasured, staging: Path
) -> tuple[onnx.ModelProto, GraphMeasured]:
    """The INT8 graph that the validation split accepts; the search is written, and its facts are added to
    `measured`."""
    graph, found = search(bundle, plain, sample)
    found.write(staging / SEARCH)
    accepted = found.steps[-1]
    kept = dict.fromkeys(accepted.kept_fp16, "kept in FP16 by the search")
    step = AcceptedStep(steps=len(found.steps), kept_fp16=accepted.kept_fp16, **accepted.validation.fields())
    return graph, measured.model_copy(update={"not_quantised": measured.not_quantised | kept, "search": step})


def _counted(graph: onnx.ModelProto, measured: GraphMeasured, precision: Typed) -> GraphMeasured:
    """`measured` with the opset, and the number of layers that compute in each type."""
    layers, kept = graph_checks.layers(graph), graph_checks.kept_in_fp32(graph)
    int8, fp8 = (set(graph_checks.quantised_layers(graph, precision)) for precision in get_args(graph_checks.Quantised))
    fp32 = {node.name for node in layers}.intersection(kept) - int8 - fp8
    counts = {
        "layers": len(layers),
        "int8_layers": len(int8),
        "fp8_layers": len(fp8),
        "fp16_layers": len(layers) - len(int8) - len(fp8) - len(fp32),
    }
    facts = {"precision": precision, "opset": graph_checks.check_opset(graph), "nodes_kept_fp32": tuple(kept)}
    return measured.model_copy(update={**counts, **facts})
