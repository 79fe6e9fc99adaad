"""The models of a repository as Triton will find them: configuration, version, files."""

import difflib
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from google.protobuf import text_format

from slipway.contract import Lane, Manifest
from slipway.contract.manifest import Known
from slipway.lint.finding import Finding
from slipway.lint.proto import model_config

ModelConfig: TypeAlias = Any  # proto.ModelConfig, which has no type information
proto: Any = model_config(extra="serve")
"""Triton's definition of a configuration."""
ENSEMBLE = "ensemble"
CONFIG = "config.pbtxt"
CONFIG_BYTES = 1 << 20
"""Largest configuration that is read. Those of Slipway have 2 kB, and a megabyte takes a second to parse."""
CPU, GPU = proto.ModelInstanceGroup.KIND_CPU, proto.ModelInstanceGroup.KIND_GPU
AGAIN = "assemble the repository again (slipway assemble)"
READABLE = "let the server's user read it"
NEWER_FIELDS = ("max_inflight_requests", "model_metrics")
"""Fields of Triton's present documentation that 2.51 does not have."""
_PLATFORMS = {
    "ensemble": ENSEMBLE,
    "tensorrt_plan": "tensorrt",
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
}
_ELEMENT_BYTES = {
    **dict.fromkeys(("BOOL", "UINT8", "INT8"), 1),
    **dict.fromkeys(("UINT16", "INT16", "FP16", "BF16"), 2),
    **dict.fromkeys(("UINT32", "INT32", "FP32"), 4),
    **dict.fromkeys(("UINT64", "INT64", "FP64"), 8),
}
_INFERRED = {"model.plan": "tensorrt", "model.onnx": "onnxruntime", "model.xml": "openvino", "model.pt": "pytorch"}
"""The backend that Triton derives from a file if none is named, in this order; `model.py` comes last."""


@dataclass(frozen=True)
class Model:
    """One folder of the repository."""

    folder: Path
    config: ModelConfig
    """The parsed configuration; empty if Triton could not read it."""
    problem: Finding | None
    """The reason why there is no configuration; None if there is one."""
    versions: tuple[str, ...]
    """The version folders, the highest first."""

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def served(self) -> tuple[str, ...]:
        """The versions that the policy serves, the highest first."""
        policy = self.config.version_policy
        if policy.HasField("specific"):
            named = {str(number) for number in policy.specific.versions}
            return tuple(version for version in self.versions if version in named)
        latest = policy.latest.num_versions if policy.HasField("latest") else 1
        return self.versions if policy.HasField("all") else self.versions[:latest]

    @property
    def version(self) -> str | None:
        """The version that answers requests without one; None if no version is served."""
        return next(iter(self.served), None)

    @cached_property
    def backend(self) -> str:
        """The backend as Triton would derive it; empty if it cannot."""
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

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """The inputs of the configuration by name."""
        return {tensor.name: tensor for tensor in self.config.input}

    @cached_property
    def outputs(self) -> dict[str, Any]:
        """The outputs of the configuration by name."""
        return {tensor.name: tensor for tensor in self.config.output}

    def instances(self, *, gpus: int) -> int:
        """The number of instances on a machine with `gpus` GPUs: a group on GPUs has `count` on each of its own, or of
        all if it names none."""
        groups = (
            (group, (len(group.gpus) or gpus) if group.kind == GPU else 1) for group in self.config.instance_group
        )
        return sum(max(group.count, 1) * places for group, places in groups) or 1

    def parameter(self, name: str) -> str:
        """The `string_value` of a parameter; empty if it is missing."""
        parameters = self.config.parameters
        return str(parameters[name].string_value) if name in parameters else ""

    def finding(self, rule: str, field: str, reason: str, remedy: str, *, file: str = CONFIG) -> Finding:
        """A finding on `file` of this model."""
        return Finding(self.name, f"{self.name}/{file}", field, reason, remedy, rule)


@dataclass(frozen=True)
class Unchanged:
    """The part of a repository that was checked before, and whose files are the same."""

    classifiers: frozenset[str] = frozenset()
    """Classifiers whose ensembles, but for the names of steps, and files in the steps are the same."""
    steps: frozenset[str] = frozenset()
    """Steps that the ensembles of these classifiers alone run."""
    known: Known = field(default_factory=dict)
    """Files of the whole repository that were hashed before."""
    manifest: Manifest | None = None
    """The repository's manifest, if the caller has just written it; otherwise it is read."""

    @cached_property
    def folders(self) -> frozenset[str]:
        return self.steps | {name + suffix for name in self.classifiers for suffix in ("", "_full")}


NOTHING_UNCHANGED = Unchanged()


@dataclass(frozen=True)
class Repository:
    """The input of the checks."""

    models: Mapping[str, Model]
    lane: Lane | None
    """The content of `lane.json`; None if Slipway did not assemble the repository."""
    unchanged: frozenset[str] = frozenset()
    """Heads in the steps of groups that were checked before, and whose files are the same."""

    @cached_property
    def ensembles(self) -> dict[str, tuple[str, ...]]:
        return ensembles(self.models)

    def without(self, classifiers: Collection[str]) -> "Repository":
        """Return this repository without some classifiers: without their ensembles, and the steps that no other
        classifier runs."""
        if self.lane is None or not classifiers:
            return self
        lane = self.lane.without(classifiers)
        gone = self.lane.ensembles.keys() - lane.ensembles.keys()
        run_by = {
            left: {step for name, steps in self.ensembles.items() if (name not in gone) == left for step in steps}
            for left in (True, False)
        }
        gone |= run_by[False] - run_by[True]
        return Repository({name: model for name, model in self.models.items() if name not in gone}, lane)


def read_models(
    repository: Path, *, but: Collection[str] = (), known: Mapping[str, Model] = MappingProxyType({})
) -> dict[str, Model]:
    """Read every folder, since Triton treats every folder as a model; but for those named.

    Args:
        known: models that were read before, and whose files are the same.

    Raises:
        OSError: the folder cannot be listed.
    """
    with os.scandir(repository) as entries:
        names = sorted(entry.name for entry in entries if entry.name not in but and entry.is_dir())
    return {
        name: replace(known[name], folder=repository / name) if name in known else read_model(repository / name)
        for name in names
    }


def type_name(tensor: Any) -> str:
    """The type of an input or output, such as `TYPE_FP32`."""
    return str(proto.DataType.Name(tensor.data_type))


def tensor_bytes(tensor: Any) -> int:
    """Bytes of an input or output for one image; 0 if its size is open, or those of its elements differ."""
    element_bytes = _ELEMENT_BYTES.get(type_name(tensor).removeprefix("TYPE_"), 0)
    return 0 if -1 in tensor.dims else math.prod(tensor.dims) * element_bytes


def ensembles(models: Mapping[str, Model]) -> dict[str, tuple[str, ...]]:
    """The ensembles: name to the names of the steps."""
    return {
        name: tuple(step.model_name for step in model.config.ensemble_scheduling.step)
        for name, model in models.items()
        if model.backend == ENSEMBLE
    }


def listed(words: Iterable[object]) -> str:
    """The words as `a, b and c`, each once."""
    *rest, last = dict.fromkeys(map(str, words))
    return f"{', '.join(rest)} and {last}" if rest else last


def read_model(folder: Path) -> Model:
    """Read one folder; `problem` of the model describes its fault."""
    try:
        found = [path.name for path in folder.iterdir() if path.is_dir()]
    except OSError as error:
        reason = f"the folder cannot be read: {error.strerror}"
        problem = Finding(folder.name, folder.name, "", reason, READABLE, "unreadable")
        return Model(folder, proto.ModelConfig(), problem, ())
    numbers = sorted((name for name in found if re.fullmatch("0|[1-9][0-9]{0,17}", name)), key=int, reverse=True)
    try:
        config = _parse(_text(folder / CONFIG))
    except _Unusable as error:
        field, reason, remedy, rule = error.args
    except text_format.ParseError as error:
        field, reason, remedy, rule = _explain(error)
    else:
        return Model(folder, config, None, tuple(numbers))
    problem = Finding(folder.name, f"{folder.name}/{CONFIG}", field, reason, remedy, rule)
    return Model(folder, proto.ModelConfig(), problem, tuple(numbers))


_KNOWN: dict[tuple[str, ...], ModelConfig] = {}
"""Configurations by their text, without the name of a group of heads. Protobuf takes 2 ms to read one, and to reload or
to assemble a thousand classifiers changes few of them."""
_MOST_KNOWN = 8192
_GROUP_STEP = re.compile(r'(?<=model_name: ")(heads_[0-9a-f]{12})(?=")')


def _parse(text: str) -> ModelConfig:
    key, group = _without_group(text)
    if key not in _KNOWN:
        config = text_format.Parse(text, proto.ModelConfig())
        remember(text, config)
        return config
    config = deepcopy(_KNOWN[key])
    for step in config.ensemble_scheduling.step if group else ():
        step.model_name = step.model_name or group
    return config


def remember(text: str, config: ModelConfig) -> None:
    """Spare `read_models` the text that protobuf has just written of `config`."""
    if len(_KNOWN) >= _MOST_KNOWN:
        _KNOWN.clear()
    key, group = _without_group(text)
    known = deepcopy(config)
    if group:
        steps = [step.model_name for step in config.ensemble_scheduling.step]
        if steps.count(group) != 1 or "" in steps:  # such as a name in a comment
            return
        known.ensemble_scheduling.step[steps.index(group)].model_name = ""
    _KNOWN[key] = known


def _without_group(text: str) -> tuple[tuple[str, ...], str]:
    """The text of an ensemble around the name of its group of heads, and the name, which alone differs after another
    head of the group changed; the whole text if it names none, or several."""
    before, *rest = _GROUP_STEP.split(text)
    return ((before, rest[1]), rest[0]) if len(rest) == 2 else ((text,), "")


class _Unusable(Exception):
    """Field, reason, remedy and rule of a file without text to parse."""


def _text(path: Path) -> str:
    try:
        if not path.exists():
            reason = "missing, but Triton treats every folder as a model"
            raise _Unusable("", reason, "write one, or move the folder away", "config-missing")
        if not path.is_file():  # opening a pipe would wait for a writer
            raise _Unusable("", "a folder, or a pipe", "replace it by a text file", "config-not-a-file")
        if path.stat().st_size > CONFIG_BYTES:
            reason = f"{path.stat().st_size:,} bytes; a configuration has some thousands"
            raise _Unusable("", reason, "remove everything that is not configuration", "config-too-large")
        return path.read_bytes().decode()
    except OSError as error:
        raise _Unusable("", f"cannot be read: {error.strerror}", READABLE, "unreadable") from None
    except UnicodeDecodeError as error:
        reason = f"byte {error.object[error.start]:#04x} at {error.start} is not UTF-8, but names must be"
        raise _Unusable("", reason, "write the file in UTF-8", "config-not-utf8") from None


def _explain(error: text_format.ParseError) -> tuple[str, str, str, str]:
    """Field, reason, remedy and rule of text that does not parse."""
    text = re.sub(r"^\d+:\d+ : ", "", str(error))[:300]
    where = f"line {error.GetLine()}, column {error.GetColumn()}"
    unknown = re.search(r'Message type "inference\.([\w.]+)" has no field named "(.{1,60}?)"', text)
    if unknown is None:
        return "", f"does not parse at {where}: {text}", "correct the text at that place", "config-syntax"
    message, field = unknown.groups()
    if field in NEWER_FIELDS:
        reason = f"{where}: a field of later releases; Triton 2.51 (24.10) has none"
        return field, reason, "remove it", "config-unknown-field"
    allowed = attrgetter(message)(proto).DESCRIPTOR.fields_by_name
    close = difflib.get_close_matches(field, list(allowed), n=1)
    remedy = f"did you mean {close[0]}?" if close else "remove it, or correct its name"
    return field, f"{where}: {message} has no such field", remedy, "config-unknown-field"
