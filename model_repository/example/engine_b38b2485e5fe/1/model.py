"""Triton's Python backend: pixels to logits and embedding (OpenVINO)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .batches import ready, response, rows_of
from .cores import keep_as_configured
from .loading import load_engine, warm_up


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        model = json.loads(args["model_config"])
        keep_as_configured(model, args)
        self.engine = load_engine(model, Path(__file__).parent)
        warm_up(self.engine, model)
        ready()

    def execute(self, requests: list[Any]) -> list[Any]:
        batches = [pb_utils.get_input_tensor_by_name(request, "pixels_nhwc_u8").as_numpy() for request in requests]
        pixels_nhwc_u8 = batches[0] if len(batches) == 1 else np.concatenate(batches)
        logits_nc, embedding_nd = self.engine.run(pixels_nhwc_u8)
        tensors = {"logits_nc": logits_nc, "embedding_nd": embedding_nd}
        return [response(request, tensors, rows) for request, rows in zip(requests, rows_of(batches))]
