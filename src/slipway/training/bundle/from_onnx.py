"""Adopts any ONNX classifier under our tensor names (`pixels_nchw`, `logits_nc`, `embedding_nd`) and checks it."""

import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import load_external_data_for_model

from slipway.contract import ExportError, SpecError
from slipway.evaluation.predict import Float
from slipway.onnx_graph import INPUT, OUTPUTS
from slipway.steps.engine_openvino import Engine
from slipway.system.files import sha256_file
from slipway.system.text import few
from slipway.training.bundle.export import OPSET
from slipway.training.bundle.onnx_changes import inline_functions, reference_answers, to_fp32, vectors
from slipway.training.bundle.onnx_tensors import (
    WITHOUT,
    all_nodes,
    declare,
    find_embedding,
    find_input,
    find_logits,
    prune,
    rename,
)

MAX_BYTES = 2**31 - 1  # the size limit of one protobuf file
OPSETS = range(13, 25)
"""Opsets taken without conversion, from the first with per-channel quantisation to the last that TensorRT reads."""
IR_VERSION = 8  # the lowest version written; before 4, every initializer is also an input
BATCH = 3  # images in the check that rows do not mix
TOLERANCE = 1e-3  # relative to the largest output; FP32 sums in another order differ far less
QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul")


@dataclass(frozen=True)
class Adopted:
    """A graph with our names that has been run; `tensors` maps our names to those in the file."""

    model: onnx.ModelProto
    tensors: dict[str, str]
    files: dict[str, str]
    """Maps the ONNX file and each file of external data to its sha256."""
    classes: int
    opset: int
    """The file's opset. A graph outside `OPSETS` was converted and checked for equal outputs."""
    changes: tuple[str, ...]
    """Every other change made to the graph, in words."""


def adopt(
    path: Path, *, input_size: tuple[int, int], logits: str | None, embedding: str | None, with_embedding: bool = True
) -> Adopted:
    """Read an ONNX file from any source as a classifier of `FP32 [n, 3, *input_size]`.

    Args:
        logits: the name of the logits tensor; None takes the only output. A single sigmoid logit becomes two.
        embedding: the name of the embedding tensor `[n, d]`; None takes the input of the last matrix product.
        with_embedding: False leaves the embedding out.

    Raises:
        SpecError: the file cannot be read or is not a complete ONNX file.
        ExportError: the graph cannot be served as it is; the message says what was found and what to change.
    """
    model, files = _load(path)
    try:
        opset = _check(model)
        given = deepcopy(model)
        changes = ["FP64 computed in FP32"] if to_fp32(model) else []
        tensors = _cut_out(model.graph, input_size, logits, embedding, with_embedding=with_embedding)
        pixels_nchw = np.random.default_rng(0).standard_normal((BATCH, 3, *input_size), np.float32)
        answers = _run(model, pixels_nchw)
        if changes:
            _prove_fp32(given, tensors, pixels_nchw, answers)
        if opset not in OPSETS:
            model = _convert(model, opset, pixels_nchw, answers)
            changes.append(f"opset {opset} converted to {OPSET}")
        reshaped = vectors(model.graph, answers)
        if reshaped:
            answers = _run(model, pixels_nchw)
        sizes = {name: found.shape[1] for name, found in answers.items()}
        declare(model.graph, input_size, sizes)
        _check_by_onnx(model, full=True)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from None
    return Adopted(model, tensors, files, classes=sizes[OUTPUTS[0]], opset=opset, changes=(*changes, *reshaped))


def _cut_out(
    graph: onnx.GraphProto,
    input_size: tuple[int, int],
    logits: str | None,
    embedding: str | None,
    *,
    with_embedding: bool,
) -> dict[str, str]:
    """Keep only our tensors and the nodes they need, under our names; returns their original names."""
    tensors = {INPUT: find_input(graph, input_size), OUTPUTS[0]: find_logits(graph, logits)}
    if with_embedding:
        tensors[OUTPUTS[1]] = find_embedding(graph, tensors[OUTPUTS[0]], embedding)
    rename(graph, tensors)
    declare(graph, input_size, dict.fromkeys(name for name in OUTPUTS if name in tensors))
    prune(graph)
    return tensors


def _load(path: Path) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return the model with external data from the file's own folder embedded, and the sha256 of every file."""
    try:
        size = path.stat().st_size
        model = onnx.ModelProto.FromString(path.read_bytes()) if size <= MAX_BYTES else onnx.ModelProto()
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except DecodeError:
        raise SpecError(f"{path}: not an ONNX file, or a truncated one; copy or export it again") from None
    tensors = model.graph.initializer
    external = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    try:
        size += sum((path.parent / name).stat().st_size for name in external)
        if size <= MAX_BYTES:
            load_external_data_for_model(model, str(path.absolute().parent))
    except (ValueError, OSError, onnx.checker.ValidationError) as error:
        raise SpecError(
            f"{path}: its external data cannot be used: {_short(error)}; put the data files themselves, not links, "
            "next to the ONNX file, or export everything into one file"
        ) from None
    if size > MAX_BYTES:
        raise SpecError(
            f"{path}: {size / 1e9:.1f} GB with its external data; a bundle holds at most {MAX_BYTES / 1e9:.1f} GB: "
            "import a smaller network"
        )
    for tensor in tensors:
        tensor.ClearField("data_location")  # even a default value would be written: equal graphs must give equal bytes
    return model, {name: sha256_file(path.parent / name) for name in (path.name, *sorted(external))}


def _check(model: onnx.ModelProto) -> int:
    """Refuse a broken, quantised or half-precision graph, or one with foreign operators; return its ONNX opset."""
    _check_by_onnx(model, full=False)
    inline_functions(model)
    nodes = list(all_nodes(model.graph))
    foreign = [f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in ("", "ai.onnx")]
    if foreign:
        raise ExportError(f"operators outside ONNX: {_listed(foreign)}; export with ONNX's own operators only")
    quantised = [node.op_type for node in nodes if node.op_type in QUANTISED]
    if quantised:
        raise ExportError(f"already quantised ({_listed(quantised)}); give the FP32 graph: Slipway makes INT8 from it")
    half, broken = [], []
    for tensor in (*model.graph.initializer, *(a.t for node in nodes for a in node.attribute if a.HasField("t"))):
        if tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16):
            half.append(tensor.name)
        elif tensor.data_type == onnx.TensorProto.FLOAT and np.isnan(onnx.numpy_helper.to_array(tensor)).any():
            broken.append(tensor.name)
    if half:
        raise ExportError(f"half-precision weights: {_listed(half)}; give the FP32 graph: Slipway makes FP16 from it")
    if broken:
        raise ExportError(f"NaN in the weights: {_listed(broken)}; export from a checkpoint without NaN")
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    model.ir_version = max(model.ir_version, IR_VERSION)
    return int(opset)


def _check_by_onnx(model: onnx.ModelProto, *, full: bool) -> None:
    try:
        onnx.checker.check_model(model, full_check=full)
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"ONNX's own checker rejects it: {_short(error)}; export or copy it again") from None


def _run(model: onnx.ModelProto, pixels_nchw: Float) -> dict[str, Float]:
    """Return the outputs, after checking that each image gets one vector, independent of the rest of its batch."""
    with tempfile.TemporaryDirectory(prefix="slipway-import-") as scratch:
        path = Path(scratch) / "model.onnx"
        try:
            path.write_bytes(model.SerializeToString())
            engine = Engine(path, arithmetic="f32", threads=1)
            alone = [engine.run(pixels_nchw[row : row + 1]) for row in range(len(pixels_nchw))]
            found = engine.run(pixels_nchw)
        except RuntimeError as error:
            raise ExportError(f"OpenVINO cannot run it for batches of 1 and {BATCH}: {_short(error)}") from None
    answers = dict(zip([value.name for value in model.graph.output], found, strict=False))
    for index, (name, together) in enumerate(answers.items()):
        _check_answers(name, [rows[index] for rows in alone], together)
    if answers[OUTPUTS[0]].size > BATCH and _are_probabilities(answers[OUTPUTS[0]].reshape(BATCH, -1)):
        raise ExportError(f"{OUTPUTS[0]} are probabilities: they sum to 1; export the network without its softmax")
    return answers


def _check_answers(name: str, rows: Sequence[Float], together: Float) -> None:
    """Check the batch's outputs `together` against `rows`, the outputs of each image alone."""
    vector = together.ndim > 0 and together.size == len(together) * max(together.shape[1:], default=1)
    if not vector or len(together) != BATCH or rows[0].shape != (1, *together.shape[1:]):
        other = "--logits NAME" if name == OUTPUTS[0] else f"--embedding NAME, or {WITHOUT}"
        raise ExportError(
            f"{name} is {list(rows[0].shape)} for one image and {list(together.shape)} for {BATCH}; it must be one "
            f"vector per image, [n, …]: name another tensor ({other}), or export with a dynamic batch throughout"
        )
    if not np.isfinite(together).all():
        raise ExportError(f"{name} is NaN or infinite for random pixels; export from a checkpoint with finite weights")
    if not _equal(np.concatenate(rows), together):
        raise ExportError(f"{name} of an image depends on the other images in its batch; export in evaluation mode")


def _are_probabilities(logits_nc: Float) -> bool:
    return bool((logits_nc >= 0).all() and np.allclose(logits_nc.sum(axis=1), 1, atol=1e-3))


def _prove_fp32(
    given: onnx.ModelProto, tensors: Mapping[str, str], pixels_nchw: Float, answers: Mapping[str, Float]
) -> None:
    """Compare one image with the file's own FP64 graph, run by another implementation than the FP32 one."""
    pixels = next(value for value in given.graph.input if value.name == tensors[INPUT])
    dtype = onnx.helper.tensor_dtype_to_np_dtype(pixels.type.tensor_type.elem_type)
    expected = reference_answers(
        given, {tensors[INPUT]: pixels_nchw[:1].astype(dtype)}, [tensors[name] for name in answers]
    )
    for (name, found), reference in zip(answers.items(), expected, strict=True):
        if not _equal(found[:1], reference):
            raise ExportError(
                f"it computes in FP64, and in FP32 {tensors[name]} differs by {_furthest(found[:1], reference):.2g} "
                "for random pixels; export it in FP32 (torch: model.float()) and check its outputs"
            )


def _convert(model: onnx.ModelProto, opset: int, pixels_nchw: Float, expected: Mapping[str, Float]) -> onnx.ModelProto:
    """Convert the graph to an opset that every later stage reads, and check it on `pixels_nchw`."""
    advice = f"export it with opset {OPSET} ({OPSETS[0]} to {OPSETS[-1]} need no conversion)"
    try:
        converted = onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # C++ raises several kinds
        raise ExportError(f"opset {opset} cannot be converted: {_short(error)}; {advice}") from None
    found = _run(converted, pixels_nchw)
    if not all(_equal(found[name], answer) for name, answer in expected.items()):
        raise ExportError(f"opset {opset}, whose conversion to {OPSET} changes the outputs; {advice}")
    return converted


def _furthest(a: Float, b: Float) -> float:
    return float(np.abs(a - b).max())


def _equal(a: Float, b: Float) -> bool:
    return a.shape == b.shape and _furthest(a, b) <= TOLERANCE * max(1.0, float(np.abs(b).max()))


def _listed(names: Sequence[str]) -> str:
    return few(sorted(set(names)))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
