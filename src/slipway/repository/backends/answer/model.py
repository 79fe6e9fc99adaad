"""Triton's Python backend: pixels and statuses to the public answer, the engine and the decision in one process."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .batches import ready, response, rows_of
from .cores import keep_as_configured
from .loading import load_engine, warm_up
from .postprocess import Postprocessor, public_tensors


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        model = json.loads(args["model_config"])
        keep_as_configured(model, args)
        here = Path(__file__).parent
        self.engine = load_engine(model, here)
        self.postprocessor = Postprocessor.read(here)
        self.bundle = (here / "bundle.txt").read_bytes().strip()
        warm_up(self.engine, model)
        ready()

    def execute(self, requests: list[Any]) -> list[Any]:
        pixels, statuses = (
            [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            for name in ("pixels_nhwc_u8", "image_status")
        )
        logits_nc, embedding_nd = self.engine.run(np.concatenate(pixels))
        answers = self.postprocessor.run(logits_nc, np.concatenate(statuses)[:, 0], embedding_nd)
        tensors = public_tensors(answers, bundle=self.bundle, embedding_nd=embedding_nd)
        return [response(request, tensors, rows) for request, rows in zip(requests, rows_of(pixels))]
