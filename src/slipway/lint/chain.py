"""Compares the files of each model with its neighbours and `lane.json`: bundle, labels, decision, graph."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from slipway.contract import Decision, EngineSettings, Lane, Preprocess, SpecError, read_labels
from slipway.contract.engine import INPUT, LANES
from slipway.lint.ensembles import check_ensemble
from slipway.lint.finding import Finding, Findings
from slipway.lint.interface import check_interface
from slipway.lint.models import AGAIN, ENSEMBLE, Model, Repository, ensembles, type_name

CLASSES = ("logits_nc", "PROBABILITY")
"""Tensors with one number per class: steps have the first; the fused one, which outputs no logits, has the second."""
_Said = Iterator[tuple[str, str]]
"""Pairs of a field and the reason why it does not fit."""


def check_chain(lane: Lane, models: Mapping[str, Model], hashes: Mapping[str, str]) -> Findings:
    """All broken links; `hashes` maps the paths of the manifest to their sha256."""
    for model in models.values():
        if model.versions and model.backend != ENSEMBLE:
            yield from _step(model, lane, hashes)
    for name, steps in ensembles(models).items():
        classifiers = lane.ensembles.get(name, ())
        expected = {lane.classifiers[classifier] for classifier in classifiers if classifier in lane.classifiers}
        for holder in (models[name], *(models[step] for step in steps if step in models)):
            yield from _bundle(holder, expected, of=name)
        yield from _labels_of(models[name], [models[step] for step in steps if step in models])


def broken_links(repository: Repository, hashes: Mapping[str, str]) -> list[tuple[str, str]]:
    """The faults that prevent a repository of Slipway from being served: pairs of model and reason."""
    lane, models = repository.lane, repository.models
    assert lane is not None
    found = [model.problem for model in models.values() if model.problem is not None]
    for name in repository.ensembles:
        found += check_ensemble(models[name], models)
    found += [*check_interface(repository), *check_chain(lane, models, hashes)]
    return [(each.model, f"{each.file.removeprefix(f'{each.model}/')}: {each.reason}") for each in found]


def _bundle(model: Model, expected: set[str], *, of: str) -> Findings:
    """A step names one bundle, and an ensemble those of all its classifiers, one per line."""
    path = model.files / "bundle.txt" if model.versions else model.folder
    if not path.is_file() or not expected:
        return
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    named = {line.split(" ")[-1].strip() for line in lines if line.strip()}
    if not named or not named <= expected or (model.backend == ENSEMBLE and named != expected):
        found, wanted = (", ".join(sorted(f"{bundle:.12}" for bundle in bundles)) for bundles in (named, expected))
        reason = f"names bundle {found or 'none'}, but lane.json says {wanted} for {of}"
        yield model.finding("bundle-differs", "", reason, AGAIN, file=f"{path.parent.name}/bundle.txt")


def _labels_of(ensemble: Model, steps: list[Model]) -> Findings:
    """Triton reads the ensemble's labels for `class_count`, and the last step its own for LABEL."""
    for tensor in ensemble.config.output:
        ours = ensemble.folder / tensor.label_filename
        for step in steps if tensor.label_filename and type_name(tensor) != "TYPE_STRING" and ours.is_file() else ():
            theirs = step.files / "labels.txt" if step.versions else ours
            if theirs.is_file() and ours.read_bytes() != theirs.read_bytes():
                reason = f"not the labels of {step.name}"
                yield ensemble.finding("labels-differ", "", reason, AGAIN, file=tensor.label_filename)


def _step(model: Model, lane: Lane, hashes: Mapping[str, str]) -> Findings:
    checks = {
        "preprocess.json": _preprocess,
        "engine*.json": _engine,
        "labels.txt": _labels,
        "decision.json": _decision,
    }
    for pattern, check in checks.items():
        for path in sorted(path for path in model.files.glob(pattern) if path.is_file()):

            def found(rule: str, field: str, reason: str, name: str = path.name) -> Finding:
                return model.finding(rule, field, reason, AGAIN, file=f"{model.files.name}/{name}")

            try:
                for field, reason in check(path, model, lane, hashes):
                    yield found("files-differ", field, reason)
            except SpecError as error:
                rule = "labels-text" if check is _labels else "file-broken"
                yield found(rule, "", str(error).removeprefix(f"{path}: "))


def _preprocess(path: Path, model: Model, _: Lane, __: Mapping[str, str]) -> _Said:
    preprocess = Preprocess.read(path)
    made, written = [*preprocess.input_size, 3], _dims(model, INPUT)
    if written not in ([], made):
        yield "input_height", f"makes {INPUT} {made}, and config.pbtxt says {written}"


def _engine(path: Path, model: Model, lane: Lane, hashes: Mapping[str, str]) -> _Said:
    settings = EngineSettings.read(path)
    if LANES[settings.target] != lane.lane:
        yield "target", f"compiled for target {settings.target}, but lane.json says the {lane.lane} lane"
    if settings.input != INPUT:
        yield "input", f"its graph takes {settings.input}, and the steps hand over {INPUT}: compile the engine again"
    graph = f"{model.name}/{model.files.name}/model.onnx"
    if hashes.get(graph, settings.graph_sha256) != settings.graph_sha256:
        yield "graph_sha256", f"of graph {settings.graph_sha256:.12}, and model.onnx is graph {hashes[graph]:.12}"
    if model.parameter("arithmetic") not in ("", settings.arithmetic):
        reason = f"{settings.arithmetic}, and config.pbtxt computes in {model.parameter('arithmetic')}"
        yield "arithmetic", reason
    for tensors, size in ((CLASSES, settings.classes), (("embedding_nd", "EMBEDDING"), settings.embedding_size)):
        if _dims(model, *tensors) not in ([], [size]):
            yield "classes", f"says that {tensors[0]} is [{size}], and config.pbtxt says {_dims(model, *tensors)}"


def _labels(path: Path, model: Model, _: Lane, __: Mapping[str, str]) -> _Said:
    labels, written = read_labels(path), _dims(model, *CLASSES)
    if written not in ([], [len(labels)]):
        yield "", f"{len(labels)} labels, and config.pbtxt says that {CLASSES[0]} is {written}"


def _decision(path: Path, model: Model, _: Lane, __: Mapping[str, str]) -> _Said:
    decision = Decision.read(path)
    label, classes = _dims(model, "LABEL"), _dims(model, *CLASSES)
    if label not in ([], [decision.top_k]):
        yield "top_k", f"answers the {decision.top_k} best, and config.pbtxt says that LABEL is {label}"
    thresholds = len(decision.thresholds or ())
    if thresholds and classes not in ([], [thresholds]):
        yield "thresholds", f"{thresholds} thresholds, and config.pbtxt says that {CLASSES[0]} is {classes}"


def _dims(model: Model, *names: str) -> list[int]:
    """The dims of the first of `names` that is an input or output; empty if none is."""
    tensors = {entry.name: list(entry.dims) for entry in (*model.config.input, *model.config.output)}
    return next((tensors[name] for name in names if name in tensors), [])
