"""One ensemble that answers for several classifiers: an image is decoded once.

On the cpu lane the classifiers run in turn, because parallel branches crashed tritonserver 2.51 on requests that
clients had cancelled (docs/adr/0023). So each engine but the first takes a tensor of the previous answer as an input,
and ignores it. TensorRT engines have no such input, and the servers of the gpu lane no such bug (docs/adr/0051): there
the engines run in parallel.
"""

from collections.abc import Sequence
from dataclasses import replace

from slipway.contract import RepositoryError
from slipway.repository.classifier import Classifier
from slipway.repository.config import AFTER, IMAGE, ModelConfig, add_step, empty_ensemble
from slipway.repository.heads import heads_multi

NOT_OF_THE_DECODE = ("gpu", "mean", "std", "engine_instances", "cuda_graphs", "fallback")
"""Keys that the engine alone depends on, and `serving.gpu` itself."""
BEFORE_THE_DECODE = ("max_queue_size", "queue_timeout_ms", "warmup_batches", "instances")
"""Keys of `serving` that the gpu lane's first steps depend on too."""


def multi_config(name: str, group: Sequence[Classifier], chains: Sequence[Sequence[ModelConfig]]) -> ModelConfig:
    """The ensemble `name` over the steps of all of `group`. Its outputs for classifier `a` are `a.LABEL` and so on.

    Raises:
        RepositoryError: the first steps are not the same; names the difference.
    """
    if any(classifier.base for classifier in group):
        return _of_heads(name, group, chains)
    for classifier in group:
        if classifier.lane == "cpu" and classifier.serving.layout != "steps":
            raise RepositoryError(
                f"{name}: {classifier.name} has serving.layout {classifier.serving.layout}, but only classifiers with "
                "layout steps can share a decode; set it to steps, or leave the classifier out"
            )
    *decode, _, _ = chains[0]
    for classifier, (*other, _, _) in zip(group, chains, strict=True):
        if [step.name for step in other] != [step.name for step in decode]:
            raise RepositoryError(
                f"{name}: {group[0].name} and {classifier.name} cannot share one decode: "
                f"{_difference(group[0], classifier)}; make it equal, or leave one of them out"
            )
    config = empty_ensemble(
        name,
        inputs=[IMAGE],
        outputs=[replace(tensor, name=f"{c.name}.{tensor.name}") for c in group for tensor in c.answer],
        max_batch_size=group[0].max_batch_size,
    )
    shared = {tensor.name: tensor.name for step in decode for tensor in (*step.input, *step.output)}
    for step in decode:
        add_step(config, step, inputs=shared, outputs=shared)
    before: dict[str, str] = {}
    for classifier, (*_, engine, post) in zip(group, chains, strict=True):
        looked_at = [classifier.logits, *(classifier.embedding if classifier.engine.decision.needs_embedding else ())]
        outputs = {tensor.name: f"{classifier.name}.{tensor.name}" for tensor in looked_at}
        answer = {tensor.name: f"{classifier.name}.{tensor.name}" for tensor in classifier.answer}
        if classifier.lane == "cpu" and classifier is not group[-1]:
            answer["PROBABILITY"] = f"{classifier.name}.probability"
        add_step(config, engine, inputs=shared | before, outputs=outputs)
        add_step(config, post, inputs=shared | outputs, outputs=answer)
        before = {AFTER.name: f"{classifier.name}.probability"}
    return config


def _of_heads(name: str, group: Sequence[Classifier], chains: Sequence[Sequence[ModelConfig]]) -> ModelConfig:
    bases = {classifier.name: classifier.base.name if classifier.base else "no base" for classifier in group}
    if len(set(bases.values())) > 1:
        given = ", ".join(f"{classifier} on {base}" for classifier, base in bases.items())
        raise RepositoryError(f"{name}: {given}; only heads of one base share its embedding: leave the others out")
    parts = [(classifier.name, own, classifier.answer) for classifier, (*_, own) in zip(group, chains, strict=True)]
    return heads_multi(name, chains[0][:-1], parts, max_batch_size=group[0].max_batch_size)


def _difference(one: Classifier, other: Classifier) -> str:
    """Return the difference between two classifiers in the settings that this lane's first steps depend on."""
    of_lane = [("preprocess", one.bundle.preprocess, other.bundle.preprocess), ("serving", one.serving, other.serving)]
    if one.lane == "gpu":
        of_lane.append(("serving.gpu", one.serving.gpu, other.serving.gpu))
    different = [
        f"{what}.{key} is {_shown(getattr(a, key))} for {one.name} and {_shown(getattr(b, key))} for {other.name}"
        for what, a, b in of_lane
        for key in (BEFORE_THE_DECODE if one.lane == "gpu" and what == "serving" else type(a).model_fields)
        if key not in NOT_OF_THE_DECODE and getattr(a, key) != getattr(b, key)
    ]
    return ", ".join(different)


def _shown(value: object) -> object:
    """Return a value as a fleet file writes it."""
    return list(value) if isinstance(value, tuple) else value
