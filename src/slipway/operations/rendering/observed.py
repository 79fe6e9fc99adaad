"""Monitoring in a cluster: the targets of the Prometheus operator, the alerts, and the metric for adding pods."""

from slipway.operations.gateway.routes import Node
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.monitoring.alerts import MonitoredPart, of_parts
from slipway.operations.monitoring.budgets import recording_rules
from slipway.operations.monitoring.scraped import ARM, SCRAPE, SCRAPE_TRITON, SHOWN
from slipway.operations.rendering.files import Document, yaml_file
from slipway.operations.rendering.objects import QUEUE_METRIC
from slipway.operations.rendering.plan import ClusterPlan
from slipway.operations.rendering.pods import COMPONENT, GATEWAY, NAME, SERVER

QUEUE_RULE = (
    "max by (namespace, pod) (rate(nv_inference_queue_duration_us[1m]) "
    "/ clamp_min(rate(nv_inference_request_success[1m]), 0.001)) / 1000"
)
"""Mean wait, in ms, in the busiest queue of each pod."""


_READY: list[Node] = [
    {"action": "drop", "regex": "false", "sourceLabels": [f"__meta_kubernetes_{label}"]}
    for label in ("endpoint_ready", "endpointslice_endpoint_conditions_ready")
]
"""A pod that starts or ends has no tritonserver to scrape, which must not raise an alarm; its supervisor answers."""


def monitor_documents() -> list[Document]:
    """ServiceMonitors of servers and gateway, with the names of the jobs that the alerts know."""
    arm: Node = {"sourceLabels": ["__meta_kubernetes_service_label_app_kubernetes_io_instance"], "targetLabel": ARM}
    server: Node = [
        {"port": "status", "interval": SCRAPE, "relabelings": [_job("slipway-server"), arm]},
        {"port": "metrics", "interval": SCRAPE_TRITON, "relabelings": [*_READY, _job("slipway-triton"), arm]},
    ]
    gateway: Node = [
        {
            "port": "metrics",
            "path": "/stats/prometheus",
            "params": {"filter": [SHOWN]},
            "interval": SCRAPE,
            "relabelings": [_job("slipway-gateway")],
        }
    ]
    about = "For the Prometheus operator; an installation may ask for a label of its own here."
    reasons = {SERVER: {"action: drop": "A pod that is not ready has no tritonserver yet: no alarm at each rollout."}}
    found = []
    for name, endpoints in {SERVER: server, GATEWAY: gateway}.items():
        node: Node = {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "ServiceMonitor",
            "metadata": {"name": name, "labels": {NAME: "slipway"}},
            "spec": {"selector": {"matchLabels": {NAME: "slipway", COMPONENT: name}}, "endpoints": endpoints},
        }
        found.append(Document(node, about=about, reasons=reasons.get(name, {})))
    return found


def rule_groups(settings: GatewaySettings, *, candidate: bool) -> list[Node]:
    """The rules of slipway render monitoring, and the wait in the queues."""
    parts: list[MonitoredPart] = ["server", "gateway", "candidate"] if candidate else ["server", "gateway"]
    alerts = [alert.rule() for alert in of_parts(parts)]
    return [
        {"name": "slipway counts", "rules": recording_rules(settings.all_budgets_ms)},
        {"name": "slipway queues", "rules": [{"record": QUEUE_METRIC, "expr": QUEUE_RULE}]},
        {"name": "slipway alerts", "rules": alerts},
    ]


def rule_documents(plan: ClusterPlan, *, candidate: bool) -> list[Document]:
    """The PrometheusRule of the operator."""
    node: Node = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "slipway", "labels": {NAME: "slipway"}},
        "spec": {"groups": rule_groups(plan.settings, candidate=candidate)},
    }
    return [Document(node, about="The rules of slipway render monitoring, which has their tests.")]


def adapter_values() -> str:
    """Values of prometheus-adapter's Helm chart."""
    rule: Node = {
        "seriesQuery": f'{QUEUE_METRIC}{{namespace!="",pod!=""}}',
        "resources": {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}},
        "name": {"matches": QUEUE_METRIC, "as": QUEUE_METRIC},
        "metricsQuery": "max by (<<.GroupBy>>) (<<.Series>>{<<.LabelMatchers>>})",
    }
    about = (
        "Values for prometheus-adapter's Helm chart: the metric of the HorizontalPodAutoscaler. Not an object of\n"
        "this deployment: kustomization.yaml does not name it."
    )
    return yaml_file(Document({"rules": {"custom": [rule]}}, about=about))


def _job(name: str) -> Node:
    return {"targetLabel": "job", "replacement": name}
