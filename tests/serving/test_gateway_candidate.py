"""A second server behind the gateway: weights, copies, sticky users, and a candidate that dies."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from slipway.operations.gateway.routes import Traffic, write_routes
from slipway.serving import Ports
from tests.serving.conftest import EXAMPLE, Launched
from tests.support.gateway_users import Users
from tests.support.gateways import Asked, grpc_key, needs_envoy, running_gateway, write_gateway
from tests.support.v2_requests import IMAGE, message

pytestmark = needs_envoy


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
        write_routes(settings, Traffic(weight_percent=50, sticky_header="user"))
        time.sleep(1)
        stub, seen = asked.stub(), {}
        for user in range(24):
            arms = set()
            for _ in range(2):
                metadata = [*grpc_key(), ("user", f"user-{user}")]
                _, call = stub.ModelInfer.with_call(message(IMAGE), metadata=metadata, timeout=10)
                arms.add(dict(call.initial_metadata())["slipway-arm"])
            assert len(arms) == 1
            seen[user] = arms.pop()
        assert 3 <= Counter(seen.values())["candidate"] <= 21


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
