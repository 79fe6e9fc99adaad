"""Triton's Python backend: encoded images to the public answer, all in one process.

The same files as those of the three steps; what is saved is handing pixels and logits from process to process.
"""

import json
from pathlib import Path
from typing import Any

from .batches import images_of, ready, response, rows_of
from .cores import keep_as_configured
from .guard import PLACEHOLDER
from .loading import load_engine
from .postprocess import Postprocessor, public_tensors
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
        self.postprocessor = Postprocessor.read(here)
        self.bundle = (here / "bundle.txt").read_bytes().strip()
        for batch_size in warmup_sizes(model):
            self._answer([PLACEHOLDER] * batch_size)
        ready()

    def execute(self, requests: list[Any]) -> list[Any]:
        batches, responses = images_of(requests)
        if not batches:
            return responses
        tensors = self._answer([image for batch in batches.values() for image in batch])
        for index, rows in zip(batches, rows_of(batches.values())):
            responses[index] = response(requests[index], tensors, rows)
        return responses

    def _answer(self, images: list[bytes]) -> dict[str, Any]:
        pixels_nhwc_u8, status_n = self.preprocessor.run(images)
        logits_nc, embedding_nd = self.engine.run(pixels_nhwc_u8)
        answers = self.postprocessor.run(logits_nc, status_n, embedding_nd)
        return public_tensors(answers, bundle=self.bundle, embedding_nd=embedding_nd)
