"""Sends one image through a server as users do: over a new connection of each protocol."""

import http.client
import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from slipway.contract import ServingError
from slipway.contract.shared_rules import is_busy, is_left_out
from slipway.errors import requiring
from slipway.steps.guard import PLACEHOLDER
from slipway.system.timed_http import TimedConnection

with requiring("tritonclient", extra="serve"):
    from tritonclient import grpc

CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # the server is on this machine, and a proxy elsewhere
]
_NEW_CONNECTION = [*CHANNEL, ("grpc.use_local_subchannel_pool", 1)]
ProbeAnswer = Mapping[str, Any]
"""The first element of each output, by name."""


class ProbeConnection(grpc.InferenceServerClient):  # type: ignore[misc]  # tritonclient has no types
    """tritonclient's. Its own `__del__` prints a traceback where Ctrl-C came into its constructor."""

    def close(self) -> None:
        if "_stream" in vars(self):  # what the constructor sets last
            super().close()


class LeftOutError(ServingError):
    """The group of a head answered that it could not load this head."""


class BusyError(ServingError):
    """The queue of the first step is full; the server rejects requests, but is alive."""


def of_heads(client: Any, step: str, heads: Iterable[str], *, embedding_size: int, timeout_s: float) -> ProbeAnswer:
    """STATUS and BUNDLE of several heads, of the step that has them, for an embedding of zeros.

    Raises:
        LeftOutError: the step could not load the only one of `heads`, or one of several.
        ServingError: the server does not answer.
    """
    inputs = [
        grpc.InferInput("embedding_nd", [1, embedding_size], "FP32"),
        grpc.InferInput("image_status", [1, 1], "INT32"),
    ]
    inputs[0].set_data_from_numpy(np.zeros((1, embedding_size), np.float32))
    inputs[1].set_data_from_numpy(np.zeros((1, 1), np.int32))
    names = [f"{head}.{tensor}" for head in heads for tensor in ("STATUS", "BUNDLE")]
    try:
        outputs = [grpc.InferRequestedOutput(name) for name in names]
        answer = client.infer(step, inputs, outputs=outputs, client_timeout=timeout_s)
    except grpc.InferenceServerException as error:
        raise _refusal(said(error), "gRPC", heads) from None
    return _first_elements(answer, names)


def over_grpc(url: str, ensemble: str, *, timeout_s: float) -> ProbeAnswer:
    """Ask over gRPC; raises LeftOutError, BusyError or ServingError."""
    image = grpc.InferInput("IMAGE", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[PLACEHOLDER]], np.object_))
    with ProbeConnection(url, channel_args=_NEW_CONNECTION) as client:
        try:
            answer = client.infer(ensemble, [image], client_timeout=timeout_s)
        except grpc.InferenceServerException as error:
            raise _refusal(said(error), "gRPC", [ensemble]) from None
        return _first_elements(answer, [output.name for output in answer.get_response().outputs])


def over_http(url: str, ensemble: str, *, timeout_s: float) -> ProbeAnswer:
    """Ask over HTTP; raises LeftOutError, BusyError or ServingError."""
    element = struct.pack("<I", len(PLACEHOLDER)) + PLACEHOLDER
    image = {"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(element)}}
    described = json.dumps({"inputs": [image]}).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(described)),
        "ProbeConnection": "close",
    }
    connection = TimedConnection(url, timeout=timeout_s)
    try:
        connection.request("POST", f"/v2/models/{ensemble}/infer", described + element, headers)
        response = connection.getresponse()
        content = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ServingError(f"HTTP: no answer over a new connection: {error or type(error).__name__}") from None
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise _refusal(str(content.get("error")), "HTTP", [ensemble])
    return {output["name"]: output["data"][0] for output in content["outputs"]}


def said(error: Any) -> str:
    """The server's message, without the stack trace of a failed step."""
    return str(error.message()).partition("\n")[0]


def _first_elements(answer: Any, names: Iterable[str]) -> ProbeAnswer:
    values = {name: answer.as_numpy(name)[0, 0] for name in names}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def _refusal(words: str, protocol: str, heads: Iterable[str]) -> ServingError:
    """The error for a request that the server refused, which may be for one of these heads."""
    if any(is_left_out(words, head) for head in heads):
        return LeftOutError(words)
    kind = BusyError if is_busy(words) else ServingError
    return kind(f"{protocol}: {words}")
