"""Compares the `dali.py` of NVIDIA's DALI backend with the configuration beside it, without running it.

The backend takes outputs by position, and checks their types and sizes only if the pipeline declares them. It
serialises the one function that is marked for it.
"""

import ast
from pathlib import Path
from typing import Any

from slipway.lint.finding import Findings
from slipway.lint.literals import UNKNOWN, Literals
from slipway.lint.models import CPU, Model, listed, type_name
from slipway.lint.python_steps import parse

_TYPES = {
    "BOOL": "TYPE_BOOL",
    "FLOAT": "TYPE_FP32",
    "FLOAT16": "TYPE_FP16",
    "FLOAT64": "TYPE_FP64",
    **{f"{sign}INT{bits}": f"TYPE_{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}


def check_dali(model: Model) -> Findings:
    """Check everything on which the file and the configuration must agree."""
    path = _file(model)
    if path is None:
        return
    where = f"{model.files.name}/{path.name}"
    if not path.is_file():
        reason = "the DALI backend finds neither model.dali nor dali.py"
        yield model.finding("dali-missing", "", reason, "write dali.py with one marked pipeline", file=where)
        return
    tree = parse(path.read_bytes())
    if isinstance(tree, str):
        yield model.finding("python-syntax", "", tree, "correct the file", file=where)
        return
    marked = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and "autoserialize" in _marks(node)]
    if len(marked) != 1:
        reason = (
            f"{len(marked)} functions are marked @autoserialize ({', '.join(node.name for node in marked) or 'none'})"
        )
        yield model.finding("dali-autoserialize", "", reason, "mark exactly one", file=where)
        return
    yield from _pipeline(model, where, marked[0], Literals(tree, path.parent))


def _file(model: Model) -> Path | None:
    """The Python file that the backend would serialise; None if there is a serialised pipeline."""
    name = model.config.default_model_filename
    if name:
        return model.files / name if name.endswith(".py") else None
    return None if (model.files / "model.dali").is_file() else model.files / "dali.py"


def _marks(function: ast.FunctionDef) -> list[str]:
    """The names of a function's decorators, the outermost first."""
    plain = [mark.func if isinstance(mark, ast.Call) else mark for mark in function.decorator_list]
    return [mark.attr if isinstance(mark, ast.Attribute) else getattr(mark, "id", "") for mark in plain]


def _pipeline(model: Model, where: str, function: ast.FunctionDef, literals: Literals) -> Findings:
    marks = _marks(function)
    if "pipeline_def" not in marks or marks.index("autoserialize") > marks.index("pipeline_def"):
        reason = f"@autoserialize of {function.name} is not above a @pipeline_def"
        yield model.finding("dali-autoserialize", function.name, reason, "write it on the line above", file=where)
        return
    definition = function.decorator_list[marks.index("pipeline_def")]
    given = {word.arg: literals.value(word.value) for word in getattr(definition, "keywords", ())}

    def wrong(rule: str, field: str, reason: str, remedy: str) -> Any:
        return model.finding(rule, f"pipeline_def({field})", reason, remedy, file=where)

    largest = model.config.max_batch_size
    size = given.get("batch_size")
    if size is None or (isinstance(size, int) and size < largest):
        reason = f"{size or 'not given'}, but the configuration allows batches of {largest}"
        yield wrong("dali-batch-size", "batch_size", reason, f"write {largest}")
    device = given.get("device_id")
    groups = model.config.instance_group
    if device is not None and device is not UNKNOWN and groups and all(group.kind == CPU for group in groups):
        reason = f"{device}, but the configuration runs it on the CPU"
        yield wrong("dali-device", "device_id", reason, "write None, or KIND_GPU in config.pbtxt")
    outputs = model.config.output
    expected = {
        "output_dtype": [type_name(tensor) for tensor in outputs],
        "output_ndim": [len(tensor.dims) for tensor in outputs],
    }
    for field, wanted in expected.items():
        found = _listed(given.get(field), types=field == "output_dtype")
        if found is not UNKNOWN and found != wanted:
            reason = f"{found or 'not given'}, but config.pbtxt says {wanted}, and the backend does not check"
            yield wrong("dali-outputs", field, reason, "make both equal")
    yield from _inputs(model, where, function, literals)


def _listed(value: Any, *, types: bool) -> Any:
    """A list with Triton's names of types; UNKNOWN if a part of it is unknown."""
    entries = list(value) if isinstance(value, list | tuple) else [value]
    if value is None or value is UNKNOWN or any(entry is UNKNOWN for entry in entries):
        return value
    return [_TYPES.get(str(entry), str(entry)) for entry in entries] if types else entries


def _inputs(model: Model, where: str, function: ast.FunctionDef, literals: Literals) -> Findings:
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    sources = [call for call in calls if getattr(call.func, "attr", "") in ("external_source", "ExternalSource")]
    words = [{word.arg: literals.value(word.value) for word in call.keywords} for call in sources]
    found = {source.get("name"): source for source in words}
    configured = {tensor.name: tensor for tensor in model.config.input}
    if UNKNOWN in found or not found:
        return
    if found.keys() != configured.keys():
        there, wanted = listed(found), listed(configured or ["none"])
        reason = f"external_source reads {there}, but config.pbtxt has input {wanted}"
        yield model.finding("dali-inputs", function.name, reason, "give both the same names", file=where)
        return
    for name, source in found.items():
        tensor = configured[name]
        expected = {"dtype": type_name(tensor), "ndim": len(tensor.dims)}
        dtype = source.get("dtype")
        given = {"dtype": _TYPES.get(str(dtype), dtype), "ndim": source.get("ndim")}
        for field in ("dtype", "ndim"):
            if given[field] not in (None, UNKNOWN, expected[field]):
                reason = f"{name} is {given[field]} there, and {expected[field]} in config.pbtxt"
                yield model.finding("dali-inputs", f"external_source({field})", reason, "make both equal", file=where)
