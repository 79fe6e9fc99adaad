"""Triton's Python backend: pixels to logits and embedding (OpenVINO)."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .engine_openvino import Engine


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        model = json.loads(args["model_config"])
        parameters = model["parameters"]
        cache = os.environ.get("SLIPWAY_CACHE")
        self.engine = Engine(
            Path(__file__).parent / "model.onnx",
            arithmetic=parameters["arithmetic"]["string_value"],
            threads=int(parameters["threads"]["string_value"]),
            cache=Path(cache) if cache else None,
        )
        warmup_batches = int(parameters.get("warmup_batches", {}).get("string_value", 0))
        image_chw = [int(side) for side in model["input"][0]["dims"]]  # protobuf's own JSON has strings here
        for batch_size in (1, model["max_batch_size"]) * warmup_batches:
            self.engine.run(np.zeros((batch_size, *image_chw), np.float32))

    def execute(self, requests: list[Any]) -> list[Any]:
        batches = [pb_utils.get_input_tensor_by_name(request, "pixels_nchw").as_numpy() for request in requests]
        pixels_nchw = batches[0] if len(batches) == 1 else np.concatenate(batches)
        logits_nc, embedding_nd = self.engine.run(pixels_nchw)
        responses: list[Any] = []
        first = 0
        for request, batch in zip(requests, batches):
            rows = slice(first, first + len(batch))
            first = rows.stop
            asked = request.requested_output_names()
            outputs = {"logits_nc": logits_nc, "embedding_nd": embedding_nd}
            responses.append(
                pb_utils.InferenceResponse(
                    [pb_utils.Tensor(name, array[rows]) for name, array in outputs.items() if name in asked]
                )
            )
        return responses
