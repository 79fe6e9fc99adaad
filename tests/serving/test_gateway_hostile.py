"""Requests that could end tritonserver 2.51, step around its interface, or are wrong, do not pass the gateway."""

import json
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from slipway.operations.gateway.settings import KEY_HEADER
from slipway.serving import Ports
from tests.serving.conftest import EXAMPLE
from tests.support.gateways import KEYS, Asked, grpc_key, needs_envoy, running_gateway, write_gateway
from tests.support.hostile import (
    BAD,
    BINARY,
    BROKEN_GRPC,
    HOSTILE_GRPC,
    HOSTILE_HTTP,
    INFER,
    LOST,
    WRONG_GRPC,
    WRONG_HTTP,
    class_count,
    raw,
    said_of,
)
from tests.support.v2_requests import IMAGE, RED, http_request, message

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
def test_every_wrong_http_request_is_the_clients_fault_by_its_status(gateway: Asked) -> None:
    wrong = {}
    for name, request in WRONG_HTTP.items():
        code, said, _ = gateway.http(*request)
        if not (400 <= code < 500 and json.loads(said)["error"]):
            wrong[name] = code, said
        assert gateway.http("POST", INFER, RED, BINARY)[0] == 200, name
    assert wrong == {}


@pytest.mark.usefixtures("unharmed")
def test_every_wrong_grpc_request_is_the_clients_fault_by_its_code(stub: GRPCInferenceServiceStub) -> None:
    wrong = {}
    for name, request in WRONG_GRPC.items():
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelInfer(request, metadata=grpc_key(), timeout=5)
        if raised.value.code() not in {BAD, LOST}:
            wrong[name] = raised.value.code(), raised.value.details()
        assert stub.ModelInfer(message(IMAGE), metadata=grpc_key(), timeout=5).outputs, name
    assert wrong == {}


class Echo(BaseHTTPRequestHandler):
    """A server that answers with the body of the request, and the status in its header `answer`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        self.send_response(int(self.headers["answer"]))
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def test_of_the_servers_faults_only_those_that_speak_of_the_request_become_the_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        ports = replace(Ports.free(), http=server.server_port)
        path = write_gateway(tmp_path / "gateway", ports=ports, repository=str(EXAMPLE))
        with running_gateway(path) as asked:
            for status, body, code in (
                (500, b'{"error":"Unable to parse \'id\': attempt to access JSON non-string as string"}', 400),
                (500, b'{"error":"in ensemble \'colours\', Unable to parse the image"}', 500),
                (500, b"Unable to parse 'id'", 500),
                (500, b"", 500),
                (503, b'{"error":"Unable to parse \'id\'"}', 503),
            ):
                found, said, _ = asked.http("POST", INFER, body, {**BINARY, "answer": str(status)})
                assert (found, said) == (code, body)
            assert 'envoy_slipway_answers{model="colours",arm="stable",team="pets",code="400"' in asked.metrics()[1]
        server.shutdown()


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


def connected(gateway: Asked) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=gateway.certificate)
    host, _, port = gateway.host_port.partition(":")
    return context.wrap_socket(socket.create_connection((host, int(port)), 20), server_hostname=host)


def in_chunks(gateway: Asked, body: bytes, *also: str) -> bytes:
    """The answer to a body that comes in chunks of one byte each, after a head with more lines."""
    head = [f"POST {INFER} HTTP/1.1", "host: x", f"{KEY_HEADER}: {KEYS['pets']}", "connection: close", *also]
    head += [
        "transfer-encoding: chunked",
        "inference-header-content-length: 0",
        "content-type: application/octet-stream",
    ]
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    with connected(gateway) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + chunks)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.usefixtures("unharmed")
def test_a_body_in_chunks_of_a_byte_reaches_the_server_as_one(gateway: Asked) -> None:
    """Many small chunks can end 2.51 (CVE-2025-23310). It gets a body of one piece, with its length."""
    assert in_chunks(gateway, RED).startswith(b"HTTP/1.1 200"), "a good image"
    assert in_chunks(gateway, bytes(200_000)).startswith(b"HTTP/1.1 200"), "no image: STATUS says so"
    assert in_chunks(gateway, RED, f"content-length: {len(RED)}").startswith(b"HTTP/1.1 400"), "two lengths"


@pytest.mark.usefixtures("unharmed")
def test_clients_that_go_away_harm_nobody(gateway: Asked, stub: GRPCInferenceServiceStub) -> None:
    for _ in range(10):
        call = stub.ModelInfer.future(message(IMAGE), metadata=grpc_key())
        time.sleep(0.002)
        call.cancel()
    head, body = http_request(RED)
    head = head.removesuffix(b"\r\n") + f"{KEY_HEADER}: {KEYS['pets']}\r\n\r\n".encode()
    for sent in (head[:20], head, head + body[: len(body) // 2], head + body):
        for _ in range(5):
            with connected(gateway) as connection:
                connection.sendall(sent)
