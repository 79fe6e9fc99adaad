"""Requests that could end tritonserver 2.51, or step around its interface, and those that are wrong in themselves.

The gateway refuses each of the former; it or the server behind it refuses each of the latter.
"""

import json
from collections.abc import Callable
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.support.gateways import Asked, grpc_key
from tests.support.v2_requests import IMAGE, RED, element, message, over_http
from tests.support.wrong_requests import UNKNOWN, WRONG_BODIES, WRONG_INPUTS

BINARY = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
INFER = "/v2/models/colours/infer"
FORM = {"Inference-Header-Content-Length": "0", "Content-Type": "application/x-www-form-urlencoded"}
CLASS = json.dumps({"inputs": [], "outputs": [{"name": "LABEL", "parameters": {"classification": 1}}]}).encode()
ESCAPED = CLASS.replace(b"classification", b"classific\\u0061tion")
SHARED = b'{"inputs": [{"name": "IMAGE", "parameters": {"shared_memory_region": "x"}}]}'
NEGATIVE = (
    b'{"inputs": [{"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size" :\n -4}}]}'
)
TERABYTE = b'{"inputs": [{"name": "IMAGE", "shape": [1, 274877906944], "datatype": "FP32", "data" :\n [1]}]}'
HOSTILE_HTTP: dict[str, tuple[str, str, bytes | None, dict[str, str], int]] = {
    "200,000 lists in each other": ("POST", INFER, b"[" * 200_000, {}, 400),
    "ten million of them": (
        "POST",
        INFER,
        b'{"inputs":' + b"[" * 10_000_000,
        {"Content-Type": "application/json"},
        400,
    ),
    "the same, with a length": ("POST", INFER, b"[" * 9_000, {"Inference-Header-Content-Length": "9000"}, 400),
    "a length of six digits": ("POST", INFER, b"[" * 200_000, {"Inference-Header-Content-Length": "200000"}, 400),
    "two lengths": ("POST", INFER, RED, {**BINARY, "inference-header-content-length": "0, 9"}, 400),
    "a length over the body": ("POST", INFER, b"{}", {"Inference-Header-Content-Length": "9999"}, 400),
    "a form": ("POST", INFER, b"a=" + bytes(1_000_000), FORM, 415),
    "a form in capitals": ("POST", INFER, RED, {**FORM, "Content-Type": "Application/X-WWW-Form-Urlencoded"}, 415),
    "a compressed body": ("POST", INFER, RED, {**BINARY, "Content-Encoding": "gzip"}, 415),
    "class_count on a label": ("POST", INFER, CLASS, {"Inference-Header-Content-Length": str(len(CLASS))}, 403),
    "class_count, escaped": ("POST", INFER, ESCAPED, {"Inference-Header-Content-Length": str(len(ESCAPED))}, 403),
    "shared memory": ("POST", INFER, SHARED, {"Inference-Header-Content-Length": str(len(SHARED))}, 403),
    "a negative length of a tensor": (
        "POST",
        INFER,
        NEGATIVE + RED,
        {"Inference-Header-Content-Length": str(len(NEGATIVE))},
        400,
    ),
    "a number, and the shape of a terabyte": (
        "POST",
        INFER,
        TERABYTE,
        {"Inference-Header-Content-Length": str(len(TERABYTE))},
        400,
    ),
    "a step": ("POST", "/v2/models/post_1d13e485f590/infer", RED, BINARY, 404),
    "a step's configuration": ("GET", "/v2/models/post_1d13e485f590/config", None, {}, 404),
    "a name that is a path": ("POST", "/v2/models/..%2f..%2fx/infer", RED, BINARY, 400),
    "a path that goes up": ("POST", "/v2/models/colours/../../repository/index", b"{}", {}, 403),
    "the list of models": ("POST", "/v2/repository/index", b"{}", {}, 403),
    "loading a model": ("POST", "/v2/repository/models/colours/load", b"{}", {}, 403),
    "unloading a model": ("POST", "/v2/repository/models/colours/unload", b"{}", {}, 403),
    "logging": ("POST", "/v2/logging", b'{"log_file": "/tmp/x"}', {}, 403),
    "tracing": ("POST", "/v2/models/colours/trace/setting", b"{}", {}, 403),
    "shared memory's list": ("GET", "/v2/systemsharedmemory/status", None, {}, 403),
    "statistics": ("GET", "/v2/models/stats", None, {}, 404),
    "metrics": ("GET", "/metrics", None, {}, 403),
    "the server's metadata": ("GET", "/v2", None, {}, 403),
    "generate": ("POST", "/v2/models/colours/generate", b"{}", {}, 403),
    "a form in a GET": ("GET", "/v2/models/colours", b"a=" + bytes(1_000_000), FORM, 400),
    "a body of readiness": ("GET", "/v2/health/live", b"x", {}, 400),
    "another method": ("DELETE", "/v2/models/colours", None, {}, 403),
    "a query": ("POST", INFER + "?x=1", RED, BINARY, 403),
    "too large": ("POST", INFER, bytes(34 * 2**20), BINARY, 413),
}


def infer(**fields: Any) -> Callable[[GRPCInferenceServiceStub], Any]:
    return lambda stub: stub.ModelInfer(message(IMAGE, **fields), metadata=grpc_key(), timeout=5)


def changed(change: Callable[[triton.ModelInferRequest], None], **fields: Any) -> Callable[[Any], Any]:
    def call(stub: GRPCInferenceServiceStub) -> Any:
        request = message(IMAGE, **fields)
        change(request)
        return stub.ModelInfer(request, metadata=grpc_key(), timeout=5)

    return call


def class_count(request: triton.ModelInferRequest) -> None:
    request.outputs[0].parameters["classification"].int64_param = 1


def shared_memory(request: triton.ModelInferRequest) -> None:
    request.inputs[0].parameters["shared_memory_region"].string_param = "x"


def in_the_description(request: triton.ModelInferRequest) -> None:
    request.inputs[0].contents.bytes_contents.append(bytes(100_000))


def a_terabyte(request: triton.ModelInferRequest) -> None:
    tensor = request.inputs[0]
    tensor.datatype, tensor.shape[:] = "FP32", (1, 2**38)
    tensor.contents.fp32_contents.append(1)
    request.ClearField("raw_input_contents")


def admin(call: str, request: Any) -> Callable[[GRPCInferenceServiceStub], Any]:
    return lambda stub: getattr(stub, call)(request, metadata=grpc_key(), timeout=5)


NO, BAD, LOST = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
HOSTILE_GRPC: dict[str, tuple[Callable[[GRPCInferenceServiceStub], Any], grpc.StatusCode]] = {
    "a step": (infer(model="post_1d13e485f590"), LOST),
    "no name": (infer(model=""), LOST),
    "a long name": (infer(model="x" * 100_000), LOST),
    "an id with a line break": (infer(id="a\nb"), BAD),
    "an id of a megabyte": (infer(id="x" * 2**20), BAD),
    "a version of a megabyte": (infer(model_version="1" * 2**20), BAD),
    "a version that is not a number": (infer(model_version="1\n"), BAD),
    "a version in a question for a model": (
        admin("ModelReady", triton.ModelReadyRequest(name="colours", version="x" * 2**20)),
        BAD,
    ),
    "class_count on a label": (changed(class_count, outputs=["LABEL"]), NO),
    "shared memory": (changed(shared_memory), NO),
    "an image in the description": (changed(in_the_description), BAD),
    "a number, and the shape of a terabyte": (changed(a_terabyte), BAD),
    "a compressed message": (
        lambda stub: stub.ModelInfer(message(IMAGE), metadata=grpc_key(), compression=grpc.Compression.Gzip),
        BAD,
    ),
    "a stream": (lambda stub: list(stub.ModelStreamInfer(iter([message(IMAGE)]), metadata=grpc_key(), timeout=5)), NO),
    "the list of models": (admin("RepositoryIndex", triton.RepositoryIndexRequest()), NO),
    "loading a model": (admin("RepositoryModelLoad", triton.RepositoryModelLoadRequest(model_name="colours")), NO),
    "logging": (admin("LogSettings", triton.LogSettingsRequest()), NO),
    "tracing": (admin("TraceSetting", triton.TraceSettingRequest()), NO),
    "shared memory's list": (admin("SystemSharedMemoryStatus", triton.SystemSharedMemoryStatusRequest()), NO),
    "statistics": (admin("ModelStatistics", triton.ModelStatisticsRequest()), NO),
    "the server's metadata": (admin("ServerMetadata", triton.ServerMetadataRequest()), NO),
    "a step's configuration": (admin("ModelConfig", triton.ModelConfigRequest(name="post_1d13e485f590")), LOST),
    "too large": (
        lambda stub: stub.ModelInfer(
            message(("IMAGE", "BYTES", (1, 1), element(bytes(34 * 2**20)))), metadata=grpc_key(), timeout=20
        ),
        grpc.StatusCode.UNKNOWN,
    ),
}

_GOOD = message(IMAGE).SerializeToString()
BROKEN_GRPC = {
    "nothing": b"",
    "a byte": b"\x00",
    "only tags": b"\xff" * 50,
    "a length over the message": b"\x0a\xff\xff\xff\xff\x0fcolours",
    "the last byte missing": _GOOD[:-1],
    "a tag at the end": _GOOD + b"\x0a",
    "groups in each other": b"\x0b" * 9,
    "a length without an end": b"\x0a" + b"\x80" * 30,
    "an unknown field": _GOOD + b"\x42\x01x",
    "a name that is a number": b"\x08\x01" + _GOOD,
    "a second name": _GOOD + b"\x0a\x0cpost_1d13e48",
    "1.5 million empty inputs": _GOOD + b"\x2a\x00" * 1_500_000,
}
"""Bodies of `ModelInfer` that protobuf would not write."""

WRONG_GRPC: dict[str, triton.ModelInferRequest] = {
    name: message(*inputs) for name, (inputs, _) in WRONG_INPUTS.items()
} | {f"an unknown name: {name}": message(IMAGE, **given) for name, (given, _) in UNKNOWN.items()}
WRONG_HTTP: dict[str, tuple[str, str, bytes, dict[str, str]]] = {
    name: ("POST", *over_http(request)) for name, request in WRONG_GRPC.items()
} | {
    f"a body: {name}": ("POST", INFER, body, {"Inference-Header-Content-Length": str(len(body)), **headers})
    for name, (body, headers, _) in WRONG_BODIES.items()
}


def raw(gateway: Asked, body: bytes, *, call: str = "ModelInfer") -> grpc.StatusCode:
    """The status of a gRPC message that protobuf would not write."""
    return said_of(gateway, body, call=call)[0]


def said_of(gateway: Asked, body: bytes, *, call: str = "ModelInfer") -> tuple[grpc.StatusCode, str]:
    """The status of such a message, and the sentence with it."""
    channel = grpc.secure_channel(gateway.host_port, grpc.ssl_channel_credentials(gateway.certificate.read_bytes()))
    method = channel.unary_unary(f"/inference.GRPCInferenceService/{call}")
    try:
        method(body, metadata=grpc_key(), timeout=5)
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    finally:
        channel.close()
    return grpc.StatusCode.OK, ""
