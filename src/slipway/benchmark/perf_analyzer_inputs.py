"""Writes the inputs of an ensemble and each of its steps for real images as perf_analyzer's input file."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.errors import DataError, ServingError, requiring
from slipway.system.channel import channel_options

with requiring("tritonclient", extra="bench"):
    from tritonclient.grpc import InferenceServerClient, InferInput
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype, serialize_byte_tensor

DEADLINE_S = 60.0
"""Seconds per request. A first request may load libraries and compile."""
Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Driven:
    """One model and its inputs for each image: arrays of shape `[1, ...]` by the model's own input names."""

    model: str
    requests: tuple[Tensors, ...]

    def write(self, path: Path) -> None:
        """Write one request per line, so that only one is in memory twice."""
        with path.open("w", encoding="utf-8") as file:
            file.write('{"data": [')
            for number, tensors in enumerate(self.requests):
                file.write(",\n" if number else "\n")
                json.dump({name: _content(array) for name, array in tensors.items()}, file)
            file.write("\n]}\n")


@dataclass(frozen=True)
class Asked:
    """The ensemble and its steps in order, and the server that answered."""

    models: tuple[Driven, ...]
    bundle: str
    server: str


def driven_models(url: str, *, model: str, images: Sequence[bytes]) -> Asked:
    """Compute the inputs of every step for each image, as in the ensemble, one image at a time.

    perf_analyzer asks a step for all of its outputs, whereas an ensemble asks for the mapped ones. So does this
    function, and a step also gets the optional inputs that an earlier step can provide.

    Raises:
        DataError: the classifier refuses an image; a quick refusal would count as a quick answer.
        ServingError: no server answers at `url`, it does not serve the ensemble, or a step failed.
    """
    with InferenceServerClient(url, channel_args=channel_options(url)) as client:
        try:
            server = client.get_server_metadata(client_timeout=DEADLINE_S)
            return _ask(client, model, images, server=f"{server.name} {server.version}")
        except InferenceServerException as error:
            raise ServingError(
                f"{url}, model {model!r}: {error.message()}; serve one with: slipway serve REPOSITORY"
            ) from None


def _ask(client: InferenceServerClient, model: str, images: Sequence[bytes], *, server: str) -> Asked:
    steps = client.get_model_config(model, client_timeout=DEADLINE_S).config.ensemble_scheduling.step
    if not steps:
        raise ServingError(f"{model!r} is not an ensemble; give the classifier's name")
    known: list[Tensors] = [{"IMAGE": np.array([[image]], np.object_)} for image in images]
    driven = [Driven(model, tuple(dict(tensors) for tensors in known))]
    for step in steps:
        config = client.get_model_config(step.model_name, client_timeout=DEADLINE_S).config
        sources = {tensor.name: step.input_map.get(tensor.name, tensor.name) for tensor in config.input}
        requests = tuple(_select(tensors, sources) for tensors in known)
        for tensors, request in zip(known, requests, strict=True):
            answer = _infer(client, step.model_name, request)
            tensors.update({step.output_map.get(name, name): array for name, array in answer.items()})
        driven.append(Driven(step.model_name, requests))
    refused = [status for tensors in known if (status := int(tensors["STATUS"].flat[0]))]
    if refused:
        raise DataError(
            f"{model!r} refuses {len(refused)} of {len(images)} images (STATUS {sorted(set(refused))}), and a refusal "
            "would count as a quick answer; remove them from the folder"
        )
    return Asked(tuple(driven), bundle=bytes(known[0]["BUNDLE"].flat[0]).decode(), server=server)


def _select(tensors: Mapping[str, npt.NDArray[Any]], sources: Mapping[str, str]) -> Tensors:
    """Select the inputs with a source; those without one are optional, or the server would reject the ensemble."""
    return {name: tensors[source] for name, source in sources.items() if source in tensors}


def _infer(client: InferenceServerClient, model: str, tensors: Tensors) -> Tensors:
    inputs = []
    for name, array in tensors.items():
        inputs.append(InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    result = client.infer(model, inputs, client_timeout=DEADLINE_S)
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def _content(array: npt.NDArray[Any]) -> dict[str, Any]:
    """Encode raw little-endian bytes, a BYTES element after its length in four bytes; perf_analyzer adds the batch."""
    raw = serialize_byte_tensor(array).item() if array.dtype == np.object_ else array.tobytes()
    return {"content": {"b64": b64encode(raw).decode()}, "shape": list(array.shape[1:])}
