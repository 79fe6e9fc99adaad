"""What each model holds against its neighbours and `lane.json`: bundle, labels, decision, graph. Nothing is run."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from slipway.contract import Decision, EngineSettings, Lane, Preprocess, SpecError, read_labels
from slipway.contract.engine import LANES
from slipway.lint.models import ENSEMBLE, Model, ensembles

Link = tuple[str, str]
"""The model, and what does not fit."""


def broken_links(lane: Lane, models: Mapping[str, Model], hashes: Mapping[str, str]) -> list[Link]:
    """Every link that does not hold; `hashes` is the manifest's relative path to sha256."""
    broken = [(name, problem) for name, model in models.items() for problem in _step(model, lane, hashes)]
    expected = {base + suffix: bundle for base, bundle in lane.classifiers.items() for suffix in ("", "_full")}
    for name, steps in ensembles(models).items():
        if name not in expected:
            broken.append((name, "an ensemble of no classifier that lane.json names"))
            continue
        for holder in (name, *steps):
            problem = _other_bundle(models.get(holder), expected[name], of=name)
            if problem:
                broken.append((holder, problem))
        broken += [(name, problem) for step in steps for problem in _other_labels(models[name], models.get(step))]
    absent = [name for name in expected if name not in models]
    broken += [(name, "lane.json names this classifier, and no such ensemble is here") for name in absent]
    return list(dict.fromkeys(broken))


def _other_bundle(model: Model | None, expected: str, *, of: str) -> str:
    if model is None or model.version is None or not (model.files / "bundle.txt").is_file():
        return ""
    found = (model.files / "bundle.txt").read_text(encoding="utf-8", errors="replace").strip()
    if found == expected:
        return ""
    return f"bundle.txt names bundle {found:.12}, and lane.json says {expected:.12} for {of}"


def _other_labels(ensemble: Model, step: Model | None) -> Iterator[str]:
    """Triton reads the ensemble's labels for `class_count`, and the last step its own for LABEL."""
    if step is None or step.version is None:
        return
    ours, theirs = ensemble.folder / "labels.txt", step.files / "labels.txt"
    if ours.is_file() and theirs.is_file() and ours.read_bytes() != theirs.read_bytes():
        yield f"labels.txt is not that of {step.name}"


def _step(model: Model, lane: Lane, hashes: Mapping[str, str]) -> Iterator[str]:
    if model.version is None or model.backend == ENSEMBLE:
        return
    checks = {
        "preprocess.json": _preprocess,
        "engine*.json": _engine,
        "labels.txt": _labels,
        "decision.json": _decision,
    }
    for pattern, check in checks.items():
        for path in sorted(model.files.glob(pattern)):
            try:
                yield from check(path, model, lane, hashes)
            except SpecError as error:
                yield str(error).removeprefix(f"{model.files}/")


def _preprocess(path: Path, model: Model, _: Lane, __: Mapping[str, str]) -> Iterator[str]:
    preprocess = Preprocess.read(path)
    made, written = [3, preprocess.input_height, preprocess.input_width], _dims(model, "pixels_nchw")
    if written not in ([], made):
        yield f"preprocess.json makes pixels_nchw {made}, and config.pbtxt says {written}"


def _engine(path: Path, model: Model, lane: Lane, hashes: Mapping[str, str]) -> Iterator[str]:
    settings = EngineSettings.read(path)
    if LANES[settings.target] != lane.lane:
        yield f"{path.name} is of target {settings.target}, and lane.json says the {lane.lane} lane"
    graph = f"{model.name}/{model.version}/model.onnx"
    if hashes.get(graph, settings.graph_sha256) != settings.graph_sha256:
        yield f"model.onnx is graph {hashes[graph]:.12}, and {path.name} is of graph {settings.graph_sha256:.12}"
    if model.parameter("arithmetic") not in ("", settings.arithmetic):
        yield f"config.pbtxt computes in {model.parameter('arithmetic')}, and {path.name} says {settings.arithmetic}"
    for tensor, size in (("logits_nc", settings.classes), ("embedding_nd", settings.embedding_size)):
        if _dims(model, tensor) not in ([], [size]):
            yield f"{path.name} says that {tensor} is [{size}], and config.pbtxt says {_dims(model, tensor)}"


def _labels(path: Path, model: Model, _: Lane, __: Mapping[str, str]) -> Iterator[str]:
    labels, written = read_labels(path), _dims(model, "logits_nc")
    if written not in ([], [len(labels)]):
        yield f"labels.txt has {len(labels)} labels, and config.pbtxt says that logits_nc is {written}"


def _decision(path: Path, model: Model, _: Lane, __: Mapping[str, str]) -> Iterator[str]:
    decision = Decision.read(path)
    label, classes = _dims(model, "LABEL"), _dims(model, "logits_nc")
    if label not in ([], [decision.top_k]):
        yield f"decision.json answers the {decision.top_k} best, and config.pbtxt says that LABEL is {label}"
    thresholds = len(decision.thresholds or ())
    if thresholds and classes not in ([], [thresholds]):
        yield f"decision.json has {thresholds} thresholds, and config.pbtxt says that logits_nc is {classes}"


def _dims(model: Model, tensor: str) -> list[int]:
    """Of an input or output of the configuration; empty where it has no such tensor."""
    tensors = {entry.name: list(entry.dims) for entry in (*model.config.input, *model.config.output)}
    return tensors.get(tensor, [])
