"""Checks the heads of a base: each has a folder in its group's step, and its ensembles run it and no other head.

The server leaves out a head that it cannot load, and serves the others of its group. So none of this prevents serving,
and the repository is not to be assembled or shipped all the same.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slipway.contract import Decision, EngineSettings, Lane, SpecError, read_labels
from slipway.contract.base_bundle import GroupBase
from slipway.contract.lane import FILE_NAME as LANE
from slipway.lint.finding import Finding, Findings
from slipway.lint.models import AGAIN, Model, Repository
from slipway.steps.head import Head

GROUP = "heads_"
"""Prefix of the names of groups of heads."""
FOLDER = "heads"
FILES = ("head.npz", "decision.json", "labels.txt", "bundle.txt")
OF_BASE, EMBEDDING = "base.json", "EMBEDDING"
TAKEN = ("embedding_nd", "image_status")
"""Tensors that a group needs from its base: without the status, refused images would be answered."""
LEFT_OUT = "so the server leaves this head out, and requests for it fail"
FIT_AGAIN = f"{AGAIN}; if it is so in the head's own run, fit the head again first (slipway head)"


def heads_of(model: Model) -> dict[str, dict[str, Any]]:
    """The heads of a group's step: name to its outputs, `LABEL` and so on. Empty for any other model."""
    found: dict[str, dict[str, Any]] = {}
    for output in model.config.output if model.name.startswith(GROUP) else ():
        head, _, tensor = output.name.rpartition(".")
        if head:  # the name of EMBEDDING has no head before it
            found.setdefault(head, {})[tensor] = output
    return found


def check_heads(repository: Repository) -> Findings:
    """Check a repository that has a lane."""
    lane = repository.lane
    assert lane is not None
    served = set[str]()
    for model in repository.models.values():
        heads = heads_of(model) if model.versions else {}
        for name, outputs in ((name, heads[name]) for name in heads if name not in repository.unchanged):
            yield from _Checked(model, name, outputs, lane).findings()
        for folder in sorted((model.files / FOLDER).iterdir() if heads and (model.files / FOLDER).is_dir() else ()):
            if folder.name not in heads:
                reason = "config.pbtxt has no output of this head"
                yield model.finding("files-differ", "", reason, AGAIN, file=f"{model.files.name}/heads/{folder.name}")
        served |= heads.keys()
    named = {head for base in (lane.bases or {}).values() for head in base.heads}
    for head in sorted(named ^ (served & lane.classifiers.keys())):
        said = "names it, and no step has it" if head in named else "does not name it, and a step has it"
        yield Finding("", LANE, "bases", f"head {head}: lane.json {said}", AGAIN, "files-differ")
    beside: dict[str, set[str]] = {}
    for name in lane.ensembles.keys() & repository.ensembles.keys():
        yield from _ensemble(repository.models[name], repository)
        steps = repository.ensembles[name]
        for group in (step for step in steps if step.startswith(GROUP)):
            beside.setdefault(group, set()).update(steps)
    for group, around in sorted(beside.items()):
        names = (group, *sorted(around - {group}))
        models = [repository.models[name] for name in names if name in repository.models]
        if models and models[0].name == group and models[0].versions and models[0].problem is None:
            yield from _of_base(models[0], models[1:], lane)


def _of_base(group: Model, others: list[Model], lane: Lane) -> Findings:
    """Check that a group takes what its base gives, and embeddings of the graph that the engine beside it runs."""
    for tensor in TAKEN:
        if tensor not in group.inputs:
            yield group.finding("group-inputs", "input", f"no {tensor}, which every head needs", AGAIN)
    where = f"{group.files.name}/{OF_BASE}"
    if not (group.files / OF_BASE).is_file():
        yield group.finding("files-differ", "", "missing, so nothing says whose embeddings it takes", AGAIN, file=where)
        return
    try:
        of_base = GroupBase.read(group.files / OF_BASE)
    except SpecError as error:
        yield group.finding("file-broken", "", _without(group.files / OF_BASE, error), AGAIN, file=where)
        return
    heads = heads_of(group).keys()
    named = {base.id for base in lane.bases.values() if not heads.isdisjoint(base.heads)}
    if named - {of_base.id}:
        wanted = ", ".join(f"{base:.12}" for base in sorted(named))
        reason = f"heads on base {of_base.id:.12}, and lane.json says {wanted}"
        yield group.finding("files-differ", "id", reason, AGAIN, file=where)
    for model in others:
        for path in sorted(model.files.glob("engine*.json")) if model.versions else ():
            try:
                graph = EngineSettings.read(path).graph_sha256
            except SpecError:  # a finding of the chain
                continue
            if graph != of_base.graph_sha256:
                fitted = f"fitted to embeddings of graph {of_base.graph_sha256:.12}"
                reason = f"{fitted}, and {model.name}/{model.files.name}/{path.name} is of graph {graph:.12}"
                yield group.finding("files-differ", "graph_sha256", reason, AGAIN, file=where)


class _Checked:
    """One head of a group, as its files and its configuration describe it."""

    def __init__(self, model: Model, name: str, outputs: Mapping[str, Any], lane: Lane) -> None:
        self._model, self._outputs = model, outputs
        self._bundle = lane.classifiers.get(name)
        self._folder = model.files / FOLDER / name
        self._where = f"{model.files.name}/{FOLDER}/{name}"
        embedding = model.inputs.get("embedding_nd")
        self._embedding_size = embedding.dims[0] if embedding is not None and len(embedding.dims) == 1 else 0

    def findings(self) -> Findings:
        missing = [file for file in FILES if not (self._folder / file).is_file()]
        for file in missing:
            yield self._found("head-left-out", file, f"missing, {LEFT_OUT}")
        if missing:
            return
        bundle = (self._folder / "bundle.txt").read_text(encoding="utf-8", errors="replace").strip()
        if self._bundle is not None and bundle != self._bundle:
            reason = f"names bundle {bundle:.12}, but lane.json says {self._bundle:.12}"
            yield self._found("bundle-differs", "bundle.txt", reason)
        try:
            labels = read_labels(self._folder / "labels.txt")
        except SpecError as error:
            yield self._found("labels-text", "labels.txt", _without(self._folder / "labels.txt", error))
            return
        if self._dims("PROBABILITY") not in ([], [len(labels)]):
            reason = f"{len(labels)} labels, and config.pbtxt says that PROBABILITY is {self._dims('PROBABILITY')}"
            yield self._found("files-differ", "labels.txt", reason)
        yield from self._weights(len(labels))
        yield from self._decision(len(labels))

    def _weights(self, labels: int) -> Findings:
        try:
            head = Head.read(self._folder / "head.npz")
        except (OSError, ValueError) as error:
            yield self._found("head-left-out", "head.npz", f"{error}, {LEFT_OUT}")
            return
        if (head.embedding_size, head.classes) != (self._embedding_size, labels):
            takes = f"takes {head.embedding_size} numbers to {head.classes} classes"
            reason = f"{takes}, not {self._embedding_size} numbers to {labels} labels, {LEFT_OUT}"
            yield self._found("head-left-out", "head.npz", reason)

    def _decision(self, classes: int) -> Findings:
        path = self._folder / "decision.json"
        try:
            decision = Decision.read(path)
        except SpecError as error:
            yield self._found("file-broken", path.name, _without(path, error))
            return
        if self._dims("LABEL") not in ([], [decision.top_k]):
            reason = f"answers the {decision.top_k} best, and config.pbtxt says that LABEL is {self._dims('LABEL')}"
            yield self._found("files-differ", path.name, reason, field="top_k")
        means = decision.unknown.class_means if decision.unknown is not None else None
        numbers = {
            "thresholds": (len(decision.thresholds or ()), classes),
            "class_means": (means.size if means is not None else 0, classes * self._embedding_size),
        }
        for field, (given, needed) in numbers.items():
            if given not in (0, needed):
                reason = f"{given} numbers, and {classes} classes need {needed}"
                yield self._found("files-differ", path.name, reason, field=field)

    def _dims(self, tensor: str) -> list[int]:
        return list(self._outputs[tensor].dims) if tensor in self._outputs else []

    def _found(self, rule: str, file: str, reason: str, *, field: str = "") -> Finding:
        remedy = FIT_AGAIN if rule == "head-left-out" else AGAIN
        return self._model.finding(rule, field, reason, remedy, file=f"{self._where}/{file}")


def _ensemble(model: Model, repository: Repository) -> Findings:
    """Check that LABEL of `pets` is `pets.LABEL` of its group, and that Triton reads the same labels as the head."""
    lane = repository.lane
    assert lane is not None
    (*_, classifier) = lane.ensembles[model.name]
    public = {output.name for output in model.config.output}
    for index, step in enumerate(model.config.ensemble_scheduling.step):
        if not step.model_name.startswith(GROUP):
            continue
        for inner, outer in sorted(step.output_map.items()):
            as_it_is = model.name in lane.multi or outer == EMBEDDING
            expected = outer if as_it_is else f"{classifier}.{outer}"
            if outer in public and inner != expected:
                field = f"ensemble_scheduling.step[{index}].output_map[{inner!r}]"
                reason = f"{outer} of {model.name} comes from {inner}, another answer than {expected}"
                yield model.finding("bundle-differs", field, reason, AGAIN)
        group = repository.models.get(step.model_name)
        if group is not None and group.versions:
            yield from _labels(model, group.files / FOLDER / classifier / "labels.txt")


def _labels(ensemble: Model, theirs: Path) -> Findings:
    for file in {output.label_filename for output in ensemble.config.output} - {""}:
        ours = ensemble.folder / file
        if ours.is_file() and theirs.is_file() and ours.read_bytes() != theirs.read_bytes():
            yield ensemble.finding(
                "labels-differ", "", f"not the labels of head {theirs.parent.name}", AGAIN, file=file
            )


def _without(path: Path, error: SpecError) -> str:
    return str(error).removeprefix(f"{path}: ")
