"""Requests that could end tritonserver 2.51, or step around its interface, do not pass the gateway."""

import json
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from slipway.operations.gateway.settings import KEY_HEADER
from tests.serving.test_bad_bodies import WRONG_BODIES
from tests.support.gateways import KEYS, Asked, grpc_key, needs_envoy
from tests.support.v2_requests import IMAGE, RED, element, message

pytestmark = needs_envoy
BINARY = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
INFER = "/v2/models/colours/infer"
FORM = {"Inference-Header-Content-Length": "0", "Content-Type": "application/x-www-form-urlencoded"}
CLASS = json.dumps({"inputs": [], "outputs": [{"name": "LABEL", "parameters": {"classification": 1}}]}).encode()
ESCAPED = CLASS.replace(b"classification", b"classific\\u0061tion")
SHARED = b'{"inputs": [{"name": "IMAGE", "parameters": {"shared_memory_region": "x"}}]}'
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
    "generate": ("POST", "/v2/models/colours/generate", b"{}", {}, 403),
    "a form in a GET": ("GET", "/v2/models/colours", b"a=" + bytes(1_000_000), FORM, 400),
    "a body of readiness": ("GET", "/v2/health/live", b"x", {}, 400),
    "another method": ("DELETE", "/v2/models/colours", None, {}, 403),
    "a query": ("POST", INFER + "?x=1", RED, BINARY, 403),
    "too large": ("POST", INFER, bytes(34 * 2**20), BINARY, 413),
}


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("case", HOSTILE_HTTP.values(), ids=HOSTILE_HTTP.keys())
def test_a_hostile_http_request_is_refused_with_a_sentence(
    gateway: Asked, case: tuple[str, str, bytes | None, dict[str, str], int]
) -> None:
    *request, code = case
    found, said, _ = gateway.http(*request)
    assert found == code, said
    refusal = json.loads(said)
    assert refusal["error"] or refusal["why"] == "path_normalization_failed", refusal
    if code == 413:
        assert "larger than 34,603,008 bytes (max_request_bytes" in refusal["error"]


@pytest.mark.usefixtures("unharmed")
def test_every_body_that_tritonserver_refuses_is_refused_through_the_gateway_too(gateway: Asked) -> None:
    for name, (body, headers, _) in WRONG_BODIES.items():
        code, _, _ = gateway.http("POST", INFER, body, {"Content-Type": "application/octet-stream", **headers})
        assert 400 <= code <= 501, name


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


def admin(call: str, request: Any) -> Callable[[GRPCInferenceServiceStub], Any]:
    return lambda stub: getattr(stub, call)(request, metadata=grpc_key(), timeout=5)


NO, BAD, LOST = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
HOSTILE_GRPC: dict[str, tuple[Callable[[GRPCInferenceServiceStub], Any], grpc.StatusCode]] = {
    "a step": (infer(model="post_1d13e485f590"), LOST),
    "no name": (infer(model=""), LOST),
    "a long name": (infer(model="x" * 100_000), LOST),
    "an id with a line break": (infer(id="a\nb"), BAD),
    "an id of a megabyte": (infer(id="x" * 2**20), BAD),
    "class_count on a label": (changed(class_count, outputs=["LABEL"]), NO),
    "shared memory": (changed(shared_memory), NO),
    "a version of a megabyte": (infer(model_version="1" * 2**20), BAD),
    "a version that is not a number": (infer(model_version="1\n"), BAD),
    "a version in a question for a model": (
        admin("ModelReady", triton.ModelReadyRequest(name="colours", version="x" * 2**20)),
        BAD,
    ),
    "an image in the description": (changed(in_the_description), BAD),
    "a compressed message": (
        lambda stub: stub.ModelInfer(message(IMAGE), metadata=grpc_key(), compression=grpc.Compression.Gzip),
        BAD,
    ),
    "a stream": (
        lambda stub: list(stub.ModelStreamInfer(iter([message(IMAGE)]), metadata=grpc_key(), timeout=5)),
        NO,
    ),
    "the list of models": (admin("RepositoryIndex", triton.RepositoryIndexRequest()), NO),
    "loading a model": (admin("RepositoryModelLoad", triton.RepositoryModelLoadRequest(model_name="colours")), NO),
    "logging": (admin("LogSettings", triton.LogSettingsRequest()), NO),
    "tracing": (admin("TraceSetting", triton.TraceSettingRequest()), NO),
    "shared memory's list": (admin("SystemSharedMemoryStatus", triton.SystemSharedMemoryStatusRequest()), NO),
    "statistics": (admin("ModelStatistics", triton.ModelStatisticsRequest()), NO),
    "a step's configuration": (admin("ModelConfig", triton.ModelConfigRequest(name="post_1d13e485f590")), LOST),
    "too large": (
        lambda stub: stub.ModelInfer(
            message(("IMAGE", "BYTES", (1, 1), element(bytes(34 * 2**20)))), metadata=grpc_key(), timeout=20
        ),
        grpc.StatusCode.UNKNOWN,
    ),
}


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(("call", "code"), HOSTILE_GRPC.values(), ids=HOSTILE_GRPC.keys())
def test_a_hostile_grpc_request_is_refused_with_a_sentence(
    stub: GRPCInferenceServiceStub, call: Callable[[Any], Any], code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        call(stub)
    assert raised.value.code() == code, raised.value.details()
    assert raised.value.details()


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


@pytest.mark.usefixtures("unharmed")
def test_messages_that_are_no_protobuf_are_refused(gateway: Asked) -> None:
    good = message(IMAGE).SerializeToString()
    assert raw(gateway, good) == grpc.StatusCode.OK
    second_name = b"\x0a\x0cpost_1d13e48"
    bodies = [b"", b"\x00", b"\xff" * 50, b"\x0a\xff\xff\xff\xff\x0fcolours", good[:-1], good + b"\x0a", b"\x0b" * 9]
    bodies += [b"\x0a" + b"\x80" * 30, good + b"\x42\x01x", b"\x08\x01" + good, good + second_name]
    for body in bodies:
        assert raw(gateway, body) in {BAD, LOST}, body[:40]


FIELD_ONE = {
    "a tag of 2^32 and field 1": b"\x8a\x80\x80\x80\x10",
    "a tag of six bytes": b"\x8a\x80\x80\x80\x80\x00",
    "a tag of ten bytes": b"\x8a\x80\x80\x80\x80\x80\x80\x80\x80\x00",
    "field 0": b"\x02",
}
"""Tags that protobuf of C++, which keeps 32 bits of a tag, reads as that of field 1, or refuses."""


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("tag", FIELD_ONE.values(), ids=FIELD_ONE.keys())
def test_a_tag_that_the_server_may_read_otherwise_does_not_pass(gateway: Asked, tag: bytes) -> None:
    step = b"post_1d13e485f590"
    renamed = b"\x0a\x07colours" + tag + bytes([len(step)]) + step
    for call in ("ModelConfig", "ModelMetadata", "ModelReady"):
        assert raw(gateway, renamed, call=call) == BAD, call
    asked = message(IMAGE, model="colours_full", outputs=["PROBABILITY"])
    class_count(asked)
    output = asked.outputs[0].SerializeToString() + tag + b"\x05LABEL"
    asked.ClearField("outputs")
    assert raw(gateway, asked.SerializeToString() + b"\x32" + bytes([len(output)]) + output) == BAD


@pytest.mark.usefixtures("unharmed")
def test_a_message_of_many_fields_is_refused_before_they_are_read(gateway: Asked) -> None:
    good = message(IMAGE).SerializeToString()
    assert raw(gateway, b"\x12\x011" * 9_000 + good) == grpc.StatusCode.OK
    many = (BAD, "the gRPC message has over 10000 fields")
    for empty in (b"\x3a\x00", b"\x2a\x00", b"\x32\x00"):
        started = time.monotonic()
        assert said_of(gateway, good + empty * 500_000) == many
        assert time.monotonic() - started < 1
    assert said_of(gateway, good + b"\x12\x00" * 500_000, call="ModelReady") == many
    names = b"\x0a\x0bPROBABILITY" * 200
    assert said_of(gateway, good + (b"\x32" + encoded(len(names)) + names) * 60) == many
    long_name = b"\x2a" + encoded(4003) + b"\x0a" + encoded(4000) + b"x" * 4000
    code, said = said_of(gateway, good + long_name * 300)
    assert (code, "descriptions" in said) == (BAD, True), said
    code, said = said_of(gateway, b"\x3a\x00", call="ServerLive")
    assert (code, "has no fields" in said) == (BAD, True), said


def encoded(length: int) -> bytes:
    """A length under 2^14 as protobuf writes it, in two bytes."""
    return bytes([length % 128 | 128, length // 128])


def test_short_deadlines_do_not_reach_the_server(stub: GRPCInferenceServiceStub, unharmed: Any) -> None:
    def count() -> float:
        request = triton.ModelStatisticsRequest(name="colours", version="1")
        direct = GRPCInferenceServiceStub(grpc.insecure_channel(unharmed.grpc_url))
        return float(direct.ModelStatistics(request).model_stats[0].execution_count)

    before = count()
    codes = set()
    for index in range(40):
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelInfer(message(IMAGE), metadata=grpc_key(), timeout=0.001 * (1 + index % 8))
        codes.add(raised.value.code())
    assert codes <= {BAD, grpc.StatusCode.DEADLINE_EXCEEDED}
    time.sleep(0.2)
    assert count() == before


def test_class_count_on_probabilities_passes_over_grpc(stub: GRPCInferenceServiceStub) -> None:
    request = message(IMAGE, model="colours_full", outputs=["PROBABILITY"])
    class_count(request)
    answer = stub.ModelInfer(request, metadata=grpc_key(), timeout=5)
    assert b"red" in answer.raw_output_contents[0]


def in_chunks(gateway: Asked, body: bytes, *also: str) -> bytes:
    """The answer to a body that comes in chunks of one byte each, after a head with more lines."""
    head = [f"POST {INFER} HTTP/1.1", "host: x", f"{KEY_HEADER}: {KEYS['pets']}", "connection: close", *also]
    head += [
        "transfer-encoding: chunked",
        "inference-header-content-length: 0",
        "content-type: application/octet-stream",
    ]
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    context = ssl.create_default_context(cafile=gateway.certificate)
    host, _, port = gateway.host_port.partition(":")
    with context.wrap_socket(socket.create_connection((host, int(port)), 20), server_hostname=host) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + chunks)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.usefixtures("unharmed")
def test_a_body_in_chunks_of_a_byte_reaches_the_server_as_one(gateway: Asked) -> None:
    """Many small chunks can end 2.51 (CVE-2025-23310). It gets a body of one piece, with its length."""
    assert in_chunks(gateway, RED).startswith(b"HTTP/1.1 200"), "a good image"
    assert in_chunks(gateway, bytes(200_000)).startswith(b"HTTP/1.1 200"), "no image: STATUS says so"
    assert in_chunks(gateway, RED, f"content-length: {len(RED)}").startswith(b"HTTP/1.1 400"), "two lengths"
