"""Triton's Python backend: encoded images to pixels and statuses, each image by itself, on the instance's device."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .batches import images_of, ready, rows_of
from .cores import keep_as_configured
from .guard import PLACEHOLDER
from .preprocess import Preprocessor
from .warmup import warmup_sizes


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        model = json.loads(args["model_config"])
        keep_as_configured(model, args)
        parameters = {name: value["string_value"] for name, value in model["parameters"].items()}
        on_gpu = args["model_instance_kind"] == "GPU"
        preprocessor = Preprocessor(
            json.loads((Path(__file__).parent / "preprocess.json").read_text(encoding="utf-8")),
            max_batch_size=model["max_batch_size"],
            threads=int(parameters["threads"]),
            device_id=int(args["model_instance_device_id"]) if on_gpu else None,
            hardware_jpeg=parameters.get("hardware_jpeg") == "true",
        )
        self.run = preprocessor.run_on_gpu if on_gpu else preprocessor.run
        for batch_size in warmup_sizes(model):
            self.run([PLACEHOLDER] * batch_size)
        ready()

    def execute(self, requests: list[Any]) -> list[Any]:
        batches, responses = images_of(requests)
        if not batches:
            return responses
        images = [image for batch in batches.values() for image in batch]
        # Kept until the next batch: Triton copies the pixels after this returns.
        self.pixels_nhwc_u8, self.status_n = self.run(images)
        for index, rows in zip(batches, rows_of(batches.values())):
            responses[index] = self._response(requests[index], rows)
        return responses

    def _response(self, request: Any, rows: slice) -> Any:
        asked = request.requested_output_names()
        tensors = []
        if "pixels_nhwc_u8" in asked:
            pixels_nhwc_u8 = self.pixels_nhwc_u8[rows]
            on_cpu = isinstance(pixels_nhwc_u8, np.ndarray)
            tensor = pb_utils.Tensor if on_cpu else pb_utils.Tensor.from_dlpack
            tensors.append(tensor("pixels_nhwc_u8", pixels_nhwc_u8))
        if "image_status" in asked:
            tensors.append(pb_utils.Tensor("image_status", self.status_n[rows, np.newaxis]))
        return pb_utils.InferenceResponse(tensors)
