"""One classifier of a repository: its tensors, its three steps, and the two ensembles over them."""

from dataclasses import dataclass, replace
from functools import cached_property

from slipway.contract import Bundle, Engine
from slipway.repository.config import ModelConfig, Step, Tensor, ensemble_config, step_config

IMAGE = Tensor("IMAGE", "TYPE_STRING", (1,))
IMAGE_STATUS = Tensor("image_status", "TYPE_INT32", (1,))


@dataclass(frozen=True)
class Classifier:
    """A bundle and the engine that serves it. Lower-case tensors live between steps, upper-case ones are public."""

    bundle: Bundle
    engine: Engine

    @property
    def name(self) -> str:
        return self.bundle.spec.name

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

    # Preprocess and engine are the work: as many instances of each as the spec says, each with its own threads.
    # The answer takes microseconds: one instance. Only the first step may wait for a batch to fill.

    def preprocess_config(self) -> ModelConfig:
        serving = self.bundle.spec.serving
        return step_config(
            inputs=[IMAGE],
            outputs=[self.pixels, IMAGE_STATUS],
            max_batch_size=serving.max_batch_size,
            instances=serving.instances,
            max_queue_delay_us=serving.max_queue_delay_us,
            parameters={"threads": str(serving.threads)},
        )

    def engine_config(self) -> ModelConfig:
        serving = self.bundle.spec.serving
        return step_config(
            inputs=[self.pixels],
            outputs=[self.logits, self.embedding],
            max_batch_size=serving.max_batch_size,
            instances=serving.instances,
            parameters={"threads": str(serving.threads), "arithmetic": self.engine.settings.arithmetic},
        )

    def post_config(self) -> ModelConfig:
        return step_config(
            inputs=[self.logits, IMAGE_STATUS, self.embedding.as_optional()],
            outputs=[replace(tensor, label_filename="") for tensor in self.full_answer],
            max_batch_size=self.bundle.spec.serving.max_batch_size,
            instances=1,
        )

    def ensemble_configs(self, *, preprocess: str, engine: str, post: str) -> dict[str, ModelConfig]:
        """`<name>` and `<name>_full` over the three named steps, ready to be written."""
        configs = {}
        for name, public in ((self.name, self.answer), (f"{self.name}_full", self.full_answer)):
            results = [self.logits, self.embedding] if public == self.full_answer else [self.logits]
            steps = [
                Step(preprocess, inputs=[IMAGE], outputs=[self.pixels, IMAGE_STATUS]),
                Step(engine, inputs=[self.pixels], outputs=results),
                Step(post, inputs=[*results, IMAGE_STATUS], outputs=public),
            ]
            configs[name] = ensemble_config(
                name,
                inputs=[IMAGE],
                outputs=public,
                steps=steps,
                max_batch_size=self.bundle.spec.serving.max_batch_size,
            )
        return configs

    def shm_bytes(self) -> int:
        """Shared memory of a Python-backend instance: twice a full batch, so that one is read while one is written.

        A megabyte stands for an ordinary photograph; larger ones make the region grow once, and stay.
        """
        _, height, width = self.pixels.dims
        image_bytes = 3 * height * width * 4 + (1 << 20)
        megabytes = -(-2 * self.bundle.spec.serving.max_batch_size * image_bytes >> 20)
        return megabytes << 20
