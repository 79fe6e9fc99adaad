"""Checks what clients use: the ensembles and tensors that `lane.json` promises, and label files; no step is idle."""

import math
from collections import Counter
from collections.abc import Collection
from typing import Any

from slipway.contract import EngineSettings, Lane, SpecError
from slipway.contract.labels import odd_in
from slipway.lint.ensembles import Wiring
from slipway.lint.finding import Finding, Findings
from slipway.lint.heads import GROUP
from slipway.lint.models import AGAIN, ENSEMBLE, Model, Repository, listed, tensor_bytes, type_name

IMAGE = {"IMAGE": "STRING"}
ANSWER = {"LABEL": "STRING", "SCORE": "FP32", "CLASS_ID": "INT32", "STATUS": "INT32", "BUNDLE": "STRING"}
FULL = {"PROBABILITY": "FP32", "EMBEDDING": "FP32"}
ANSWERING = ("post_", "answer_", "fused_", GROUP)
"""Prefixes of steps that leave a refused image without an answer."""


def check_interface(repository: Repository) -> Findings:
    """Check a repository that has a lane."""
    lane = repository.lane
    assert lane is not None
    if not lane.classifiers and not lane.bases:  # a base without heads is a finding of `check_heads`
        yield Finding("", "lane.json", "classifiers", "names no classifier", AGAIN, "lane-empty")
    without_embedding = {name for name, model in repository.models.items() if _has_no_embedding(model)}
    for name, classifiers in lane.ensembles.items():
        if name not in repository.models:
            reason = f"lane.json names {listed(classifiers)}, but this ensemble is missing"
            yield Finding(name, name, "", reason, AGAIN, "ensemble-missing")
            continue
        model = repository.models[name]
        if model.problem is None and model.backend == ENSEMBLE:
            full = FULL if name.endswith("_full") and name not in lane.multi else {}
            if full and not without_embedding.isdisjoint(repository.ensembles[name]):
                full = {tensor: kind for tensor, kind in full.items() if tensor != "EMBEDDING"}
            prefixes = [f"{classifier}." for classifier in classifiers] if name in lane.multi else [""]
            yield from _tensors(
                model, {f"{p}{tensor}": kind for p in prefixes for tensor, kind in (ANSWER | full).items()}
            )
            yield from _chain(model, lane)
    for name in repository.ensembles.keys() - lane.ensembles.keys():
        reason = "not an ensemble of a classifier that lane.json names"
        yield repository.models[name].finding("ensemble-unnamed", "", reason, AGAIN, file="config.pbtxt")
    used = {step for steps in repository.ensembles.values() for step in steps}
    asked = _asked(repository)
    for name, model in repository.models.items():
        if not lane.kept and name not in used and name not in repository.ensembles and model.backend:
            reason = "no ensemble uses this step, and lane.json keeps no older bundle: it only takes memory"
            yield model.finding("step-unused", "", reason, "remove the folder, or assemble again")
        yield from _memory(model, lane.shm_default_bytes, asked.get(name))


def _has_no_embedding(model: Model) -> bool:
    """Whether the step runs a network without an embedding."""
    for path in sorted(model.files.glob("engine*.json")) if model.versions and model.backend != ENSEMBLE else ():
        try:
            if EngineSettings.read(path).embedding_size == 0:
                return True
        except SpecError:  # a finding of `check_chain`
            continue
    return False


def _asked(repository: Repository) -> dict[str, set[str]]:
    """The outputs of each group of heads that the most demanding ensemble asks of it, which is that of one head or a
    `multi`; the group computes no other heads meanwhile."""
    most: dict[str, set[str]] = {}
    for name in repository.ensembles:
        for step in repository.models[name].config.ensemble_scheduling.step:
            if step.model_name.startswith(GROUP) and step.model_name in repository.models:
                outputs = repository.models[step.model_name].outputs
                rivals = (most.get(step.model_name, set()), set(step.output_map) & outputs.keys())
                most[step.model_name] = max(rivals, key=lambda names: sum(tensor_bytes(outputs[one]) for one in names))
    return most


def _tensors(model: Model, outputs: dict[str, str]) -> Findings:
    for side, expected, tensors in (("input", IMAGE, model.config.input), ("output", outputs, model.config.output)):
        found = {tensor.name: type_name(tensor).removeprefix("TYPE_") for tensor in tensors}
        for name in expected.keys() - found.keys():
            yield model.finding("public-tensors", side, f"no {name}, which clients ask for", AGAIN)
        for name in found.keys() - expected.keys():
            yield model.finding("public-tensors", side, f"{name}, which clients do not know", AGAIN)
        for name in sorted(found.keys() & expected.keys()):
            if found[name] != expected[name]:
                reason = f"{name} is {found[name]}, and clients expect {expected[name]}"
                yield model.finding("public-tensors", side, reason, AGAIN)
    sizes = {tensor.name: list(tensor.dims) for tensor in (*model.config.input, *model.config.output)}
    for name, dims in sizes.items():
        kind = name.rpartition(".")[2]
        expected_dims = (
            [1] if kind in ("IMAGE", "STATUS", "BUNDLE") else sizes.get(name.removesuffix(kind) + "LABEL", [])
        )
        if kind in {*IMAGE, *ANSWER} and expected_dims and dims != expected_dims:
            yield model.finding("public-tensors", name, f"{dims}, but the contract says {expected_dims}", AGAIN)


def _chain(model: Model, lane: Lane) -> Findings:
    wiring = Wiring.of(model.config)
    for index, tensor in enumerate(model.config.output):
        maker = wiring.steps[wiring.made_by[tensor.name]].model_name if tensor.name in wiring.made_by else "post_"
        if not maker.startswith(ANSWERING):
            reason = f"{tensor.name} comes from {maker}, which does not handle refused images"
            yield model.finding("public-from-a-step", f"output[{index}]", reason, "let the post step output it")
    for index, step in enumerate(wiring.steps):
        field = f"ensemble_scheduling.step[{index}]"
        beside = [wiring.steps[other].model_name for other in wiring.in_parallel(index) if other < index]
        if beside and not lane.needs_gpu:  # later servers survive it, docs/adr/0051
            reason = f"{step.model_name} runs beside {listed(beside)}: a client that gives up can end tritonserver 2.51"
            yield model.finding("steps-in-parallel", field, reason, "let it take a tensor of the step before")
        if (
            step.model_name.startswith("post_")
            and "EMBEDDING" in step.output_map
            and "embedding_nd" not in step.input_map
        ):
            reason = "the step outputs EMBEDDING but gets no embedding_nd"
            yield model.finding("embedding-missing", f"{field}.input_map", reason, "map embedding_nd to it")


def _memory(model: Model, shm_bytes: int, asked: Collection[str] | None) -> Findings:
    """Check the shared memory for the largest batch, as far as its sizes are known; of outputs, for all or `asked`."""
    if model.backend != "python":
        return
    outputs = model.outputs.values() if asked is None else [model.outputs[name] for name in asked]
    tensors = (*model.config.input, *outputs)
    needed = max(model.config.max_batch_size, 1) * sum(tensor_bytes(tensor) for tensor in tensors)
    if needed > shm_bytes:
        reason = (
            f"shm_default_bytes is {shm_bytes:,}, and one batch of {model.name} takes {needed:,}: it grows under load"
        )
        yield Finding("", "lane.json", "shm_default_bytes", reason, AGAIN, "shared-memory")


def check_labels(model: Model) -> Findings:
    """Check every `label_filename` of a configuration, and its file."""
    for index, tensor in enumerate(model.config.output):
        if not tensor.label_filename:
            continue
        field, path = f"output[{index}].label_filename", model.folder / tensor.label_filename
        if type_name(tensor) == "TYPE_STRING":
            reason = f"{tensor.name} holds bytes, and a request for its classes ends the server"
            yield model.finding("labels-on-bytes", field, reason, "name labels only for an output of numbers")
        elif not path.is_file():
            remedy = "write it with one label per line, or remove label_filename"
            yield model.finding("labels-missing", field, f"{tensor.label_filename} is missing", remedy)
        else:
            yield from _file(model, tensor, path.read_bytes())


def _file(model: Model, tensor: Any, data: bytes) -> Findings:
    def wrong(rule: str, reason: str) -> Finding:
        remedy = f"write the {tensor.name} labels in their order, one per line"
        return model.finding(rule, "", reason, remedy, file=tensor.label_filename)

    try:
        labels = data.decode().removesuffix("\n").split("\n") if data else []
    except UnicodeDecodeError as error:
        yield wrong("labels-text", f"byte {data[error.start]:#04x} at {error.start} is not UTF-8")
        return
    classes = math.prod(tensor.dims)
    if len(labels) != classes and -1 not in tensor.dims:
        yield wrong("labels-count", f"{len(labels)} labels, and {tensor.name} has {classes} values")
    odd = [label for label in labels if odd_in(label)]
    if odd:
        yield wrong("labels-text", f"{odd[0]!r}: {odd_in(odd[0])}")
    twice = [label for label, count in Counter(labels).items() if count > 1 and label]
    if twice:
        yield wrong("labels-text", f"{twice[0]!r} stands for {labels.count(twice[0])} classes")
