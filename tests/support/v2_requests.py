"""Requests in the V2 protocol as they travel, right or wrong: no client library mends them."""

import http.client
import json
import struct
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from PIL import Image
from tritonclient.grpc.service_pb2 import ModelInferRequest

from tests.support.image_files import encode

RED = encode(Image.new("RGB", (60, 50), (220, 0, 0)), "PNG")


def element(image: bytes, length: int | None = None) -> bytes:
    """One element of a BYTES tensor, whose prefix may lie about its length."""
    return struct.pack("<I", len(image) if length is None else length) + image


IMAGE = ("IMAGE", "BYTES", (1, 1), element(RED))

Input = tuple[str, str, tuple[int, ...], bytes]


def message(*inputs: Input, model: str = "colours", outputs: Sequence[str] = (), **fields: str) -> ModelInferRequest:
    request = ModelInferRequest(model_name=model, **fields)
    for name, datatype, shape, content in inputs:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(content)
    for name in outputs:
        request.outputs.add(name=name)
    return request


def over_http(request: ModelInferRequest) -> tuple[str, bytes, dict[str, str]]:
    """The same request over HTTP: path, body and headers of the POST."""
    tensors = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": {"binary_data_size": len(content)},
        }
        for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True)
    ]
    described: dict[str, Any] = {"inputs": tensors}
    if request.id:
        described["id"] = request.id
    if request.outputs:
        described["outputs"] = [{"name": output.name} for output in request.outputs]
    description = json.dumps(described).encode()
    version = f"/versions/{request.model_version}" if request.model_version else ""
    return (
        f"/v2/models/{request.model_name}{version}/infer",
        description + b"".join(request.raw_input_contents),
        {"Inference-Header-Content-Length": str(len(description))},
    )


def post(server: Any, request: ModelInferRequest) -> tuple[int, bytes]:
    """Send a request to a server over HTTP: status and body of the response."""
    return posted(server, *over_http(request))


def posted(server: Any, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    """Status and body of the response to a POST."""
    connection = http.client.HTTPConnection("127.0.0.1", server.ports.http, timeout=60)
    with closing(connection):
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()


def http_request(image: bytes) -> tuple[bytes, bytes]:
    """Head and body of a request for one image, as they travel over HTTP."""
    tensor = {"name": "IMAGE", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(image) + 4}}
    description = json.dumps({"inputs": [tensor]}).encode()
    body = description + element(image)
    head = f"POST /v2/models/colours/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Inference-Header-Content-Length: {len(description)}\r\n\r\n".encode(), body
