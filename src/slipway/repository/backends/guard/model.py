"""Triton's Python backend: encoded images to what the decoder may see of them, and statuses (guard, on the CPU)."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .guarded_batch import guarded_batch


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        # A request whose bytes cannot be read as strings, or are too many, fails alone.
        try:
            images = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().reshape(-1).tolist()
            encoded_nl, status_n = guarded_batch(images)
            return pb_utils.InferenceResponse(
                [pb_utils.Tensor("encoded", encoded_nl), pb_utils.Tensor("image_status", status_n[:, np.newaxis])]
            )
        except Exception as error:
            failure = pb_utils.TritonError(f"IMAGE is not a BYTES tensor of encoded images: {error}")
            return pb_utils.InferenceResponse(error=failure)
