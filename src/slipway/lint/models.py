"""The models of a repository as Triton will find them: configuration, version, files."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from google.protobuf import text_format

from slipway.contract import MissingDependencyError

try:
    from tritonclient.grpc import model_config_pb2 as pb
except ImportError:
    raise MissingDependencyError("tritonclient", extra="serve") from None

ModelConfig: TypeAlias = Any  # pb.ModelConfig, which has no type information
ENSEMBLE = "ensemble"
CONFIG = "config.pbtxt"
_BACKENDS = {"ensemble": ENSEMBLE, "tensorrt_plan": "tensorrt"}
_DEFAULT_FILES = {"python": "model.py", "tensorrt": "model.plan"}


@dataclass(frozen=True)
class Model:
    """One folder of the repository."""

    folder: Path
    config: ModelConfig
    """Empty where there is none that Triton could read."""
    problem: str
    """Why there is none, or empty."""
    version: str | None
    """The highest, which Triton serves."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def backend(self) -> str:
        return str(self.config.backend or _BACKENDS.get(self.config.platform, self.config.platform))

    @property
    def files(self) -> Path:
        """The version folder."""
        assert self.version is not None
        return self.folder / self.version

    @property
    def instances(self) -> int:
        return sum(max(group.count, 1) for group in self.config.instance_group) or 1

    def parameter(self, name: str) -> str:
        """A `string_value`, or empty."""
        parameters = self.config.parameters
        return str(parameters[name].string_value) if name in parameters else ""


def read_models(repository: Path) -> dict[str, Model]:
    """Every folder, since Triton takes every folder for a model."""
    folders = sorted(path for path in repository.iterdir() if path.is_dir())
    return {folder.name: _read(folder) for folder in folders}


def type_name(tensor: Any) -> str:
    """`TYPE_FP32` and the like, of an input or output of a configuration."""
    return str(pb.DataType.Name(tensor.data_type))


def ensembles(models: Mapping[str, Model]) -> dict[str, tuple[str, ...]]:
    """Name to the names of its steps."""
    return {
        name: tuple(step.model_name for step in model.config.ensemble_scheduling.step)
        for name, model in models.items()
        if model.backend == ENSEMBLE
    }


def check_layout(model: Model) -> str | None:
    """What keeps Triton from loading the folder before any backend sees it."""
    if model.problem:
        return model.problem
    if model.config.name not in ("", model.name):
        return f"{CONFIG} is of {model.config.name!r}, and a model's name is that of its folder"
    if not model.backend:
        return f"{CONFIG} names no backend"
    if model.version is None:
        return "no version folder; Triton wants one that is a number, such as 1"
    missing = sorted({str(path.relative_to(model.folder)) for path in _named_files(model) if not path.is_file()})
    return f"{', '.join(missing)} is missing" if missing else None


def _read(folder: Path) -> Model:
    versions = [path.name for path in folder.iterdir() if path.is_dir() and re.fullmatch("0|[1-9][0-9]*", path.name)]
    version = max(versions, key=int, default=None)
    try:
        text = (folder / CONFIG).read_bytes().decode()
    except OSError as error:
        return Model(folder, pb.ModelConfig(), f"{CONFIG} cannot be read: {error.strerror}", version)
    except UnicodeDecodeError as error:
        return Model(folder, pb.ModelConfig(), f"{CONFIG} is not UTF-8: {error}", version)
    try:
        return Model(folder, text_format.Parse(text, pb.ModelConfig()), "", version)
    except text_format.ParseError as error:
        return Model(folder, pb.ModelConfig(), f"{CONFIG} does not parse: {error}", version)


def _named_files(model: Model) -> Iterator[Path]:
    config = model.config
    for tensor in config.output:
        if tensor.label_filename:
            yield model.folder / tensor.label_filename
    for name in config.cc_model_filenames.values():
        yield model.files / name
    default = config.default_model_filename or _DEFAULT_FILES.get(model.backend, "")
    if default and (config.default_model_filename or not config.cc_model_filenames):
        yield model.files / default
    if model.backend == "dali" and not config.default_model_filename and not (model.files / "model.dali").is_file():
        yield model.files / "dali.py"
