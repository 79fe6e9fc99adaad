"""The journal of several classifiers, and of two servers: each row has the answer of the one that gave it."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import Decision
from slipway.operations.gateway.routes import Traffic, write_routes
from slipway.operations.journal.spool import tap_files
from slipway.serving import Ports
from tests.serving.conftest import EXAMPLE, Launched
from tests.serving.test_fleet import GREY, RED, repository
from tests.support.gateways import grpc_key, needs_envoy, running_gateway, write_gateway
from tests.support.journals import Journal, until
from tests.support.v2_requests import element, message

pytestmark = [needs_envoy, pytest.mark.nightly]
__all__ = ["repository"]


def observed() -> dict[str, Any]:
    return {"share": 1.0, "per_second": 10_000, "metrics_port": Ports.free().http}


def test_an_ensemble_for_several_gives_a_row_for_each_classifier(
    repository: Path,
    start: Callable[[Path], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    ports = start(repository).ports
    path = write_gateway(tmp_path / "gateway", ports=ports, repository=str(repository), observe=observed())
    images = [RED, b"", GREY, b"not an image"]
    batch = ("IMAGE", "BYTES", (len(images), 1), b"".join(map(element, images)))
    with running_gateway(path) as asked:
        one, stub = Journal(asked, path), asked.stub()
        for fields in ({}, {"outputs": ["shades.LABEL", "shades.BUNDLE", "colours.SCORE", "colours.BUNDLE"]}):
            stub.ModelInfer(message(batch, model="page", **fields), metadata=grpc_key(), timeout=20)
        until(lambda: len(tap_files(one.settings.spool)) == 2)
        assert one.empty()["rows"] == 2 * 2 * len(images)
        rows = one.run("rows")["rows"]
        labels = {(row["classifier"], row["image"]): row["label"] for row in rows}
        assert labels["shades", 2] == "unknown"
        assert labels["colours", 0] != labels["shades", 0]
        assert {row["parity"] for row in rows} == {"equal"}
        assert {row["kept"] for row in rows if row["status"] != 0} == {0}
        assert one.run("status")["images"] == 2


def test_a_row_is_asked_again_at_the_server_that_answered_and_waits_for_it(
    launch: Callable[..., Launched],
    assemble_colours: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (file,) = EXAMPLE.glob("post_*/1/decision.json")
    decision = {**Decision.read(file).plain(), "temperature": 2.0}
    stable, candidate = launch(EXAMPLE), launch(assemble_colours(tmp_path / "other", decision=decision))
    for server in (stable, candidate):
        server.wait_for('"event": "ready"')
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    ports = {name: port for name, port in vars(candidate.ports).items() if name != "metrics"}
    path = write_gateway(
        tmp_path / "gateway", ports=stable.ports, candidate=ports, repository=str(EXAMPLE), observe=observed()
    )
    with running_gateway(path) as asked:
        one = Journal(asked, path)
        write_routes(one.settings, Traffic(weight_percent=50))
        with one.client() as client:
            for _ in range(40):
                assert client.classify(RED).ok
            until(lambda: len(tap_files(one.settings.spool)) == 40)
            one.empty()
            rows = one.run("rows", "--last", "100")["rows"]
            assert {(row["arm"], row["parity"]) for row in rows} == {("stable", "equal"), ("candidate", "equal")}
            assert len({row["bundle"] for row in rows}) == 2
            write_routes(one.settings, Traffic(weight_percent=100))
            until(lambda: client.classify(RED).bundle == _of(rows, "candidate"))
            before = one.rows()
            candidate.process.kill()
            candidate.process.wait()
            write_routes(one.settings, Traffic(weight_percent=0))
            until(lambda: client.classify(RED).bundle == _of(rows, "stable"))
            collector = one.collect()
            until(lambda: "waits, and" in one.said())
            until(lambda: one.rows() > before)
            arms = Counter(row["arm"] for row in one.run("rows", "--last", "100")["rows"])
            assert arms["candidate"] == Counter(row["arm"] for row in rows)["candidate"]
            collector.kill()
            collector.wait()


def _of(rows: list[dict[str, Any]], arm: str) -> Any:
    return next(row["bundle"] for row in rows if row["arm"] == arm)
