"""Makes the files of Prometheus, Alertmanager and Grafana from the settings of a gateway, and writes the folder."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from slipway.errors import SpecError
from slipway.operations.gateway.routes import Node
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.monitoring.alerts import EVALUATION, MonitoredPart, of_parts
from slipway.operations.monitoring.budgets import budgets, recording_rules
from slipway.operations.monitoring.scraped import SCRAPE, left_out, parts, scrape_configurations
from slipway.system.files import complete_folder
from slipway.system.targets import MARKERS
from slipway.system.yaml_json import dump_yaml

PROMETHEUS, RULES, RULES_TEST = "prometheus.yml", "rules.yml", "rules_test.yml"
ALERTMANAGER, GRAFANA = "alertmanager.yml", "grafana.json"
FILES = (PROMETHEUS, RULES, RULES_TEST, ALERTMANAGER, GRAFANA)
MARKER = MARKERS["monitoring"]
OVER_BUDGET = "SlipwayOverBudget"
_WRITTEN = "# Written by slipway render monitoring.\n"


@dataclass(frozen=True)
class Rendered:
    """Every file by its name, and the parts that are left out."""

    files: Mapping[str, str]
    left_out: tuple[str, ...]
    """Sentences."""

    @property
    def alerts(self) -> list[str]:
        return re.findall(r"^  - alert: (\w+)$", self.files[RULES], flags=re.MULTILINE)


def render(
    settings: GatewaySettings, *, webhook: str | None = None, watchdog: str | None = None, alertmanager: str
) -> Rendered:
    """The files for these settings; equal settings give equal bytes.

    Args:
        webhook: the URL to which Alertmanager posts alerts; None for nowhere.
        watchdog: the URL to which it posts SlipwayWatchdog each minute; None for nowhere.
        alertmanager: host and port of Alertmanager.

    Raises:
        SpecError: the webhook or the address is invalid.
    """
    there: set[MonitoredPart] = {*parts(settings), "alertmanager"}
    said = left_out(settings)
    if webhook is None:
        said.append("no --webhook, so Alertmanager shows the alerts and posts them nowhere")
    if watchdog is None:
        said.append("no --watchdog, so nobody is told when Prometheus or Alertmanager is dead")
    files = {
        PROMETHEUS: _prometheus(settings, checked_address(alertmanager)),
        RULES: _rules(settings, there),
        RULES_TEST: _rules_test(settings, there),
        ALERTMANAGER: _alertmanager(webhook, watchdog),
        GRAFANA: dashboard(there),
    }
    return Rendered(files, tuple(said))


def write(rendered: Rendered, out: Path) -> None:
    """Write the files as the folder `out`, whole or not at all; only a folder with no other content is replaced.

    Raises:
        SpecError: something else stands there.
        StorageError: it cannot be written there.
    """
    if (out / MARKER).is_file():
        others = sorted(path.name for path in out.iterdir() if path.name not in {*FILES, MARKER})
        if others:
            raise SpecError(
                f"{out}: holds {', '.join(others[:5])} too, which would be removed; move that (the data of Prometheus "
                "belongs elsewhere: --storage.tsdb.path), or give another folder"
            )
    with complete_folder(out, kind="monitoring") as staging:
        for name, text in rendered.files.items():
            (staging / name).write_text(text, encoding="utf-8")
        (staging / ALERTMANAGER).chmod(0o600)  # the URL of a webhook is often a secret
        (staging / MARKER).touch()


def checked_webhook(url: str) -> str:
    """Raises SpecError unless `url` is one that Alertmanager can post to."""
    try:
        parsed = urlsplit(url)
        valid = parsed.scheme in ("http", "https") and parsed.hostname and parsed.port != 0
    except ValueError:
        valid = False
    if not valid or re.search(r"[\s\x00-\x1f\x7f{}]", url):
        raise SpecError(f"invalid webhook {url!r}; give a URL such as http://127.0.0.1:9000/alerts or https://…")
    if parsed.username is not None or parsed.password is not None:
        raise SpecError("the webhook has a user and a password; put them into http_config of alertmanager.yml instead")
    return url


def checked_address(text: str) -> str:
    """Raises SpecError unless `text` is a host and a port."""
    found = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9.-]*):(\d{1,5})", text)
    if found is None or not 1 <= int(found[2]) <= 65535:
        raise SpecError(f"invalid address {text!r} of Alertmanager; give host and port, such as 127.0.0.1:9093")
    return text


def _prometheus(settings: GatewaySettings, alertmanager: str) -> str:
    configuration: Node = {
        "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": EVALUATION},
        "rule_files": [RULES],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": scrape_configurations(settings),
    }
    return _WRITTEN + dump_yaml(configuration)


def _rules(settings: GatewaySettings, there: Iterable[MonitoredPart]) -> str:
    counted: Node = {"name": "slipway counts", "rules": recording_rules(settings.all_budgets_ms)}
    alerts: Node = {"name": "slipway alerts", "rules": [alert.rule() for alert in of_parts(there)]}
    return _WRITTEN + dump_yaml({"groups": [counted, alerts]})


def _rules_test(settings: GatewaySettings, there: Iterable[MonitoredPart]) -> str:
    tests: list[Node] = []
    for alert in of_parts(there):
        cases = alert.tests
        if alert.alert == OVER_BUDGET:
            cases = tuple(case for budget in budgets(settings.all_budgets_ms) for case in budget.cases())
        tests += [alert.test(case) for case in cases]
    return _WRITTEN + dump_yaml({"rule_files": [RULES], "evaluation_interval": EVALUATION, "tests": tests})


def _alertmanager(webhook: str | None, watchdog: str | None) -> str:
    # A last message, that SlipwayWatchdog has ended, would be one more sign of life.
    receivers = _receiver("slipway", webhook, send_resolved=True) + _receiver("watchdog", watchdog, send_resolved=False)
    return _template(ALERTMANAGER) + receivers


def _receiver(name: str, url: str | None, *, send_resolved: bool) -> str:
    if url is None:
        return f"  - name: {name}\n"
    posts = f"      - url: {json.dumps(checked_webhook(url))}\n        send_resolved: {json.dumps(send_resolved)}\n"
    return f"  - name: {name}\n    webhook_configs:\n{posts}"


def dashboard(there: Iterable[MonitoredPart]) -> str:
    """Grafana's dashboard with the panels of these parts."""
    wanted = set(there)
    read: dict[str, Any] = json.loads(_template(GRAFANA))
    panels = [panel for panel in read["panels"] if panel.pop("part") in wanted]
    for number, panel in enumerate(panels):
        panel["id"] = number + 1
        panel["gridPos"] = {"x": 8 * (number % 3), "y": 7 * (number // 3), "w": 8, "h": 7}
        panel["datasource"] = {"type": "prometheus", "uid": "${datasource}"}
        panel["type"] = "timeseries"
        least = {"min": panel.pop("min")} if "min" in panel else {}
        panel["fieldConfig"] = {"defaults": {"unit": panel.pop("unit", "short"), **least}}
        for letter, target in zip("ABCDEFGH", panel["targets"], strict=False):
            target |= {"refId": letter, "datasource": panel["datasource"]}
    return json.dumps({**read, "panels": panels}, indent=2, ensure_ascii=False) + "\n"


def _template(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
