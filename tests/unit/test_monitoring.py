"""The monitoring's files: what is in them, and that Prometheus takes them."""

import json
import os
import re
from pathlib import Path

import pytest

from slipway.errors import SpecError, StorageError
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.monitoring.alerts import all_alerts
from slipway.operations.monitoring.budgets import budgets
from slipway.operations.monitoring.render import FILES, MARKER, checked_webhook, render, write
from slipway.operations.monitoring.scraped import targets
from slipway.operations.watch.settings import WatchSettings
from tests.support.gateways import write_gateway
from tests.support.monitored import ALERTMANAGER, WHOLE, rendered, settings
from tests.support.prometheus import AMTOOL, PROMTOOL, checked, needs_prometheus
from tests.support.scripts import run_here
from tests.support.validators import grafana_faults

ROOT = Path(__file__).parents[2]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write(rendered(tmp_path, **WHOLE), tmp_path / "out")
    return tmp_path / "out"


@needs_prometheus
def test_prometheus_and_alertmanager_accept_every_file(written: Path) -> None:
    assert "SUCCESS" in checked(PROMTOOL, "check", "config", written / "prometheus.yml")
    said = checked(PROMTOOL, "check", "rules", written / "rules.yml")
    assert "SUCCESS" in said
    assert "duplicate" not in said
    assert "2 receivers" in checked(AMTOOL, "check-config", written / "alertmanager.yml")


@needs_prometheus
def test_the_alert_that_always_fires_goes_to_who_expects_it_alone(written: Path) -> None:
    for alert, receiver in (("SlipwayWatchdog", "watchdog"), ("SlipwayDrift", "slipway")):
        routes = ("--config.file", written / "alertmanager.yml", f"--verify.receivers={receiver}")
        checked(AMTOOL, "config", "routes", "test", *routes, f"alertname={alert}")
    text = (written / "alertmanager.yml").read_text()
    posts = re.findall(r"- name: (\w+)\n.*\n +- url: (.*)\n +send_resolved: (\w+)", text)
    assert posts == [
        ("slipway", '"http://127.0.0.1:9000/a?b=c"', "true"),
        ("watchdog", '"http://127.0.0.1:9000/alive"', "false"),
    ]


def test_every_alert_has_a_test_that_it_fires_and_one_that_it_is_silent() -> None:
    for alert in all_alerts():
        cases = alert.tests or tuple(case for budget in budgets({}) for case in budget.cases())
        always = alert.expr == "vector(1)"
        assert {bool(case.fires) for case in cases} == ({True} if always else {True, False}), alert.alert


def test_every_alert_has_its_section_of_the_runbook_and_every_section_its_alert() -> None:
    text = (ROOT / "docs/runbook.md").read_text()
    sections = re.findall(r"^## (\w+)$", text, flags=re.MULTILINE)
    assert sections == [alert.alert for alert in all_alerts()]
    assert [alert.anchor for alert in all_alerts()] == [f"docs/runbook.md#{name.lower()}" for name in sections]


def test_what_the_settings_do_not_have_is_left_out_and_said(tmp_path: Path) -> None:
    whole, bare = rendered(tmp_path / "a", **WHOLE), rendered(tmp_path / "b")
    assert whole.left_out == ()
    assert [sentence.partition(":")[0] for sentence in bare.left_out] == ["observe", "watch", "candidate"]
    assert whole.alerts == [alert.alert for alert in all_alerts()]
    assert "SlipwayDrift" not in bare.alerts
    assert {"SlipwayOverBudget", "SlipwayWatchdog"} <= set(bare.alerts)
    for text in bare.files.values():
        assert "slipway_watch" not in text
        assert "slipway_journal" not in text
        assert "candidate_(grpc" not in text or text is bare.files["prometheus.yml"]
    nowhere = render(settings(tmp_path / "c"), alertmanager=ALERTMANAGER).left_out[-2:]
    assert [sentence.partition(",")[0] for sentence in nowhere] == ["no --webhook", "no --watchdog"]


def test_every_process_of_the_settings_is_a_target(tmp_path: Path) -> None:
    found = {(one.job, one.arm): one.port for one in targets(settings(tmp_path, metrics_port=9004, **WHOLE))}
    assert found == {
        ("slipway-gateway", None): 9004,
        ("slipway-journal", None): 8005,
        ("slipway-watch", None): 8006,
        ("slipway-server", "stable"): 8003,
        ("slipway-triton", "stable"): 8002,
        ("slipway-server", "candidate"): 8103,
        ("slipway-triton", "candidate"): 8102,
    }
    given = targets(settings(tmp_path, stable={"grpc": 1, "http": 2, "status": 3, "metrics": 99}))
    assert next(one.port for one in given if one.job == "slipway-triton") == 99


def test_the_same_settings_give_the_same_bytes_and_replace_what_was_written(written: Path, tmp_path: Path) -> None:
    before = {name: (written / name).read_bytes() for name in FILES}
    write(rendered(tmp_path, **WHOLE, listen="127.0.0.1:8443", metrics_port=8004), written)
    assert (written / "prometheus.yml").read_bytes() != before["prometheus.yml"]
    again = rendered(tmp_path, **WHOLE, listen="127.0.0.1:8443", metrics_port=8004)
    assert {name: text.encode() for name, text in again.files.items()} == {
        name: (written / name).read_bytes() for name in FILES
    }
    assert sorted(path.name for path in written.iterdir()) == sorted([*FILES, MARKER])
    assert (written / "alertmanager.yml").stat().st_mode & 0o777 == 0o600


def test_a_folder_with_other_content_is_never_replaced(written: Path, tmp_path: Path) -> None:
    one = rendered(tmp_path, **WHOLE)
    (written / "data").mkdir()
    with pytest.raises(SpecError, match=r"holds data too, which would be removed.*--storage\.tsdb\.path"):
        write(one, written)
    other = tmp_path / "other"
    other.mkdir()
    (other / "rules.yml").write_text("mine")
    with pytest.raises(SpecError, match="not empty, and not written by this stage"):
        write(one, other)
    with pytest.raises(SpecError, match="a file or link"):
        write(one, tmp_path / "gateway.yaml")
    assert (other / "rules.yml").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"give a path on a disk that can be written|change its permissions"):
        write(rendered(tmp_path), Path("/proc/monitoring"))
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(StorageError):
            write(rendered(tmp_path), tmp_path / "out")


@pytest.mark.parametrize("url", ["", "9000", "ftp://a/b", "http://", "http://a b/", "http://a:99999/", "http://a/\nx"])
def test_what_is_not_a_webhook_is_refused(url: str) -> None:
    with pytest.raises(SpecError, match="invalid webhook"):
        checked_webhook(url)


def test_a_webhook_with_a_password_is_refused_without_saying_it(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="http_config") as refused:
        checked_webhook("https://user:hunter2@example.org/hook")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(SpecError, match="invalid address 'x' of Alertmanager"):
        render(settings(tmp_path), alertmanager="x")


def test_the_verb_writes_the_folder_and_says_what_is_left_out(tmp_path: Path) -> None:
    path = write_gateway(tmp_path, tls=False, observe={})
    done = json.loads(run_here("render", "monitoring", path, "out", "--json", cwd=tmp_path).stdout.splitlines()[-1])
    assert done["alerts"][0] == "SlipwayParityDiffers"
    assert [sentence.partition(":")[0] for sentence in done["left_out"][:2]] == ["watch", "candidate"]
    assert [Path(name).name for name in done["files"]] == list(FILES)


def test_the_dashboard_has_whole_panels(tmp_path: Path) -> None:
    board = json.loads(rendered(tmp_path, **WHOLE).files["grafana.json"])
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    for panel in panels:
        assert panel["targets"], panel["title"]
        assert {"x", "y", "w", "h"} == panel["gridPos"].keys()


def test_the_dashboard_is_one_by_grafanas_own_types(tmp_path: Path) -> None:
    board = rendered(tmp_path, **WHOLE).files["grafana.json"]
    assert grafana_faults(board) == []
    changed = board.replace('"unit": "short"', '"unti": "short"', 1).replace(
        '"schemaVersion": 38', '"schemaVersion": "x"'
    )
    assert [fault.partition(":")[0].rpartition(".")[2] for fault in grafana_faults(changed)] == [
        "unti",
        "schema_version",
    ]


def test_nothing_asks_prometheus_or_alertmanager() -> None:
    """They read what we export: dead or of another version, they stop nothing."""
    asks = re.compile(r"/api/v[12]\b|prometheus_api")
    found = [str(path) for path in (ROOT / "src").rglob("*.py") if asks.search(path.read_text(encoding="utf-8"))]
    assert found == []
    names = {name for part in (GatewaySettings, WatchSettings) for name in part.model_fields}
    assert not {name for name in names if "prometheus" in name or "alertmanager" in name}
