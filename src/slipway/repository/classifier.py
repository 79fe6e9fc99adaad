"""One classifier of a repository: its tensors, its post-processing step and two ensembles over a lane's steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from slipway.contract import Bundle, BundleEngine, Choice
from slipway.contract.engine import LANES
from slipway.contract.lane import LaneName
from slipway.contract.serving import Serving
from slipway.repository.config import (
    EMBEDDING,
    IMAGE,
    IMAGE_STATUS,
    ModelConfig,
    Tensor,
    ensemble_config,
    step_config,
)
from slipway.repository.heads import HeadAnswer, ServedBase, head_ensemble
from slipway.repository.served import AnyServed, Served
from slipway.repository.step import ANSWER_CODE, BATCHES_CODE, Content, StepModel


@dataclass(frozen=True)
class Classifier(Served[BundleEngine]):
    """A bundle and the engine that serves it."""

    bundle: Bundle
    engine: BundleEngine
    others: tuple[BundleEngine, ...] = ()
    choices: tuple[Choice, ...] = ()
    """The measurements that chose the engines: one on the cpu lane, one for each plan on the gpu lane."""
    failed_plans: tuple[str, ...] = ()
    """Names of plans for GPUs that are left out, since no plan for them passed its accuracy gate."""
    served_as: str = ""
    """The name that a fleet file gives the classifier; if empty, the bundle's own."""
    settings: Serving | None = None
    base: ServedBase | None = None
    """The base of a head; None for a classifier with a graph of its own."""
    kept: tuple["Classifier", ...] = ()
    """Other versions, whose steps are in the repository although no ensemble runs them."""

    @property
    def name(self) -> str:
        return self.served_as or self.bundle.spec.name

    @property
    def owner(self) -> Bundle:
        return self.bundle

    @property
    def versions(self) -> tuple["Classifier", ...]:
        """The version that answers, then the kept ones."""
        return (self, *self.kept)

    @cached_property
    def logits(self) -> Tensor:
        return Tensor("logits_nc", "TYPE_FP32", (len(self.bundle.labels),))

    @cached_property
    def embedding(self) -> tuple[Tensor, ...]:
        """The embedding's tensor; empty if the network has none."""
        size = self.engine.settings.embedding_size
        return (Tensor("embedding_nd", "TYPE_FP32", (size,)),) if size else ()

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return (self.logits, *self.embedding)

    @cached_property
    def answer(self) -> tuple[Tensor, ...]:
        """Tensors that `<name>` returns."""
        top_k = self.engine.decision.top_k
        return (
            Tensor("LABEL", "TYPE_STRING", (top_k,)),
            Tensor("SCORE", "TYPE_FP32", (top_k,)),
            Tensor("CLASS_ID", "TYPE_INT32", (top_k,)),
            Tensor("STATUS", "TYPE_INT32", (1,)),
            Tensor("BUNDLE", "TYPE_STRING", (1,)),
        )

    @cached_property
    def full_answer(self) -> tuple[Tensor, ...]:
        """Tensors that `<name>_full` returns."""
        return (
            *self.answer,
            Tensor("PROBABILITY", "TYPE_FP32", self.logits.dims, label_filename="labels.txt"),
            *(replace(tensor, name=EMBEDDING) for tensor in self.embedding),
        )

    @property
    def lane(self) -> LaneName:
        lane = LANES[self.engine.settings.target]
        assert lane is not None, "checked before anything is assembled"
        return lane

    @property
    def stood_in(self) -> bool:
        """Whether a head's form was fitted to the embeddings of a typed graph, instead of those of the plan."""
        return any(e.settings.target == "tensorrt" and e.settings.provider is not None for e in self.engines)

    def post_step(self) -> StepModel:
        """The last step, from the same files on both lanes. It takes microseconds, so one instance is enough.

        On the gpu lane it is an instance of the GPU, which has a stream of its own. An instance of the CPU would copy
        the logits on the default stream, which waits for the decoder and the engines, and they for it.
        """
        return StepModel(
            "post",
            config=step_config(
                inputs=[self.logits, IMAGE_STATUS, *(replace(tensor, optional=True) for tensor in self.embedding)],
                outputs=self.made_answer,
                max_batch_size=self.max_batch_size,
                instances=1,
                gpu=self.on_gpu,
                gpus=self.serving.gpu.gpus if self.on_gpu else (),
            ),
            code=("repository/backends/post/model.py", *BATCHES_CODE, *ANSWER_CODE),
            files=self.answer_files,
        )

    @cached_property
    def made_answer(self) -> tuple[Tensor, ...]:
        """`full_answer` as the step makes it: labels for `class_count` belong to the ensemble."""
        return tuple(replace(tensor, label_filename="") for tensor in self.full_answer)

    @cached_property
    def answer_files(self) -> dict[str, Content]:
        """Files behind an answer: the bundle's id, the decision and the labels."""
        return {
            "decision.json": Content.file(self.engine, "decision.json"),
            "labels.txt": self.labels_file,
            "bundle.txt": self.bundle_file,
        }

    @property
    def head_answer(self) -> HeadAnswer:
        """The part of this head that its group needs."""
        tensors = tuple(tensor for tensor in self.full_answer if tensor.name != EMBEDDING)
        return HeadAnswer(self.name, tensors, {"head.npz": Content.file(self.engine, "head.npz"), **self.answer_files})

    @property
    def bundle_file(self) -> Content:
        return Content.of(f"{self.bundle.id}\n".encode())

    @cached_property
    def labels_file(self) -> Content:
        return Content.file(self.bundle, "labels.txt")

    def ensemble_configs(self, steps: Sequence[ModelConfig]) -> list[ModelConfig]:
        """`<name>` and `<name>_full` over the named steps, ready to write."""
        both = ((self.name, self.answer), (f"{self.name}_full", self.full_answer))
        if self.base is not None:
            return [
                head_ensemble(name, steps, head=self.name, outputs=public, max_batch_size=self.max_batch_size)
                for name, public in both
            ]
        return [
            ensemble_config(
                name,
                steps=steps,
                inputs=[IMAGE],
                outputs=public,
                # The embedding, which only `<name>_full` returns, although the decision may need it in both.
                optional_inputs=public == self.full_answer or self.engine.decision.needs_embedding,
                max_batch_size=self.max_batch_size,
            )
            for name, public in both
        ]


@dataclass(frozen=True)
class Networks:
    """Networks that the engines of a repository run."""

    classifiers: Sequence[Classifier]
    """Classifiers with a graph of their own."""
    bases: Sequence[ServedBase]

    @property
    def served(self) -> list[AnyServed]:
        """Every version of the classifiers, and the bases."""
        return [*(version for classifier in self.classifiers for version in classifier.versions), *self.bases]
