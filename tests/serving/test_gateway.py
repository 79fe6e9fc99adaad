"""The real Envoy before the real tritonserver: good requests pass unchanged, and what could end the server does not."""

import json
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from slipway.client import Client, ForbiddenError, ModelError, Options, OverloadedError
from slipway.contract import Lane, SpecError
from slipway.operations.gateway.routes import Traffic, read_traffic, write_routes
from slipway.operations.gateway.settings import ServerPorts
from slipway.operations.release.apply_weights import put_in_force
from slipway.serving import Ports
from tests.serving.conftest import EXAMPLE
from tests.support.gateways import KEYS, Asked, grpc_key, needs_envoy
from tests.support.v2_requests import IMAGE, RED, message

pytestmark = needs_envoy
BINARY = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
INFER, INFER_FULL = "/v2/models/colours/infer", "/v2/models/colours_full/infer"


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_answer_through_the_gateway_is_the_direct_one(gateway: Asked, unharmed: Any, protocol: str) -> None:
    direct = f"{protocol}://{unharmed.grpc_url if protocol == 'grpc' else unharmed.http_url}"
    options = Options(key=KEYS["pets"], certificate=gateway.certificate)
    images = [RED, b"not an image", RED[:100]]
    with (
        Client(direct, model="colours") as one,
        Client(f"{protocol}s://{gateway.host_port}", model="colours", options=options) as other,
    ):
        for full in (False, True):
            for near, far in zip(
                one.classify_many(images, full=full), other.classify_many(images, full=full), strict=True
            ):
                assert (near.status, near.label, near.score, near.bundle) == (
                    far.status,
                    far.label,
                    far.score,
                    far.bundle,
                )
                assert np.array_equal(near.embedding, far.embedding) if near.embedding is not None else not full


@pytest.mark.parametrize("protocol", ["grpcs", "https"])
def test_a_client_hears_in_words_what_the_gateway_refuses(gateway: Asked, protocol: str) -> None:
    def ask(model: str, **options: Any) -> None:
        settings = Options(certificate=gateway.certificate, **options)
        with Client(f"{protocol}://{gateway.host_port}", model=model, options=settings) as client:
            for _ in range(8):
                client.classify(RED)

    with pytest.raises(ForbiddenError, match="requires the key of a team"):
        ask("colours")
    with pytest.raises(ModelError, match="serves no model of this name"):
        ask("cats", key=KEYS["pets"])
    with pytest.raises(OverloadedError, match="over its rate"):
        ask("colours", key=KEYS["cars"], deadline_s=0.3)


@pytest.mark.parametrize("key", [None, "", "wrong", KEYS["pets"] + "x"])
def test_without_a_right_key_nothing_passes(gateway: Asked, stub: GRPCInferenceServiceStub, key: str | None) -> None:
    code, body, _ = gateway.http("POST", INFER, RED, BINARY, key=key)
    assert (code, json.loads(body)["error"]) == (401, "the header slipway-key does not hold a team's key")
    with pytest.raises(grpc.RpcError) as raised:
        stub.ModelInfer(message(IMAGE), metadata=[("slipway-key", key)] if key is not None else [], timeout=5)
    assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_team_over_its_rate_waits_and_the_other_does_not(gateway: Asked) -> None:
    codes = [gateway.http("GET", "/v2/health/live", key=KEYS["cars"])[0] for _ in range(6)]
    assert codes[-1] == 429
    said = json.loads(gateway.http("GET", "/v2/health/live", key=KEYS["cars"])[1])["error"]
    assert said.startswith("the team is over its rate, 2 requests a second, and 2 at once; send fewer")
    assert gateway.http("GET", "/v2/health/live")[0] == 200
    time.sleep(1.1)
    assert gateway.http("GET", "/v2/health/live", key=KEYS["cars"])[0] == 200


def test_what_a_client_writes_into_the_gateways_own_headers_counts_for_nothing(gateway: Asked) -> None:
    own = {"slipway-team": "cars", "x-envoy-upstream-rq-timeout-ms": "1", "x-forwarded-for": "10.0.0.1"}
    assert {gateway.http("POST", INFER, RED, {**BINARY, **own})[0] for _ in range(8)} == {200}


def test_a_header_that_is_there_twice_is_not_read_as_one(gateway: Asked, own_server: Any) -> None:
    context = ssl.create_default_context(cafile=gateway.certificate)
    host, _, port = gateway.host_port.partition(":")
    lines = [f"POST {INFER} HTTP/1.1", "host: x", f"slipway-key: {KEYS['pets']}", "content-length: 9000"]
    lines += ["inference-header-content-length: 0", "inference-header-content-length: 9000", "connection: close"]
    with context.wrap_socket(socket.create_connection((host, int(port)), 20), server_hostname=host) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + b"[" * 9000)
        assert connection.recv(12) == b"HTTP/1.1 400"
    assert own_server.process.poll() is None


def test_what_a_balancer_and_a_client_ask_besides_is_answered(gateway: Asked, stub: GRPCInferenceServiceStub) -> None:
    assert stub.ServerLive(triton.ServerLiveRequest(), metadata=grpc_key()).live
    assert stub.ModelReady(triton.ModelReadyRequest(name="colours"), metadata=grpc_key()).ready
    assert stub.ModelMetadata(triton.ModelMetadataRequest(name="colours"), metadata=grpc_key()).name == "colours"
    for path in ("/v2/health/live", "/v2/models/colours", "/v2/models/colours/ready", "/v2/models/colours/config"):
        assert gateway.http("GET", path)[0] == 200, path
    code, _, headers = gateway.http("POST", INFER, RED, BINARY)
    assert (code, headers["slipway-arm"]) == (200, "stable")


def test_latency_has_an_edge_at_each_budget_and_the_rest_of_the_interface_is_closed(gateway: Asked) -> None:
    assert gateway.http("POST", INFER, RED, BINARY)[0] == 200
    deadline = time.monotonic() + 10
    counted = 'envoy_slipway_latency_us_count{model="colours",arm="stable"}'
    while time.monotonic() < deadline:
        code, said = gateway.metrics()
        if code == 200 and f"{counted} 0\n" not in said and counted in said:
            break
        time.sleep(0.3)
    edges = 'envoy_slipway_latency_us_bucket{model="colours",arm="stable",le="%s"}'
    assert edges % 35000 in said
    assert edges % 50000 in said
    assert 'envoy_slipway_answers{model="colours",arm="stable",team="pets",code="200"' in said
    for path in ("/config_dump", "/quitquitquit", "/logging", "/certs", "/clusters", "/"):
        assert gateway.metrics(path)[0] in {403, 404}, path


@pytest.mark.usefixtures("unharmed")
def test_a_candidate_that_the_running_gateway_does_not_know_gets_no_requests(gateway: Asked) -> None:
    settings = gateway.gateway.plan.settings
    ports = Ports.free()
    newer = settings.model_copy(
        update={"candidate": ServerPorts(grpc=ports.grpc, http=ports.http, status=ports.status)}
    )
    for traffic in (Traffic(weight_percent=50), Traffic(mirror_percent=50)):
        with pytest.raises(SpecError, match=r"does not know the candidate; .*slipway reload"):
            put_in_force(newer, traffic)
        assert read_traffic(settings) == Traffic()
    put_in_force(newer, Traffic())  # a rollback is not held up
    try:
        write_routes(newer, Traffic(weight_percent=100))  # and Envoy itself refuses what another writer gives it
        time.sleep(0.3)
        assert [gateway.http("POST", INFER, RED, BINARY)[0] for _ in range(3)] == [200] * 3
    finally:
        put_in_force(settings, Traffic())


def test_an_invalid_request_counts_by_its_team_and_what_the_gateway_refuses_does_not(
    gateway: Asked, stub: GRPCInferenceServiceStub
) -> None:
    """The labels by which the alerts tell a client's fault from the server's."""

    def counts() -> set[str]:
        return {line for line in gateway.metrics()[1].splitlines() if "_answers{" in line}

    wrong = message(("IMAGE", "FP32", (1, 1), bytes(4)), model="colours_full")
    with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
        stub.ModelInfer(wrong, metadata=grpc_key(), timeout=5)
    assert gateway.http("POST", INFER_FULL, b"{", {**BINARY, "Inference-Header-Content-Length": "1"})[0] == 400
    answers = 'envoy_slipway_answers{model="colours_full",arm="stable",team="pets",code='
    for labels in ('"200",grpc="InvalidArgument"', '"400",grpc=""'):
        assert any(line.startswith(answers + labels) for line in counts()), labels
    before = counts()
    assert gateway.http("POST", INFER_FULL, b"{", {})[0] == 400
    assert counts() == before


def test_no_key_is_in_the_process_list_the_logs_or_the_server(gateway: Asked, own_server: Any) -> None:
    assert gateway.gateway.process is not None
    shown = Path(f"/proc/{gateway.gateway.process.pid}/cmdline").read_bytes()
    shown += Path(f"/proc/{gateway.gateway.process.pid}/environ").read_bytes()
    folder = gateway.gateway.plan.settings.folder
    logs = (folder / "envoy.log").read_text() + own_server.log.read_text()
    access = (folder.parents[2] / "access.jsonl").read_text()
    for key in KEYS.values():
        assert key.encode() not in shown
        assert key not in logs + access
    assert all("127.0.0.1" not in line for line in access.splitlines())
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*.yaml"))


def test_a_withdrawn_key_and_new_models_are_in_force_without_a_failed_request(
    gateway: Asked, stub: GRPCInferenceServiceStub
) -> None:
    key_file = Path(gateway.gateway.plan.settings.teams["cars"].key_file)
    key_file.write_text("another-key-of-the-team-cars-0123\n")
    lane = Lane.read(EXAMPLE / "lane.json")
    gateway.gateway.reload(lane.model_copy(update={"classifiers": {**lane.classifiers, "cats": "0" * 64}}))
    deadline = time.monotonic() + 3
    while gateway.http("GET", "/v2/health/live", key=KEYS["cars"])[0] != 401:
        assert time.monotonic() < deadline
        stub.ModelInfer(message(IMAGE), metadata=grpc_key(), timeout=5)
    code, said, _ = gateway.http("POST", "/v2/models/cats/infer", RED, BINARY)
    assert code in {400, 404}
    assert b"gateway" not in said  # tritonserver's own answer
