"""One classifier of a repository: its tensors, the step that answers, and the two ensembles over a lane's steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from slipway.contract import Bundle, Choice, Engine
from slipway.repository.config import ModelConfig, Tensor, ensemble_config, step_config
from slipway.repository.step import StepModel

IMAGE = Tensor("IMAGE", "TYPE_STRING", (1,))
IMAGE_STATUS = Tensor("image_status", "TYPE_INT32", (1,))


@dataclass(frozen=True)
class Classifier:
    """A bundle and the engine that serves it. Lower-case tensors live between steps, upper-case ones are public."""

    bundle: Bundle
    engine: Engine
    """The one whose decision is served."""
    others: tuple[Engine, ...] = ()
    """On the gpu lane: the same graph, compiled for other GPUs."""
    choice: Choice | None = None
    """On the cpu lane: the measurement that chose the engine."""

    @property
    def name(self) -> str:
        return self.bundle.spec.name

    @property
    def engines(self) -> tuple[Engine, ...]:
        return (self.engine, *self.others)

    @cached_property
    def pixels(self) -> Tensor:
        preprocess = self.bundle.preprocess
        return Tensor("pixels_nchw", "TYPE_FP32", (3, preprocess.input_height, preprocess.input_width))

    @cached_property
    def logits(self) -> Tensor:
        return Tensor("logits_nc", "TYPE_FP32", (len(self.bundle.labels),))

    @cached_property
    def embedding(self) -> Tensor:
        return Tensor("embedding_nd", "TYPE_FP32", (self.engine.settings.embedding_size,))

    @cached_property
    def answer(self) -> tuple[Tensor, ...]:
        """What `<name>` returns."""
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
        """What `<name>_full` returns."""
        return (
            *self.answer,
            Tensor("PROBABILITY", "TYPE_FP32", self.logits.dims, label_filename="labels.txt"),
            Tensor("EMBEDDING", "TYPE_FP32", self.embedding.dims),
        )

    def post_step(self) -> StepModel:
        """The last step, the same on both lanes. The answer takes microseconds: one instance."""
        return StepModel(
            "post",
            config=step_config(
                inputs=[self.logits, IMAGE_STATUS, self.embedding.as_optional()],
                outputs=[replace(tensor, label_filename="") for tensor in self.full_answer],
                max_batch_size=self.bundle.spec.serving.max_batch_size,
                instances=1,
            ),
            code=("repository/backends/post/model.py", "steps/postprocess.py"),
            files={
                "decision.json": (self.engine.path / "decision.json").read_bytes(),
                "labels.txt": (self.bundle.path / "labels.txt").read_bytes(),
                "bundle.txt": self.bundle_file,
            },
        )

    @property
    def bundle_file(self) -> bytes:
        return f"{self.bundle.id}\n".encode()

    def ensemble_configs(self, steps: Sequence[ModelConfig]) -> list[ModelConfig]:
        """`<name>` and `<name>_full` over the named steps, ready to be written."""
        return [
            ensemble_config(
                name,
                steps=steps,
                inputs=[IMAGE],
                outputs=public,
                optional_inputs=public == self.full_answer,  # the embedding, which only this one returns
                max_batch_size=self.bundle.spec.serving.max_batch_size,
            )
            for name, public in ((self.name, self.answer), (f"{self.name}_full", self.full_answer))
        ]
