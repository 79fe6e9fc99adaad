"""The heads of a base: groups of them are steps, and each has two ensembles over its base and its group."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import TypeAlias

from slipway.contract import BundleEngine
from slipway.contract.base_bundle import Base, BaseEngine, GroupBase
from slipway.contract.choice import Choice
from slipway.contract.engine import plan_name
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.serving import Serving
from slipway.repository.config import (
    AFTER,
    EMBEDDING,
    IMAGE,
    IMAGE_STATUS,
    ModelConfig,
    Tensor,
    add_mapped_step,
    add_step,
    empty_ensemble,
    step_config,
)
from slipway.repository.served import Served
from slipway.repository.step import ANSWER_CODE, BATCHES_CODE, Content, StepModel
from slipway.system.files import sha256_file

GROUP = 256
"""Most heads of a group, on average (docs/adr/0060)."""
BETWEEN = {tensor: tensor for tensor in ("embedding_nd", "image_status")}
"""Tensors that a group takes from its base."""


def engine_part(engine: BundleEngine | BaseEngine) -> str:
    """`engine`, or `engine_sm90` for a plan of compute capability 9.0; with `.json`, the name of its settings file."""
    plan = engine.settings.plan
    return plan_name(plan.compute_capability if plan else None).replace("model", "engine").removesuffix(".plan")


@dataclass(frozen=True)
class ServedBase(Served[BaseEngine]):
    """A base and the engine that serves it, or the plans for several GPUs."""

    name: str
    base: Base
    engine: BaseEngine
    settings: Serving
    others: tuple[BaseEngine, ...] = ()
    choices: tuple[Choice, ...] = ()
    """Choices between plans, as a classifier has them; the next field is alike."""
    failed_plans: tuple[str, ...] = ()

    @property
    def owner(self) -> Base:
        return self.base

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return (self.embedding,)

    @property
    def embedding(self) -> Tensor:
        return Tensor("embedding_nd", "TYPE_FP32", (self.engine.settings.embedding_size,))

    @property
    def public_embedding(self) -> Tensor:
        """The embedding that the group answers, with zeros for a refused image: a request for a tensor alone fails if
        it is public and also taken by a step."""
        return replace(self.embedding, name=EMBEDDING)

    @property
    def first_core(self) -> int:
        return int(self.base.id[:4], 16)

    @cached_property
    def manifests(self) -> dict[str, str]:
        """sha256 of the manifests of the base and its engines, which every head is made from."""
        return {"base": sha256_file(self.base.path / MANIFEST), **self.engine_manifests}

    @cached_property
    def engine_manifests(self) -> dict[str, str]:
        return {f"base_{engine_part(engine)}": sha256_file(engine.path / MANIFEST) for engine in self.engines}


@dataclass(frozen=True)
class HeadAnswer:
    """One head as its group has it."""

    name: str
    tensors: tuple[Tensor, ...]
    """Public tensors of the head, except EMBEDDING, which belongs to the base."""
    files: dict[str, Content]

    def named(self) -> list[Tensor]:
        """The tensors as the group's step calls them: `pets.LABEL`."""
        return [replace(tensor, name=f"{self.name}.{tensor.name}", label_filename="") for tensor in self.tensors]


def groups(names: Iterable[str]) -> list[list[str]]:
    """The names of the heads of one base in groups. A head's group follows from its name, so that another head changes
    its own group alone, until their number makes twice as many groups."""
    heads, count = sorted(names), 1
    while len(heads) > GROUP * count:
        count *= 2
    found: dict[int, list[str]] = {}
    for name in heads:
        found.setdefault(int(sha256(name.encode()).hexdigest()[:8], 16) % count, []).append(name)
    return [found[number] for number in sorted(found)]


def heads_step(base: ServedBase, group: Sequence[HeadAnswer], *, max_batch_size: int) -> StepModel:
    """One process that answers for a group of heads, on the CPU. On the gpu lane it is an instance of the GPU, as
    `post` is: it then has a stream of its own. A warm-up of Triton's would ask for every head, and one that is left out
    would stop the others."""
    of_base = GroupBase(id=base.base.id, graph_sha256=base.engine.settings.graph_sha256)
    files = {f"heads/{head.name}/{file}": content for head in group for file, content in head.files.items()}
    return StepModel(
        "heads",
        config=step_config(
            inputs=[base.embedding, IMAGE_STATUS, AFTER],
            outputs=[base.public_embedding, *(tensor for head in group for tensor in head.named())],
            max_batch_size=max_batch_size,
            instances=1,
            gpu=base.on_gpu,
            gpus=base.serving.gpu.gpus if base.on_gpu else (),
        ),
        code=("repository/backends/heads/model.py", *BATCHES_CODE, "steps/head.py", *ANSWER_CODE),
        files={"base.json": Content.of(of_base.to_json().encode()), **files},
    )


def head_ensemble(
    name: str, steps: Sequence[ModelConfig], *, head: str, outputs: Sequence[Tensor], max_batch_size: int
) -> ModelConfig:
    """`pets` or `pets_full` over the base's steps and the group's: `pets.LABEL` is LABEL here."""
    *base, group = steps
    config = empty_ensemble(name, inputs=[IMAGE], outputs=outputs, max_batch_size=max_batch_size)
    _add_base(config, base)
    public = [tensor.name for tensor in outputs]
    answer = {tensor if tensor == EMBEDDING else f"{head}.{tensor}": tensor for tensor in public}
    add_mapped_step(config, group.name, inputs=BETWEEN, outputs=answer)
    return config


def _add_base(config: ModelConfig, steps: Sequence[ModelConfig]) -> None:
    """Add the steps of a base, whose tensors keep their names."""
    for step in steps:
        inner = {tensor.name: tensor.name for tensor in (*step.input, *step.output)}
        add_step(config, step, inputs=inner, outputs=inner)


Parts: TypeAlias = Sequence[tuple[str, ModelConfig, Sequence[Tensor]]]
"""Each head as its name, the step of its group, and its public tensors."""


def heads_multi(name: str, base: Sequence[ModelConfig], parts: Parts, *, max_batch_size: int) -> ModelConfig:
    """One ensemble for several heads of a base. It runs the base once, and then the groups in turn, since parallel
    branches can end tritonserver 2.51 (docs/adr/0023): each takes a tensor of the one before."""
    public = [replace(tensor, name=f"{head}.{tensor.name}") for head, _, tensors in parts for tensor in tensors]
    config = empty_ensemble(name, inputs=[IMAGE], outputs=public, max_batch_size=max_batch_size)
    _add_base(config, base)
    before: dict[str, str] = {}
    in_turn = list({group.name: group for _, group, _ in parts}.values())
    for group in in_turn:
        asked = [f"{head}.{tensor.name}" for head, own, tensors in parts for tensor in tensors if own is group]
        outputs = {tensor: tensor for tensor in asked}
        waited_for = f"{asked[0].rpartition('.')[0]}.PROBABILITY"
        if group is not in_turn[-1]:
            outputs[waited_for] = waited_for.lower()  # a public tensor must not be a step's input too
        add_step(config, group, inputs=BETWEEN | before, outputs=outputs)
        before = {AFTER.name: waited_for.lower()}
    return config
