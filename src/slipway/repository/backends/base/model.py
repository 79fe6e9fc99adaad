"""Triton's Python backend: encoded images to embeddings and statuses, which every head of the base takes."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from .batches import images_of, ready, response, rows_of
from .cores import keep_as_configured
from .guard import PLACEHOLDER
from .loading import load_engine
from .preprocess import Preprocessor
from .warmup import warmup_sizes


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        model = json.loads(args["model_config"])
        keep_as_configured(model, args)
        parameters = model["parameters"]
        here = Path(__file__).parent
        self.preprocessor = Preprocessor(
            json.loads((here / "preprocess.json").read_text(encoding="utf-8")),
            max_batch_size=model["max_batch_size"],
            threads=int(parameters["threads"]["string_value"]),
        )
        self.engine = load_engine(model, here)
        for batch_size in warmup_sizes(model):
            self._embed([PLACEHOLDER] * batch_size)
        ready()

    def execute(self, requests: list[Any]) -> list[Any]:
        batches, responses = images_of(requests)
        if not batches:
            return responses
        tensors = self._embed([image for batch in batches.values() for image in batch])
        for index, rows in zip(batches, rows_of(batches.values())):
            responses[index] = response(requests[index], tensors, rows)
        return responses

    def _embed(self, images: list[bytes]) -> dict[str, Any]:
        pixels_nhwc_u8, status_n = self.preprocessor.run(images)
        _, embedding_nd = self.engine.run(pixels_nhwc_u8)
        return {"embedding_nd": embedding_nd, "image_status": status_n[:, np.newaxis]}
