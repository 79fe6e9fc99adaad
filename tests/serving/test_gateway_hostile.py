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
from tests.support.hostile import BAD, BROKEN_GRPC, HOSTILE_GRPC, HOSTILE_HTTP, INFER, LOST, class_count, raw, said_of
from tests.support.v2_requests import IMAGE, RED, message

pytestmark = needs_envoy


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


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(("call", "code"), HOSTILE_GRPC.values(), ids=HOSTILE_GRPC.keys())
def test_a_hostile_grpc_request_is_refused_with_a_sentence(
    stub: GRPCInferenceServiceStub, call: Callable[[Any], Any], code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        call(stub)
    assert raised.value.code() == code, raised.value.details()
    assert raised.value.details()


@pytest.mark.usefixtures("unharmed")
def test_messages_that_are_no_protobuf_are_refused(gateway: Asked) -> None:
    assert raw(gateway, message(IMAGE).SerializeToString()) == grpc.StatusCode.OK
    for name, body in BROKEN_GRPC.items():
        assert raw(gateway, body) in {BAD, LOST}, name


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
        assert time.monotonic() - started < 10
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
