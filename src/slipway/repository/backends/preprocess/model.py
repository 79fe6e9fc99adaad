"""Triton's Python backend: encoded images to pixels and statuses (guard, then DALI on the CPU)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .guard import PLACEHOLDER
from .images import images_of, rows_of
from .preprocess_dali import Preprocessor


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        model = json.loads(args["model_config"])
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
        for index, rows in rows_of(batches):
            responses[index] = pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor("pixels_nchw", pixels_nchw[rows]),
                    pb_utils.Tensor("image_status", status_n[rows, np.newaxis]),
                ]
            )
        return responses
