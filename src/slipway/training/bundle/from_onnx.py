"""A team's ONNX file to one of ours: any names in; `pixels_nchw`, `logits_nc` and `embedding_nd` out, and proved."""

import tempfile
from collections.abc import Mapping, Sequence
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
from slipway.training.bundle.to_onnx import OPSET

MAX_BYTES = 2**31 - 1  # of one protobuf file
OPSETS = range(13, 25)
"""From the first with quantisation per channel to the last that TensorRT reads; other graphs are converted."""
IR_VERSION = 8  # the least that is written; before 4, every initializer is also an input
BATCH = 3  # of the proof that rows do not mix
TOLERANCE = 1e-3  # of the largest answer; FP32 in another order of summation stays far below
SHOWN = 8  # names in one error
QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul")


@dataclass(frozen=True)
class Adopted:
    """A graph with our names that has been run; `tensors` maps these names to those of the file."""

    model: onnx.ModelProto
    tensors: dict[str, str]
    files: dict[str, str]
    """sha256 of the file, and of those with its external data."""
    classes: int
    opset: int
    """Of the file. A graph outside of `OPSETS` was converted, and proved equal."""
    changes: tuple[str, ...]
    """What else was done to it, in words."""


def adopt(
    path: Path,
    *,
    input_size: tuple[int, int],
    logits: str | None,
    embedding: str | None,
    with_embedding: bool = True,
) -> Adopted:
    """Read an ONNX file of any origin as a classifier of `FP32 [n, 3, *input_size]`.

    Args:
        logits: the tensor of the logits; None where the only output is it. One logit, of a sigmoid, becomes two.
        embedding: the tensor `[n, d]` that becomes the embedding; None takes what the last matrix product sees.
        with_embedding: False leaves the embedding out.

    Raises:
        SpecError: the file cannot be read, or is not a complete ONNX file.
        ExportError: the graph cannot be served as it is; says what was found, and what to export or to name.
    """
    model, files = _load(path)
    try:
        opset = _check(model)
        given = _copy(model)
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
    """Leave our tensors and what they need, under our names; returns the names that they had."""
    tensors = {INPUT: find_input(graph, input_size), OUTPUTS[0]: find_logits(graph, logits)}
    if with_embedding:
        tensors[OUTPUTS[1]] = find_embedding(graph, tensors[OUTPUTS[0]], embedding)
    rename(graph, tensors)
    declare(graph, input_size, dict.fromkeys(name for name in OUTPUTS if name in tensors))
    prune(graph)
    return tensors


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _load(path: Path) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The whole model, with external data of the file's own folder put inside; and the sha256 of every file."""
    try:
        size = path.stat().st_size
        model = onnx.ModelProto.FromString(path.read_bytes()) if size <= MAX_BYTES else onnx.ModelProto()
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except DecodeError:
        raise SpecError(f"{path}: no ONNX file, or one that was cut short; copy or export it again") from None
    tensors = model.graph.initializer
    external = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    try:
        size += sum((path.parent / name).stat().st_size for name in external)
        if size <= MAX_BYTES:
            load_external_data_for_model(model, str(path.absolute().parent))
    except (ValueError, OSError, onnx.checker.ValidationError) as error:
        raise SpecError(
            f"{path}: its external data cannot be used: {_short(error)}; put the data into the folder of the ONNX "
            "file, as files and not as links, or export everything into one file"
        ) from None
    if size > MAX_BYTES:
        raise SpecError(
            f"{path}: {size / 1e9:.1f} GB with its external data; a bundle holds one ONNX file of at most "
            f"{MAX_BYTES / 1e9:.1f} GB, so import a smaller network"
        )
    for tensor in tensors:
        tensor.ClearField("data_location")  # set, to its default: equal graphs give equal bytes
    return model, {name: sha256_file(path.parent / name) for name in (path.name, *sorted(external))}


def _check(model: onnx.ModelProto) -> int:
    """Refuse what is broken, quantised, not FP32 or not ONNX alone; return the opset, the only one that is left."""
    _check_by_onnx(model, full=False)
    inline_functions(model)
    nodes = list(all_nodes(model.graph))
    foreign = [f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in ("", "ai.onnx")]
    if foreign:
        raise ExportError(f"operators outside of ONNX: {_listed(foreign)}; export with ONNX's own operators alone")
    quantised = [node.op_type for node in nodes if node.op_type in QUANTISED]
    if quantised:
        raise ExportError(f"quantised already ({_listed(quantised)}); give the FP32 graph, INT8 is made from it")
    half, broken = [], []
    for tensor in (*model.graph.initializer, *(a.t for node in nodes for a in node.attribute if a.HasField("t"))):
        if tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16):
            half.append(tensor.name)
        elif tensor.data_type == onnx.TensorProto.FLOAT and np.isnan(onnx.numpy_helper.to_array(tensor)).any():
            broken.append(tensor.name)
    if half:
        raise ExportError(f"weights in half precision: {_listed(half)}; give the FP32 graph, FP16 is made from it")
    if broken:
        raise ExportError(f"NaN in the weights: {_listed(broken)}; export from a checkpoint that is sound")
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    model.ir_version = max(model.ir_version, IR_VERSION)
    return int(opset)


def _check_by_onnx(model: onnx.ModelProto, *, full: bool) -> None:
    try:
        onnx.checker.check_model(model, full_check=full)
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"it does not pass ONNX's own checks: {_short(error)}; export or copy it again") from None


def _run(model: onnx.ModelProto, pixels_nchw: Float) -> dict[str, Float]:
    """The outputs, once they are proved to be one vector an image, row by row independent of the batch."""
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
    """`rows` are the answers to each image by itself."""
    vector = together.ndim > 0 and together.size == len(together) * max(together.shape[1:], default=1)
    if not vector or len(together) != BATCH or rows[0].shape != (1, *together.shape[1:]):
        other = "--logits NAME" if name == OUTPUTS[0] else f"--embedding NAME, or {WITHOUT}"
        raise ExportError(
            f"{name} is {list(rows[0].shape)} for one image and {list(together.shape)} for {BATCH}, where a vector for "
            f"each image is needed, [n, …]; name another tensor: {other}; or export it with a dynamic batch throughout"
        )
    if not np.isfinite(together).all():
        raise ExportError(f"{name} is NaN or infinite for random pixels; export from a checkpoint that is sound")
    if not _equal(np.concatenate(rows), together):
        raise ExportError(f"{name} of an image depends on the others in its batch; export it in evaluation mode")


def _are_probabilities(logits_nc: Float) -> bool:
    return bool((logits_nc >= 0).all() and np.allclose(logits_nc.sum(axis=1), 1, atol=1e-3))


def _prove_fp32(
    given: onnx.ModelProto, tensors: Mapping[str, str], pixels_nchw: Float, answers: Mapping[str, Float]
) -> None:
    """One image through the file's own FP64, by another implementation than the one that computes in FP32."""
    pixels = next(value for value in given.graph.input if value.name == tensors[INPUT])
    dtype = onnx.helper.tensor_dtype_to_np_dtype(pixels.type.tensor_type.elem_type)
    expected = reference_answers(
        given, {tensors[INPUT]: pixels_nchw[:1].astype(dtype)}, [tensors[name] for name in answers]
    )
    for (name, found), reference in zip(answers.items(), expected, strict=True):
        if not _equal(found[:1], reference):
            raise ExportError(
                f"it computes in FP64, and FP32 gives another {tensors[name]}: {_furthest(found[:1], reference):.2g} "
                "off for random pixels; export it in FP32 (torch: model.float()) and look at what it answers"
            )


def _convert(model: onnx.ModelProto, opset: int, pixels_nchw: Float, expected: Mapping[str, Float]) -> onnx.ModelProto:
    """The same graph in an opset that every later stage reads, proved on `pixels_nchw`."""
    advice = f"export it with opset {OPSET}; {OPSETS[0]} to {OPSETS[-1]} are taken as they are"
    try:
        converted = onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # of several kinds, from C++
        raise ExportError(f"opset {opset} cannot be converted: {_short(error)}; {advice}") from None
    found = _run(converted, pixels_nchw)
    if not all(_equal(found[name], answer) for name, answer in expected.items()):
        raise ExportError(f"opset {opset}, and its conversion to {OPSET} gives other answers; {advice}")
    return converted


def _furthest(a: Float, b: Float) -> float:
    return float(np.abs(a - b).max())


def _equal(a: Float, b: Float) -> bool:
    return a.shape == b.shape and _furthest(a, b) <= TOLERANCE * max(1.0, float(np.abs(b).max()))


def _listed(names: Sequence[str]) -> str:
    distinct = sorted(set(names))
    return ", ".join(distinct[:SHOWN]) + (f" and {len(distinct) - SHOWN} more" if len(distinct) > SHOWN else "")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
