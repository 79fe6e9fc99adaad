"""Triton's Python backend: embeddings to the public answers of a group of heads, each in a folder `heads/<name>`.

A request is answered by the heads whose outputs it asks for, `<name>.LABEL` and so on; EMBEDDING is that of the base.
A head that cannot be loaded is named in the log, and requests for it fail; the others of the group answer.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .batches import ready
from .head import Head
from .postprocess import Postprocessor, public_tensors

EMBEDDING = "EMBEDDING"


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        model = json.loads(args["model_config"])
        folder = Path(__file__).parent / "heads"
        outputs = [output["name"] for output in model["output"] if output["name"] != EMBEDDING]
        names = dict.fromkeys(output.rpartition(".")[0] for output in outputs)
        (embedding_size,) = (int(i["dims"][0]) for i in model["input"] if i["name"] == "embedding_nd")
        self.heads: dict[str, Answerer] = {}
        self.faults: dict[str, str] = {}
        for name in names:
            try:
                self.heads[name] = Answerer(folder / name, embedding_size=embedding_size)
            except Exception as error:
                self.faults[name] = f"head {name} is left out: {_said(error)}"
                pb_utils.Logger.log_error(self.faults[name])
        ready()

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        # A request that cannot be answered (a client may call this step without an input) fails alone.
        try:
            return self._answer(request)
        except Exception as error:
            said = str(error) if isinstance(error, LeftOut) else f"{type(error).__name__}: {error}"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(said))

    def _answer(self, request: Any) -> Any:
        embedding_nd = pb_utils.get_input_tensor_by_name(request, "embedding_nd").as_numpy()
        status_n = pb_utils.get_input_tensor_by_name(request, "image_status").as_numpy()[:, 0]
        outputs = request.requested_output_names()
        asked = [output.rpartition(".") for output in outputs if output != EMBEDDING]
        found: dict[str, dict[str, Any]] = {}
        for name, _, _ in asked:
            if name in self.faults:
                raise LeftOut(self.faults[name])
            if name not in found:
                found[name] = self.heads[name].run(embedding_nd, status_n)
        tensors = [pb_utils.Tensor(f"{name}.{tensor}", found[name][tensor]) for name, _, tensor in asked]
        if EMBEDDING in outputs:  # that of a refused image's placeholder is nobody's answer
            public_nd = np.where(status_n[:, np.newaxis] == 0, embedding_nd, np.float32(0))
            tensors.append(pb_utils.Tensor(EMBEDDING, public_nd))
        return pb_utils.InferenceResponse(tensors)


def _said(error: Exception) -> str:
    """The reason, without the path of a file on the server."""
    if isinstance(error, OSError) and error.filename:
        return f"{Path(str(error.filename)).name}: {error.strerror}"
    return str(error)


class LeftOut(Exception):
    """Says which head, and why."""


class Answerer:
    """A head with its decision and labels."""

    def __init__(self, folder: Path, *, embedding_size: int) -> None:
        self.head = Head.read(folder / "head.npz")
        self.postprocessor = Postprocessor.read(folder)
        self.bundle = (folder / "bundle.txt").read_bytes().strip()
        labels = len((folder / "labels.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n"))
        if (self.head.embedding_size, self.head.classes) != (embedding_size, labels):
            given = f"{self.head.embedding_size} numbers to {self.head.classes} classes"
            raise ValueError(f"its weights take {given}, not {embedding_size} numbers to {labels} labels")

    def run(self, embedding_nd: Any, status_n: Any) -> dict[str, Any]:
        answers = self.postprocessor.run(self.head.run(embedding_nd), status_n, embedding_nd)
        return public_tensors(answers, bundle=self.bundle)
