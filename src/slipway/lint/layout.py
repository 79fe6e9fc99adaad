"""Checks names, version folders and named files: all that Triton needs before a backend loads a model."""

import re
from pathlib import Path

from slipway.lint.finding import Findings
from slipway.lint.models import AGAIN, ENSEMBLE, Model, Repository

_MODEL_FILE = {"python": "model.py", "tensorrt": "model.plan", "onnxruntime": "model.onnx", "openvino": "model.xml"}
_BACKENDS = {"cpu": ("python",), "gpu": ("python", "dali", "tensorrt", "onnxruntime")}
_TAKEN_FOR_A_VERSION = re.compile(r"-?[1-9].*")
"""Triton reads the leading number of a folder's name, and then looks for a folder with that number."""


def check_layout(model: Model, repository: Repository) -> Findings:
    """Check one model by its folder and its name, platform and backend."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", model.name):
        reason = f"the model is called {model.name!r}; addresses and metrics take letters, digits, _, . and -"
        yield model.finding("name-characters", "name", reason, "rename the folder, and change the name in it")
    if model.config.name not in ("", model.name):
        reason = f"{model.config.name!r}, and the folder is called {model.name!r}: they must be equal"
        yield model.finding("name-differs", "name", reason, "rename one of them")
    yield from _backend(model, repository)
    yield from _versions(model, repository)
    if model.versions:
        yield from _files(model)


def _backend(model: Model, repository: Repository) -> Findings:
    config = model.config
    scheduled = config.HasField("ensemble_scheduling")
    if scheduled != (config.platform == ENSEMBLE) or (config.platform == ENSEMBLE and config.backend):
        reason = f"platform {config.platform!r} and backend {config.backend!r}"
        if scheduled:
            remedy = 'write only platform: "ensemble"'
            yield model.finding("ensemble-platform", "platform", f"{reason} with steps", remedy)
        else:
            remedy = "add ensemble_scheduling with its steps, or another platform"
            yield model.finding("ensemble-platform", "ensemble_scheduling", f"{reason} and no steps", remedy)
    elif not model.backend:
        reason = "neither backend nor platform is given, and no file of the version folder shows it"
        yield model.finding("backend-missing", "backend", reason, 'name it, such as backend: "python"')
    elif repository.lane is not None and model.backend not in (*_BACKENDS[repository.lane.lane], ENSEMBLE):
        lane = repository.lane.lane
        reason = f"{model.backend!r}; the {lane} lane's server has {', '.join(_BACKENDS[lane])}"
        yield model.finding("backend-unknown", "backend", reason, "write one of those")


def _versions(model: Model, repository: Repository) -> Findings:
    folders = sorted(path.name for path in model.folder.iterdir() if path.is_dir())
    odd = [name for name in folders if _TAKEN_FOR_A_VERSION.fullmatch(name) and name not in model.versions]
    for name in odd:
        reason = "read as a version; a version is a whole number without sign or suffix, such as 1"
        yield model.finding("version-name", "", reason, "rename it, or move it out of the model", file=name)
    if not model.versions and not odd:
        reason = f"no version folder ({', '.join(folders) or 'no folder at all'})"
        yield model.finding("version-missing", "", reason, "put the model's files into a folder called 1", file="1")
    if not model.versions:
        return
    wanted = [str(number) for number in model.config.version_policy.specific.versions]
    absent = [version for version in wanted if version not in model.versions]
    if model.version is None or absent:
        there = ", ".join(model.versions)
        reason = f"serves {', '.join(wanted) or 'no version'}, but the folder has {there}"
        yield model.finding("version-policy", "version_policy", reason, "name an existing version, or remove it")
    elif repository.lane is not None and len(model.versions) > 1:
        reason = f"versions {', '.join(model.versions)}; only {model.version} is served"
        yield model.finding("version-hidden", "", reason, "remove the others", file=model.versions[-1])


def _files(model: Model) -> Findings:
    config = model.config
    name = config.default_model_filename or _MODEL_FILE.get(model.backend, "")
    if config.cc_model_filenames and not config.default_model_filename:
        name = ""
    field = "default_model_filename" if config.default_model_filename else ""
    for version in model.served if name and not leaves(name) else ():
        path = model.folder / version / name
        if not (path.is_file() if model.backend == "python" else path.exists()):  # ONNX models may be folders
            reason = f"the {model.backend} backend loads {name}, which is missing"
            remedy = "name an existing file" if field else AGAIN
            yield model.finding("model-file-missing", field, reason, remedy, file=f"{version}/{name}")
    named = {"default_model_filename": config.default_model_filename}
    named |= {f"output[{i}].label_filename": tensor.label_filename for i, tensor in enumerate(config.output)}
    named |= {f"cc_model_filenames[{key!r}]": value for key, value in sorted(config.cc_model_filenames.items())}
    for field, file in named.items():
        if leaves(file):
            reason = f"{file!r} is outside the model's folder, so it is neither checked nor copied"
            yield model.finding(
                "leaves-the-model", field, reason, "move the file into the model, and name it without a path"
            )


def leaves(file: str) -> bool:
    """Whether a file named by a configuration is outside its folder."""
    return file.startswith("/") or ".." in Path(file).parts
