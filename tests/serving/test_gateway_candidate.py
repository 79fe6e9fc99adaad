"""A second server behind the gateway: weights, copies, sticky users, and a candidate that dies."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from slipway.operations.gateway.routes import Traffic, write_routes
from slipway.serving import Ports
from tests.serving.conftest import EXAMPLE, Launched
from tests.support.asking import wait_until
from tests.support.gateway_users import Users
from tests.support.gateways import Asked, grpc_key, needs_envoy, running_gateway, write_gateway
from tests.support.hostile import BINARY, INFER
from tests.support.image_files import encode
from tests.support.v2_requests import IMAGE, RED, element, message, over_http

pytestmark = needs_envoy
MOST = 8
"""Images of one request, at most."""


@contextmanager
def two_servers(
    launch: Callable[..., Launched], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Launched, Launched, Asked]]:
    stable, candidate = launch(EXAMPLE), launch(EXAMPLE)
    for one in (stable, candidate):
        one.wait_for('"event": "ready"')
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    ports = {name: port for name, port in vars(candidate.ports).items() if name != "metrics"}
    path = write_gateway(folder / "gateway", ports=stable.ports, candidate=ports, repository=str(EXAMPLE))
    with running_gateway(path) as asked:
        yield stable, candidate, asked


def answered(ports: Ports) -> int:
    """Number of requests that a server has answered, probes of its supervisor included."""
    with grpc.insecure_channel(f"127.0.0.1:{ports.grpc}") as channel:
        request = triton.ModelStatisticsRequest(name="colours", version="1")
        statistics = GRPCInferenceServiceStub(channel).ModelStatistics(request, timeout=20)
    return int(statistics.model_stats[0].inference_stats.success.count)


def test_weights_copies_and_sticky_users_are_in_force_within_a_second_and_nobody_fails(
    launch: Callable[..., Launched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with two_servers(launch, tmp_path, monkeypatch) as (_, candidate, asked):
        settings = asked.gateway.plan.settings
        users = Users(asked)
        for weight, arms in ((100, {"candidate"}), (0, {"stable"})):
            write_routes(settings, Traffic(weight_percent=weight))
            changed = time.monotonic()
            time.sleep(1.4)
            assert {arm for arm, _ in users.since(changed + 1)} == arms
        before = answered(candidate.ports)
        write_routes(settings, Traffic(mirror_percent=100))
        time.sleep(1)
        assert answered(candidate.ports) > before + 5
        assert set(users.stop()) == {"stable", "candidate"}
        check_large_copies(asked, candidate.ports)
        check_sticky_users(asked)


def check_large_copies(asked: Asked, candidate: Ports) -> None:
    """Envoy drops a copy that is over its buffer's limit, and says nothing: none of 1.9 MB may be missing."""
    image = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (280, 280, 3), np.uint8)), "PNG")
    request = message(("IMAGE", "BYTES", (MOST, 1), element(image) * MOST), outputs=["LABEL"])
    assert 1.8e6 < request.ByteSize() < 2e6
    write_routes(asked.gateway.plan.settings, Traffic(mirror_percent=100))
    time.sleep(1)
    stub, before = asked.stub(), full_batches(candidate)
    for _ in range(10):
        stub.ModelInfer(request, metadata=grpc_key(), timeout=10)
        assert asked.http("POST", *over_http(request))[0] == 200
    wait_until(lambda: full_batches(candidate) >= before + 20, timeout_s=10)
    assert full_batches(candidate) == before + 20


def full_batches(ports: Ports) -> int:
    """Batches of `MOST` images that the first step of a server has run. Nothing is added to such a request, and probes
    send one image."""
    (step,) = EXAMPLE.glob("preprocess_*")
    with grpc.insecure_channel(f"127.0.0.1:{ports.grpc}") as channel:
        request = triton.ModelStatisticsRequest(name=step.name, version="1")
        (statistics,) = GRPCInferenceServiceStub(channel).ModelStatistics(request, timeout=20).model_stats
    return sum(int(one.compute_infer.count) for one in statistics.batch_stats if one.batch_size == MOST)


def check_sticky_users(asked: Asked) -> None:
    """A user has one server over both protocols; whoever had the candidate keeps it at a higher weight."""
    stub, users = asked.stub(), [f"user-{number}" for number in range(40)]
    before = set[str]()
    for weight in (10, 50):
        write_routes(asked.gateway.plan.settings, Traffic(weight_percent=weight, sticky_header="user"))
        time.sleep(1)
        now = {user for user in users if arm_over_grpc(stub, user) == "candidate"}
        assert now == {user for user in users if arm_over_http(asked, user) == "candidate"}
        assert before < now < set(users)
        assert abs(len(now) - weight / 100 * len(users)) <= 8, weight
        before = now


def arm_over_grpc(stub: GRPCInferenceServiceStub, user: str) -> str:
    metadata = [*grpc_key(), ("user", user)]
    _, call = stub.ModelInfer.with_call(message(IMAGE), metadata=metadata, timeout=10)
    return str(dict(call.initial_metadata())["slipway-arm"])


def arm_over_http(asked: Asked, user: str) -> str:
    return asked.http("POST", INFER, RED, {**BINARY, "user": user})[2]["slipway-arm"]


@pytest.mark.nightly
def test_a_candidate_that_dies_at_half_of_the_requests_costs_at_most_two_percent(
    launch: Callable[..., Launched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with two_servers(launch, tmp_path, monkeypatch) as (stable, candidate, asked):
        write_routes(asked.gateway.plan.settings, Traffic(weight_percent=50))
        users = Users(asked)
        time.sleep(3)
        killed = time.monotonic()
        candidate.process.send_signal(signal.SIGKILL)  # the kernel ends its server with it
        time.sleep(9)
        users.stop()
        assert users.failed(until=killed) == []
        within = [one for one in users.answers if killed < one.at <= killed + 6]
        failed = users.failed(since=killed, until=killed + 6)
        assert len(failed) <= 0.02 * len(within), failed
        assert users.failed(since=killed + 6) == []
        assert {arm for arm, _ in users.since(killed + 6)} == {"stable", "candidate"}, "stable answers for both"
        assert stable.process.poll() is None
