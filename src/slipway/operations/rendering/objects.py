"""The objects of Kubernetes around the pods: Deployments, Services, scaling, budgets of disruption, and the network."""

from collections.abc import Mapping

from slipway.operations.gateway.routes import Node
from slipway.operations.rendering.files import Document
from slipway.operations.rendering.plan import ClusterPlan
from slipway.operations.rendering.pods import (
    COMPONENT,
    GATEWAY,
    NAME,
    SERVER,
    STABLE,
    gateway_pod,
    labels,
    server_of,
    server_pod,
)
from slipway.serving.container import INNER_PORTS

QUEUE_METRIC = "slipway_queue_ms"
"""The metric that pods are added by; `monitoring/prometheus-adapter.yaml` says how Kubernetes learns of it."""
PROMETHEUS_PORTS = ("metrics", "status")
SERVER_REASONS = {
    "startupProbe:": "Ready means that every classifier has answered an image: the supervisor asks each of them.",
    "livenessProbe:": "Lives while the supervisor does: it repairs steps and restarts tritonserver by itself.",
    "lifecycle:": "Until the gateway knows that this pod goes, it still answers.",
    "limits:": "No limit of CPU: a throttled server misses its latency budget.",
    "medium: Memory": "Counts towards the memory limit above.",
    "readOnlyRootFilesystem:": "The launcher's copies and DALI's files go to /tmp.",
    "topologySpreadConstraints:": "One machine may fail.",
}
DNS_PORTS: list[Node] = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]


def metadata(name: str, component: str, instance: str, namespace: str | None = None) -> Node:
    placed: dict[str, Node] = {"namespace": namespace} if namespace else {}
    return {"name": name, **placed, "labels": labels(component, instance)}


def server_documents(plan: ClusterPlan, instance: str, image: str) -> list[Document]:
    """Deployment, Service, scaling and budget of one arm's servers."""
    return [
        deployment(
            instance,
            SERVER,
            server_pod(plan, image, instance),
            replicas=None if instance == STABLE else 1,
            start_s=server_of(plan, instance).start_s,
            about=_about_server(plan, instance),
            reasons=SERVER_REASONS,
        ),
        Document(
            _service(instance, SERVER, INNER_PORTS, headless=True),
            about="Without an address of its own: the gateway learns the address of each pod, and divides requests\n"
            "among them. Behind one address, a gRPC connection would stay with one pod.",
        ),
        *([_scaling(plan)] if instance == STABLE else []),
        _budget(instance, SERVER),
    ]


def gateway_documents(plan: ClusterPlan) -> list[Document]:
    made = deployment(
        GATEWAY,
        GATEWAY,
        gateway_pod(plan),
        replicas=2,
        start_s=0,
        about="Envoy, with the configuration of slipway gateway. Each pod counts a team's rate by itself.",
        reasons={
            "livenessProbe:": "Not /ready: a pod that drains is not ready, and lives.",
            "limits:": "A request is held whole until it is sent on.",
            "defaultMode:": "0440: Envoy's group may read it.",
            "topologySpreadConstraints:": "One machine may fail.",
        },
    )
    port = plan.settings.host_port[1]
    service = Document(
        _service(GATEWAY, GATEWAY, {"https": port, "metrics": plan.settings.metrics_port}, headless=False),
        about="For clients in the cluster. A patch of an overlay makes it a LoadBalancer for others.",
    )
    return [made, service, _budget(GATEWAY, GATEWAY)]


def _about_server(plan: ClusterPlan, instance: str) -> str:
    lines = [f"The {instance} release: the lane's image of Slipway, with the repository mounted by its digest."]
    if instance == STABLE:
        lines.append("replicas is left out on purpose: the HorizontalPodAutoscaler sets it.")
    if plan.gpu is not None:
        lines.append("The GPU of each pod comes from components/gpu; a rollout needs one that is free.")
    return "\n".join(lines)


def deployment(
    name: str,
    component: str,
    pod: Mapping[str, Node],
    *,
    replicas: int | None,
    start_s: int,
    about: str,
    reasons: Mapping[str, str],
) -> Document:
    spec: dict[str, Node] = {} if replicas is None else {"replicas": replicas}
    spec |= {
        "revisionHistoryLimit": 3,
        # A pod that may take start_s to be ready has not failed before, with time to be placed and to pull its images.
        "progressDeadlineSeconds": max(600, start_s + 120),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "selector": {"matchLabels": labels(component, name)},
        "template": {"metadata": {"labels": labels(component, name)}, "spec": pod},
    }
    strategy = "A pod goes when the new one is ready: a repository with a broken classifier replaces nothing."
    node: Node = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(name, component, name),
        "spec": spec,
    }
    return Document(node, about=about, reasons={**reasons, "strategy:": strategy})


def headless_service(name: str, namespace: str, *, about: str) -> Document:
    """A Service of the servers of an arm, in a namespace."""
    made = _service(name, SERVER, INNER_PORTS, headless=True, namespace=namespace)
    return Document(made, about=about)


def _service(
    name: str, component: str, ports: Mapping[str, int], *, headless: bool, namespace: str | None = None
) -> Node:
    listed: Node = [
        {
            "name": port,
            "port": number,
            "targetPort": port,
            **({"appProtocol": "kubernetes.io/h2c"} if port == "grpc" else {}),
        }
        for port, number in ports.items()
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, component, name, namespace),
        "spec": {
            **({"clusterIP": "None"} if headless else {"type": "ClusterIP"}),
            "selector": labels(component, name),
            "ports": listed,
        },
    }


def _scaling(plan: ClusterPlan) -> Document:
    metric: Node = {
        "type": "Pods",
        "pods": {
            "metric": {"name": QUEUE_METRIC},
            "target": {"type": "AverageValue", "averageValue": f"{round(1000 * plan.queue_ms)}m"},
        },
    }
    node: Node = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(STABLE, SERVER, STABLE),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": STABLE},
            "minReplicas": min(2, plan.most_pods),
            "maxReplicas": plan.most_pods,
            "metrics": [metric],
            "behavior": {
                "scaleUp": {"stabilizationWindowSeconds": 0},
                "scaleDown": {"stabilizationWindowSeconds": 600},
            },
        },
    }
    return Document(
        node,
        about="Adds pods when images wait. It needs prometheus-adapter with the rule of\n"
        "monitoring/prometheus-adapter.yaml; without it, minReplicas pods run and no more.",
        reasons={
            "averageValue:": "In ms: the wait in the busiest queue of a pod, averaged over the pods.",
            "maxReplicas:": "One GPU each." if plan.gpu else "plan-fleet says how many the rates need.",
        },
    )


def _budget(name: str, component: str) -> Document:
    node: Node = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(name, component, name),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels(component, name)}},
    }
    return Document(node)


def network_documents(plan: ClusterPlan) -> list[Document]:
    """Return the network policies: which pods may reach which."""
    servers: Node = {NAME: "slipway", COMPONENT: SERVER}
    gateways: Node = {NAME: "slipway", COMPONENT: GATEWAY}
    prometheus: Node = [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": plan.monitoring}}},
    ]
    asked = [INNER_PORTS[name] for name in ("grpc", "http", "status")]
    scraped = [INNER_PORTS[name] for name in PROMETHEUS_PORTS]
    to_servers: Node = {"to": [{"podSelector": {"matchLabels": servers}}], "ports": ports(*asked)}
    names: Node = {"ports": DNS_PORTS}  # to anywhere: clusters have it in namespaces of their own, or on the machine
    policies: dict[str, tuple[Node, list[Node], list[Node], str]] = {
        "servers": (
            servers,
            [
                {"from": [{"podSelector": {"matchLabels": gateways}}], "ports": ports(*asked)},
                {"from": prometheus, "ports": ports(*scraped)},
            ],
            [],
            "Only the gateway reaches tritonserver, and tritonserver reaches nothing.\n"
            "The kubelet, which probes and pulls images, is of no NetworkPolicy.",
        ),
        "gateway": (
            gateways,
            [
                {"ports": ports(plan.settings.host_port[1])},
                {"from": prometheus, "ports": ports(plan.settings.metrics_port)},
            ],
            [to_servers, names],
            "Clients reach the gateway's port from anywhere; the gateway reaches the servers and DNS.",
        ),
    }
    return [
        policy(name, selected, ingress=ingress, egress=egress, about=about)
        for name, (selected, ingress, egress, about) in policies.items()
    ]


def gateway_api_document(plan: ClusterPlan, namespace: str) -> Document:
    """Return a policy by which only the pods of that namespace, where the Gateway's proxies run, and Prometheus reach
    the servers."""

    def peers(name: str) -> Node:
        return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}]

    asked = [INNER_PORTS[name] for name in ("grpc", "http")]
    scraped = [INNER_PORTS[name] for name in PROMETHEUS_PORTS]
    return policy(
        "servers",
        {NAME: "slipway", COMPONENT: SERVER},
        ingress=[
            {"from": peers(namespace), "ports": ports(*asked)},
            {"from": peers(plan.monitoring), "ports": ports(*scraped)},
        ],
        egress=[],
        about="Only the Gateway reaches tritonserver, and tritonserver reaches nothing.",
        namespace=plan.namespace,
    )


def policy(
    name: str,
    selected: Node,
    *,
    egress: list[Node],
    about: str,
    ingress: list[Node] | None = None,
    namespace: str | None = None,
) -> Document:
    placed: dict[str, Node] = {"namespace": namespace} if namespace else {}
    spec: dict[str, Node] = {
        "podSelector": {"matchLabels": selected},
        "policyTypes": ["Egress"] if ingress is None else ["Ingress", "Egress"],
    }
    if ingress is not None:
        spec["ingress"] = ingress
    node: Node = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, **placed, "labels": {NAME: "slipway"}},
        "spec": {**spec, "egress": egress},
    }
    return Document(node, about=about)


def ports(*numbers: int) -> list[Node]:
    return [{"protocol": "TCP", "port": number} for number in numbers]
