"""The models of a repository as Triton will find them: configuration, version, files."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeAlias

from google.protobuf import text_format

from slipway.contract import Lane, MissingDependencyError
from slipway.lint.finding import Finding

try:
    from tritonclient.grpc import model_config_pb2 as pb
except ImportError:
    raise MissingDependencyError("tritonclient", extra="serve") from None

ModelConfig: TypeAlias = Any  # proto.ModelConfig, which has no type information
proto: Any = pb
"""Triton's own definition of a configuration."""
ENSEMBLE = "ensemble"
CONFIG = "config.pbtxt"
CONFIG_BYTES = 1 << 20
"""More is not read. One of ours has two thousand bytes, and a megabyte takes a second to parse."""
CPU, GPU = proto.ModelInstanceGroup.KIND_CPU, proto.ModelInstanceGroup.KIND_GPU
AGAIN = "assemble the repository again (slipway assemble)"
READABLE = "let its user read it"
NEWER_FIELDS = ("max_inflight_requests", "model_metrics")
"""What Triton's documentation shows today and 2.51 does not have."""
_PLATFORMS = {
    "ensemble": ENSEMBLE,
    "tensorrt_plan": "tensorrt",
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
}
_INFERRED = {"model.plan": "tensorrt", "model.onnx": "onnxruntime", "model.xml": "openvino", "model.pt": "pytorch"}
"""What Triton takes a folder for that names no backend, in this order; `model.py` comes last."""


@dataclass(frozen=True)
class Model:
    """One folder of the repository."""

    folder: Path
    config: ModelConfig
    """Empty where there is none that Triton could read."""
    problem: Finding | None
    """Why there is none."""
    versions: tuple[str, ...]
    """Folders with a number for a name, the highest first."""

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def served(self) -> tuple[str, ...]:
        """The versions that its policy serves, the highest first."""
        policy = self.config.version_policy
        if policy.HasField("specific"):
            named = {str(number) for number in policy.specific.versions}
            return tuple(version for version in self.versions if version in named)
        latest = policy.latest.num_versions if policy.HasField("latest") else 1
        return self.versions if policy.HasField("all") else self.versions[:latest]

    @property
    def version(self) -> str | None:
        """The one that answers who names none; None where no version is served."""
        return next(iter(self.served), None)

    @cached_property
    def backend(self) -> str:
        """As Triton fills it in; empty where it cannot."""
        config = self.config
        if config.HasField("ensemble_scheduling"):
            return ENSEMBLE
        if config.backend or config.platform:
            return str(config.backend or _PLATFORMS.get(config.platform, config.platform))
        files = {path.name for path in self.files.iterdir()} if self.versions else set()
        files = {config.default_model_filename} if config.default_model_filename else files
        return next((backend for file, backend in (*_INFERRED.items(), ("model.py", "python")) if file in files), "")

    @property
    def files(self) -> Path:
        """The version folder."""
        assert self.versions
        return self.folder / (self.version or self.versions[0])

    @property
    def instances(self) -> int:
        return sum(max(group.count, 1) for group in self.config.instance_group) or 1

    def parameter(self, name: str) -> str:
        """A `string_value`, or empty."""
        parameters = self.config.parameters
        return str(parameters[name].string_value) if name in parameters else ""

    def finding(self, rule: str, field: str, reason: str, remedy: str, *, file: str = CONFIG) -> Finding:
        """About `file` of this model."""
        return Finding(self.name, f"{self.name}/{file}", field, reason, remedy, rule)


@dataclass(frozen=True)
class Repository:
    """Everything that the checks look at."""

    models: Mapping[str, Model]
    lane: Lane | None
    """None: it is of another make, and what `lane.json` would say is not asked for."""

    @cached_property
    def ensembles(self) -> dict[str, tuple[str, ...]]:
        return ensembles(self.models)


def read_models(repository: Path) -> dict[str, Model]:
    """Every folder, since Triton takes every folder for a model.

    Raises:
        OSError: the folder cannot be listed.
    """
    return {folder.name: _read(folder) for folder in sorted(repository.iterdir()) if folder.is_dir()}


def type_name(tensor: Any) -> str:
    """`TYPE_FP32` and the like, of an input or output of a configuration."""
    return str(proto.DataType.Name(tensor.data_type))


def ensembles(models: Mapping[str, Model]) -> dict[str, tuple[str, ...]]:
    """Name to the names of its steps."""
    return {
        name: tuple(step.model_name for step in model.config.ensemble_scheduling.step)
        for name, model in models.items()
        if model.backend == ENSEMBLE
    }


def listed(words: Iterable[object]) -> str:
    """`a, b and c`, each once."""
    *rest, last = dict.fromkeys(map(str, words))
    return f"{', '.join(rest)} and {last}" if rest else last


def _read(folder: Path) -> Model:
    try:
        found = [path.name for path in folder.iterdir() if path.is_dir()]
    except OSError as error:
        reason = f"the folder cannot be read: {error.strerror}"
        problem = Finding(folder.name, folder.name, "", reason, READABLE, "unreadable")
        return Model(folder, proto.ModelConfig(), problem, ())
    numbers = sorted((name for name in found if re.fullmatch("0|[1-9][0-9]{0,17}", name)), key=int, reverse=True)
    try:
        config = text_format.Parse(_text(folder / CONFIG), proto.ModelConfig())
    except _Unusable as error:
        field, reason, remedy, rule = error.args
    except text_format.ParseError as error:
        field, reason, remedy, rule = _explain(error)
    else:
        return Model(folder, config, None, tuple(numbers))
    problem = Finding(folder.name, f"{folder.name}/{CONFIG}", field, reason, remedy, rule)
    return Model(folder, proto.ModelConfig(), problem, tuple(numbers))


class _Unusable(Exception):
    """Field, reason, remedy and rule of a file that holds no text to parse."""


def _text(path: Path) -> str:
    try:
        if not path.exists():
            reason = "not there, and Triton takes every folder for a model"
            raise _Unusable("", reason, "write one, or move the folder away", "config-missing")
        if not path.is_file():  # to open a pipe would wait for somebody who writes
            raise _Unusable("", "a folder, or a pipe", "put a text file in its place", "config-not-a-file")
        if path.stat().st_size > CONFIG_BYTES:
            reason = f"{path.stat().st_size:,} bytes; a configuration has some thousands"
            raise _Unusable("", reason, "take out what is no configuration", "config-too-large")
        return path.read_bytes().decode()
    except OSError as error:
        raise _Unusable("", f"cannot be read: {error.strerror}", READABLE, "unreadable") from None
    except UnicodeDecodeError as error:
        reason = f"byte {error.object[error.start]:#04x} at {error.start} is not UTF-8, and names must be"
        raise _Unusable("", reason, "write the file in UTF-8", "config-not-utf8") from None


def _explain(error: text_format.ParseError) -> tuple[str, str, str, str]:
    """Field, reason, remedy and rule of text that does not parse."""
    text = re.sub(r"^\d+:\d+ : ", "", str(error))[:300]
    where = f"line {error.GetLine()}, column {error.GetColumn()}"
    unknown = re.search(r'Message type "inference\.([\w.]+)" has no field named "(.{1,60}?)"', text)
    if unknown is None:
        return "", f"does not parse at {where}: {text}", "correct the text there", "config-syntax"
    message, field = unknown.groups()
    if field in NEWER_FIELDS:
        reason = f"{where}: a field of later releases; Triton 2.51 (24.10) has none"
        return field, reason, "remove it", "config-unknown-field"
    allowed = attrgetter(message)(proto).DESCRIPTOR.fields_by_name
    close = difflib.get_close_matches(field, list(allowed), n=1)
    remedy = f"did you mean {close[0]}?" if close else "remove it, or correct its name"
    return field, f"{where}: {message} has no such field", remedy, "config-unknown-field"
