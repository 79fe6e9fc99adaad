"""The alerts and their tests: `alerts.yaml`, read into types, and written as Prometheus and promtool read them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Literal, TypeAlias

import yaml

from slipway.contract.typed_file import Contract
from slipway.operations.gateway.routes import Node

MonitoredPart: TypeAlias = Literal["server", "gateway", "candidate", "journal", "watch", "alertmanager"]
Severity: TypeAlias = Literal["page", "ticket", "none"]
RUNBOOK = "docs/runbook.md"
ALERTS = "alerts.yaml"
EVALUATION = "2s"
"""Time between two evaluations of the rules, and as a rule between two samples of a series in their tests."""


class Case(Contract):
    """A test of an alert."""

    series: dict[str, str]
    """Samples of each series, `interval` apart, as promtool writes them."""
    interval: str = EVALUATION
    at: str
    """Time at which the alert is asked."""
    fires: tuple[dict[str, str], ...] = ()
    """Labels of each alert that fires then, without its name and severity."""


class Alert(Contract):
    """An alert with its tests."""

    alert: str
    part: MonitoredPart
    """The part of the settings without which the alert is not written; `alertmanager` is always there."""
    severity: Severity
    """Severity: `page` wakes a person; a `ticket` can wait for the morning; `none` asks nothing of anybody."""
    expr: str
    for_: str | None = None
    """Time for which the expression must hold before the alert fires."""
    summary: str
    tests: tuple[Case, ...]

    @property
    def anchor(self) -> str:
        """The alert's section of the runbook."""
        return f"{RUNBOOK}#{self.alert.lower()}"

    def rule(self) -> Node:
        held: dict[str, Node] = {"for": self.for_} if self.for_ else {}
        return {
            "alert": self.alert,
            "expr": self.expr,
            **held,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "runbook": self.anchor},
        }

    def test(self, case: Case) -> Node:
        fired: Node = [self._fired(labels) for labels in case.fires]
        asked: Node = {"eval_time": case.at, "alertname": self.alert, "exp_alerts": fired}
        series: Node = [{"series": name, "values": values} for name, values in case.series.items()]
        said = "fires" if case.fires else "is silent"
        name = f"{self.alert} {said}"
        return {"interval": case.interval, "name": name, "input_series": series, "alert_rule_test": [asked]}

    def _fired(self, labels: Mapping[str, str]) -> Node:
        summary = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels.get(found[1], ""), self.summary)
        annotations: Node = {"summary": summary, "runbook": self.anchor}
        return {"exp_labels": {"severity": self.severity, **labels}, "exp_annotations": annotations}


class Alerts(Contract):
    """`alerts.yaml`."""

    alerts: tuple[Alert, ...]


def all_alerts() -> Sequence[Alert]:
    text = resources.files(__package__).joinpath(ALERTS).read_text(encoding="utf-8")
    read = yaml.safe_load(text)
    for alert in read["alerts"]:  # `for` is a word of Python
        alert["for_"] = alert.pop("for", None)
    return Alerts.parse(read, source=ALERTS).alerts


def of_parts(parts: Iterable[MonitoredPart]) -> Sequence[Alert]:
    wanted = set(parts)
    return [alert for alert in all_alerts() if alert.part in wanted]
