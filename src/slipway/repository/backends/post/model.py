"""Triton's Python backend: logits and statuses to the public answer. Every public tensor is made here."""

from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from .batches import ready, response
from .postprocess import Postprocessor, public_tensors


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        here = Path(__file__).parent
        self.postprocessor = Postprocessor.read(here)
        self.bundle = (here / "bundle.txt").read_bytes().strip()
        ready()

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
        handed_on = "EMBEDDING" in request.requested_output_names()
        embedding_nd = None
        if handed_on or self.postprocessor.needs_embedding:
            embedding_nd = pb_utils.get_input_tensor_by_name(request, "embedding_nd").as_numpy()
        answers = self.postprocessor.run(logits_nc, image_status[:, 0], embedding_nd)
        tensors = public_tensors(answers, bundle=self.bundle, embedding_nd=embedding_nd if handed_on else None)
        return response(request, tensors, slice(None))
