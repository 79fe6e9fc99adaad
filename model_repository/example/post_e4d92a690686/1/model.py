"""Triton's Python backend: logits and statuses to the public answer. Every public tensor is made here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .postprocess import Postprocessor


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        here = Path(__file__).parent
        labels = (here / "labels.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        self.postprocessor = Postprocessor(json.loads((here / "decision.json").read_text(encoding="utf-8")), labels)
        self.bundle = (here / "bundle.txt").read_bytes().strip()

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        # A request that cannot be answered (a client may call this step without an input) fails alone.
        try:
            return self._answer(request)
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{type(error).__name__}: {error}"))

    def _answer(self, request: Any) -> Any:
        logits_nc = pb_utils.get_input_tensor_by_name(request, "logits_nc").as_numpy()
        image_status = pb_utils.get_input_tensor_by_name(request, "image_status").as_numpy()
        answers = self.postprocessor.run(logits_nc, image_status[:, 0])
        asked = request.requested_output_names()
        outputs = {
            "LABEL": answers.label_nk,
            "SCORE": answers.score_nk,
            "CLASS_ID": answers.class_id_nk,
            "STATUS": answers.status_n[:, np.newaxis],
            "BUNDLE": np.full((len(logits_nc), 1), self.bundle, np.object_),
            "PROBABILITY": answers.probability_nc,
        }
        if "EMBEDDING" in asked:
            embedding_nd = pb_utils.get_input_tensor_by_name(request, "embedding_nd").as_numpy()
            # The placeholder's embedding is nobody's answer.
            outputs["EMBEDDING"] = np.where(answers.status_n[:, np.newaxis] == 0, embedding_nd, np.float32(0))
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, array) for name, array in outputs.items() if name in asked]
        )
