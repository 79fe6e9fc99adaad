"""What `slipway render monitoring` writes, in the real Prometheus and Alertmanager, over metrics of real processes."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest

from slipway.operations.gateway.routes import Traffic, write_routes
from slipway.operations.gateway.settings import read_settings
from slipway.operations.monitoring.render import render, write
from slipway.serving import Ports, Server
from slipway.serving.endpoint import endpoint
from slipway.serving.status import ServingStatus
from tests.serving.conftest import EXAMPLE
from tests.support.gateways import grpc_key, needs_envoy, running_gateway, write_gateway
from tests.support.journals import Journal, pictures, until
from tests.support.prometheus import (
    Prometheus,
    Webhook,
    free_port,
    needs_alertmanager,
    needs_prometheus,
    running_alertmanager,
    running_prometheus,
    webhook,
)
from tests.support.v2_requests import IMAGE, message
from tests.support.watched_metrics import StandIn, watch_stand_in

pytestmark = [needs_envoy, needs_prometheus, needs_alertmanager]
INFER = "/v2/models/colours/infer"
RAW = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
METRIC = re.compile(r"(?<![\w:$])((?:envoy|slipway|nv|up|ALERTS)\b[\w:]*|(?:envoy|slipway|nv)_[\w:]*)(\{[^}]*\})?")


@dataclass
class Monitored:
    """Everything that a gateway's settings name, with its monitoring."""

    prometheus: Prometheus
    hook: Webhook
    journal: Journal
    status: ServingStatus
    watch: StandIn
    folder: Path
    """What `slipway render monitoring` has written."""


@pytest.fixture(scope="module")
def monitored(example_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    folder = tmp_path_factory.mktemp("monitored")
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        status, ports = ServingStatus(), Ports.free()
        stack.enter_context(endpoint(ports.status, status=status, reload=lambda: (True, ""), key="k"))
        watch = stack.enter_context(watch_stand_in())
        own = example_server.ports
        path = write_gateway(
            folder,
            repository=str(EXAMPLE),
            stable={"grpc": own.grpc, "http": own.http, "status": ports.status, "metrics": own.metrics},
            # One supervisor says of both that they are ready; nobody listens at the candidate, and stable takes over.
            candidate={"grpc": ports.grpc, "http": ports.http, "status": free_port(), "metrics": free_port()},
            observe={"share": 1.0, "per_second": 10_000, "metrics_port": free_port()},
            watch={"metrics_port": watch.port},
            budgets_ms={"colours_full": 35},
        )
        settings = read_settings(path)
        assert settings.candidate is not None
        stack.enter_context(endpoint(settings.candidate.status, status=status, reload=lambda: (True, ""), key="k"))
        asked = stack.enter_context(running_gateway(path))
        journal = Journal(asked, path)
        collector = journal.collect()
        stack.callback(lambda: (collector.kill(), collector.wait()))
        hook, at = stack.enter_context(webhook()), free_port()
        urls = {"webhook": hook.url, "watchdog": hook.url}
        write(render(settings, **urls, alertmanager=f"127.0.0.1:{at}"), folder / "monitoring")
        configuration = folder / "monitoring/prometheus.yml"
        # Only so that the test need not wait for two scrapes of tritonserver.
        configuration.write_text(configuration.read_text().replace("scrape_interval: 10s", "scrape_interval: 2s"))
        stack.enter_context(running_alertmanager(folder / "monitoring/alertmanager.yml", folder / "am", port=at))
        prometheus = stack.enter_context(running_prometheus(configuration, folder / "data"))
        _start(status)
        write_routes(settings, Traffic(weight_percent=50))
        yield Monitored(prometheus, hook, journal, status, watch, folder / "monitoring")


def _start(status: ServingStatus) -> None:
    status.starts.inc()
    status.set_all({"colours": ""}, alone=())
    status.set_seconds("colours", 0.01)


def _ask(journal: Journal) -> None:
    with journal.client() as client:
        for full in (False, True):
            assert all(result.error is None for result in client.classify_many(pictures(12), full=full))
    assert journal.asked.http("POST", INFER, b"not an image", RAW)[0] == 200
    assert journal.asked.http("POST", INFER, b"{}", {**RAW, "Inference-Header-Content-Length": "2"})[0] != 200
    journal.asked.stub().ModelInfer(message(IMAGE, outputs=["LABEL"]), metadata=grpc_key())  # not comparable
    assert journal.asked.http("POST", INFER.replace("/infer", "/versions/99/infer"), b"", RAW)[0] == 404
    for wrong in (ModelInferRequest(model_name="colours"), ModelInferRequest(model_name="colours", model_version="99")):
        with pytest.raises(grpc.RpcError):
            journal.asked.stub().ModelInfer(wrong, metadata=grpc_key())


def test_no_panel_is_empty_and_every_rule_reads_metrics_that_are_exported(monitored: Monitored) -> None:
    """A metric that is renamed in the code leaves a panel or an alert without series."""
    board = json.loads((monitored.folder / "grafana.json").read_text())
    panels = {target["expr"].replace("$classifier", ".*") for panel in board["panels"] for target in panel["targets"]}
    rules = monitored.prometheus.rules()
    read = {"".join(found) for rule in rules for found in METRIC.findall(rule["query"])}
    assert {
        "slipway_watch_drift_alarm",
        "slipway:over_budget:increase10m",
        'envoy_slipway_answers{grpc!~"OK|InvalidArgument|"}',
    } <= read
    # What never happens in this test, and cannot have a series before it does.
    never = {one for one in read if 'result="differs"' in one}
    wanted = (panels | read) - never
    monitored.watch.change(drifted=True)

    def empty() -> set[str]:
        _ask(monitored.journal)
        return {one for one in wanted if not monitored.prometheus.query(one)}

    deadline = time.monotonic() + 25
    while missing := empty():
        assert time.monotonic() < deadline, f"without series: {missing}"
        time.sleep(1)
    rules = monitored.prometheus.rules()
    assert {rule["name"]: rule["lastError"] for rule in rules if rule["health"] != "ok"} == {}


def test_every_target_of_the_settings_answers(monitored: Monitored) -> None:
    until(lambda: len(monitored.prometheus.targets()) == 7)
    until(lambda: all(one["health"] != "unknown" for one in monitored.prometheus.targets()))
    dead = [one["labels"]["job"] for one in monitored.prometheus.targets() if one["health"] != "up"]
    assert dead == ["slipway-triton"], "only the candidate's tritonserver is none here"


def test_an_alert_is_at_the_webhook_within_15_seconds(monitored: Monitored) -> None:
    """One that is decided already, and one that must be seen for four seconds first."""
    began = time.time()
    monitored.watch.change(drifted=True, accuracy=0.8)
    monitored.status.set_some({"colours": "a probe failed"}, alone=())
    took = {
        name: monitored.hook.first(name, after=began) for name in ("SlipwayAccuracyLost", "SlipwayClassifierUnready")
    }
    print(took)
    assert max(took.values()) <= 15
    monitored.status.set_some({"colours": ""}, alone=())
    alert = next(one for _, one in monitored.hook.alerts if one["labels"]["alertname"] == "SlipwayAccuracyLost")
    assert alert["annotations"]["runbook"] == "docs/runbook.md#slipwayaccuracylost"
    assert alert["labels"]["severity"] == "page"


@pytest.mark.nightly
def test_the_alert_that_always_fires_reaches_who_expects_it_within_a_minute(monitored: Monitored) -> None:
    """Prometheus knows no Alertmanager yet when it first fires, and sends it again after a minute."""
    began = time.time()
    assert monitored.hook.first("SlipwayWatchdog", after=began, seconds=90) <= 75
    assert monitored.hook.first("SlipwayWatchdog", after=time.time(), seconds=90) <= 75


@pytest.mark.nightly
def test_ten_alerts_that_come_and_go_are_each_at_the_webhook_within_15_seconds(monitored: Monitored) -> None:
    """An alert that comes again joins a message that is under way, which is the slowest way."""
    took = []
    for number in range(10):
        monitored.watch.change()
        monitored.status.set_some({"colours": ""}, alone=())
        time.sleep(9 + 0.37 * number)
        began = time.time()
        monitored.watch.change(accuracy=0.8)
        monitored.status.set_some({"colours": "a probe failed"}, alone=())
        took += [monitored.hook.first(one, after=began) for one in ("SlipwayAccuracyLost", "SlipwayClassifierUnready")]
    print(sorted(round(one, 1) for one in took))
    assert max(took) <= 15
