"""Reads the `model.py` of a Python step without running it: its class, imports, and needed files and parameters."""

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from slipway.lint.finding import Findings
from slipway.lint.heads import FILES as HEAD_FILES
from slipway.lint.heads import GROUP
from slipway.lint.literals import walked
from slipway.lint.models import AGAIN, Model, Repository

STEP = "TritonPythonModel"
_FILE = re.compile(r"[\w.-]+\.(json|txt|onnx|py|plan|xml|bin)")


@dataclass(frozen=True)
class StepSource:
    """The facts about one Python file."""

    problem: str
    """The reason why it is not valid Python; then nothing else is known."""
    siblings: frozenset[str] = frozenset()
    """Modules imported from its own folder."""
    classes: frozenset[str] = frozenset()
    has_step: bool = False
    """Whether the file has `TritonPythonModel`, or may import it."""
    executes: bool = True
    """False if the step neither has nor inherits `execute`."""
    files: frozenset[str] = frozenset()
    """Names of files that it reads: `"labels.txt"` for `here / "labels.txt"`."""
    parameters: frozenset[tuple[str, bool]] = frozenset()
    """Parameters that it reads, such as `parameters["threads"]["string_value"]`, and whether `int()` is around it."""


def check_python_step(model: Model, repository: Repository) -> Findings:
    """Check everything that would prevent a step from loading, as far as its code shows."""
    name = model.config.default_model_filename or "model.py"
    if not (model.files / name).is_file():
        return  # a finding of the layout
    paths = sorted(path for path in model.files.glob("*.py") if path.is_file())
    sources = {path.name: read_source(path.read_bytes()) for path in paths}
    for file, source in sources.items():
        where = f"{model.files.name}/{file}"
        if source.problem:
            yield model.finding("python-syntax", "", source.problem, "correct the file", file=where)
        for sibling in sorted(source.siblings):
            if not any(path.name.partition(".")[0] == sibling for path in model.files.iterdir()):
                reason = f"imports .{sibling}, but {sibling}.py is missing beside it"
                yield model.finding("python-import", "", reason, AGAIN, file=where)
        if repository.lane is not None:  # their code always has the same form
            yield from _needs(model, where, source)
    if name in sources and not sources[name].problem:
        yield from _step(model, f"{model.files.name}/{name}", sources[name])


def _step(model: Model, where: str, source: StepSource) -> Findings:
    if not source.has_step:
        reason = f"no class {STEP}, only {', '.join(sorted(source.classes)) or 'none'}"
        yield model.finding("python-class", "", reason, "give the class that name", file=where)
    elif not source.executes:
        reason = f"{STEP} has no execute: the step loads, and fails every request"
        yield model.finding("python-execute", "", reason, "write execute(self, requests)", file=where)


def _needs(model: Model, where: str, source: StepSource) -> Findings:
    of_heads = HEAD_FILES if model.name.startswith(GROUP) else ()
    for name in sorted(source.files.difference(of_heads)):
        if not (model.files / name).is_file():
            file = f"{model.files.name}/{name}"
            yield model.finding("step-file-missing", "", f"missing, but {where} reads it", AGAIN, file=file)
    for name, counts in sorted(source.parameters):
        field, given = f"parameters[{name!r}]", model.parameter(name)
        if not given:
            yield model.finding("parameter-missing", field, f"missing, but {where} reads it", AGAIN)
        elif counts and not re.fullmatch(r"-?\d+", given):
            yield model.finding(
                "parameter-number", field, f"{given!r}, but {where} reads a whole number", "write a whole number"
            )
        elif counts and name.endswith("threads") and int(given) < 1:
            reason = f"{given} threads: DALI refuses that, and for OpenVINO 0 means all processors"
            yield model.finding("parameter-threads", field, reason, "write 1 or more")


@lru_cache(maxsize=64)
def parse(data: bytes) -> ast.Module | str:
    """The syntax tree, or the reason why there is none; cached, so it must not be changed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's escape sequences
            return ast.parse(data)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"{type(error).__name__}: {error}"[:200]


@lru_cache(maxsize=1024)
def read_source(data: bytes) -> StepSource:
    """The facts about a file; cached, since a fleet has the same few files many times."""
    tree = parse(data)
    if isinstance(tree, str):
        return StepSource(tree)
    nodes = walked(tree)
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    beside = [node for node in imports if node.level == 1]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    step = classes.get(STEP)
    methods = {node.name for node in step.body if isinstance(node, ast.FunctionDef)} if step is not None else set()
    return StepSource(
        problem="",
        siblings=frozenset(
            [node.module.partition(".")[0] for node in beside if node.module]
            + [alias.name for node in beside if not node.module for alias in node.names if alias.name != "*"]
        ),
        classes=frozenset(classes),
        has_step=bool(
            {STEP, "*"} & {*classes, *names, *(alias.asname or alias.name for i in imports for alias in i.names)}
        ),
        executes=step is None or "execute" in methods or bool(step.bases),
        files=frozenset(_named_files(nodes)),
        parameters=frozenset(_parameters(nodes)),
    )


def _named_files(nodes: Sequence[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            name = node.right.value
            if isinstance(name, str) and _FILE.fullmatch(name):
                yield name


def _parameters(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, bool]]:
    calls = [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "int"]
    numbers = {id(argument) for call in calls for argument in call.args}
    for node in nodes:
        if isinstance(node, ast.Subscript) and _key(node) == "string_value" and isinstance(node.value, ast.Subscript):
            name = _key(node.value)
            if name is not None:
                yield name, id(node) in numbers


def _key(node: ast.Subscript) -> str | None:
    value = node.slice.value if isinstance(node.slice, ast.Constant) else None
    return value if isinstance(value, str) else None
