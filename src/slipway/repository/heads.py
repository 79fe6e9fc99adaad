"""The heads of a base: groups of them are steps, and each has two ensembles over its base and its group."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import TypeAlias

from slipway.contract.base_bundle import Base, BaseEngine
from slipway.contract.choice import Choice
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.spec import Serving
from slipway.repository.config import ModelConfig, Tensor, add_mapped_step, add_step, empty_ensemble, step_config
from slipway.repository.step import ANSWER_CODE, BATCHES_CODE, Content, StepModel
from slipway.repository.tensors import AFTER, EMBEDDING, IMAGE, IMAGE_STATUS
from slipway.system.files import sha256_file

GROUP = 256
"""Most heads of a group, on average (docs/adr/0060)."""


@dataclass(frozen=True)
class ServedBase:
    """A base and the engine that serves it."""

    name: str
    base: Base
    engine: BaseEngine
    choice: Choice
    serving: Serving

    @property
    def embedding(self) -> Tensor:
        return Tensor("embedding_nd", "TYPE_FP32", (self.engine.settings.embedding_size,))

    @property
    def public_embedding(self) -> Tensor:
        """The same numbers again: a request for a tensor alone that is public and also taken by a step fails."""
        return replace(self.embedding, name=EMBEDDING)

    @property
    def first_core(self) -> int:
        return int(self.base.id[:4], 16)

    @cached_property
    def manifests(self) -> dict[str, str]:
        """sha256 of the manifests of the base and its engine, which every head is made from."""
        return {
            "base": sha256_file(self.base.path / MANIFEST),
            "base_engine": sha256_file(self.engine.path / MANIFEST),
        }


@dataclass(frozen=True)
class HeadAnswer:
    """What a group has of one head."""

    name: str
    tensors: tuple[Tensor, ...]
    """Its public tensors, but for EMBEDDING, which is the base's."""
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
    """One process that answers for a group of heads."""
    return StepModel(
        "heads",
        config=step_config(
            inputs=[base.embedding, IMAGE_STATUS, AFTER],
            outputs=[tensor for head in group for tensor in head.named()],
            max_batch_size=max_batch_size,
            instances=1,
        ),
        code=("repository/backends/heads/model.py", *BATCHES_CODE, "steps/head.py", *ANSWER_CODE),
        files={f"heads/{head.name}/{file}": content for head in group for file, content in head.files.items()},
    )


def head_ensemble(
    name: str,
    steps: Sequence[ModelConfig],
    *,
    head: str,
    outputs: Sequence[Tensor],
    max_batch_size: int,
) -> ModelConfig:
    """`pets` or `pets_full` over the base's step and the group's: `pets.LABEL` is LABEL here."""
    base, group = steps
    config = empty_ensemble(name, inputs=[IMAGE], outputs=outputs, max_batch_size=max_batch_size)
    public = [tensor.name for tensor in outputs]
    between = {tensor: tensor for tensor in ("embedding_nd", "image_status")}
    given = {EMBEDDING: EMBEDDING} if EMBEDDING in public else {}
    add_step(config, base, inputs={"IMAGE": "IMAGE"}, outputs=between | given)
    answer = {f"{head}.{tensor}": tensor for tensor in public if tensor != EMBEDDING}
    add_mapped_step(config, group.name, inputs=between, outputs=answer)
    return config


Parts: TypeAlias = Sequence[tuple[str, ModelConfig, Sequence[Tensor]]]
"""Each head as its name, the step of its group, and its public tensors."""


def heads_multi(name: str, base: ModelConfig, parts: Parts, *, max_batch_size: int) -> ModelConfig:
    """One ensemble for several heads of a base. It runs the base once, and then the groups in turn, since parallel
    branches can end tritonserver 2.51 (docs/adr/0023): each takes a tensor of the one before."""
    public = [replace(tensor, name=f"{head}.{tensor.name}") for head, _, tensors in parts for tensor in tensors]
    config = empty_ensemble(name, inputs=[IMAGE], outputs=public, max_batch_size=max_batch_size)
    between = {tensor: tensor for tensor in ("embedding_nd", "image_status")}
    add_step(config, base, inputs={"IMAGE": "IMAGE"}, outputs=between)
    before: dict[str, str] = {}
    in_turn = list({group.name: group for _, group, _ in parts}.values())
    for group in in_turn:
        asked = [f"{head}.{tensor.name}" for head, own, tensors in parts for tensor in tensors if own is group]
        outputs = {tensor: tensor for tensor in asked}
        waited_for = f"{asked[0].rpartition('.')[0]}.PROBABILITY"
        if group is not in_turn[-1]:
            outputs[waited_for] = waited_for.lower()  # a public tensor must not be a step's input too
        add_step(config, group, inputs=between | before, outputs=outputs)
        before = {AFTER.name: waited_for.lower()}
    return config
