"""Triton's Python backend: encoded images to pixels and statuses (guard, then DALI on the CPU)."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from .batches import images_of, response, rows_of
from .cores import keep_as_configured
from .guard import PLACEHOLDER
from .preprocess_dali import Preprocessor


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
        warmup_batches = int(parameters.get("warmup_batches", {}).get("string_value", 0))
        for batch_size in (1, model["max_batch_size"]) * warmup_batches:
            self.preprocessor.run([PLACEHOLDER] * batch_size)

    def execute(self, requests: list[Any]) -> list[Any]:
        batches, responses = images_of(requests)
        pixels_nchw, status_n = self.preprocessor.run([image for batch in batches.values() for image in batch])
        tensors = {"pixels_nchw": pixels_nchw, "image_status": status_n[:, np.newaxis]}
        for index, rows in zip(batches, rows_of(batches.values())):
            responses[index] = response(requests[index], tensors, rows)
        return responses
