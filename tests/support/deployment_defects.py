"""Mistakes in the objects of a deployment, each made by hand as a person would make it."""

from collections.abc import Callable, Sequence
from typing import Any

Objects = list[Any]
Change = Callable[[Objects], None]


def one(objects: Sequence[Any], kind: str, name: str) -> Any:
    (found,) = (each for each in objects if (each["kind"], each["metadata"]["name"].partition("-")[0]) == (kind, name))
    return found


def pod(objects: Sequence[Any], name: str = "stable") -> Any:
    return one(objects, "Deployment", name)["spec"]["template"]["spec"]


def container(objects: Sequence[Any], name: str = "stable") -> Any:
    return pod(objects, name)["containers"][0]


def replace_in_bootstrap(objects: Sequence[Any], old: str, new: str) -> None:
    data = next(each for each in objects if each["kind"] == "ConfigMap" and "bootstrap.yaml" in each["data"])["data"]
    assert old in data["bootstrap.yaml"]
    data["bootstrap.yaml"] = data["bootstrap.yaml"].replace(old, new)


def put(target: Any, key: Any, value: Any) -> None:
    target[int(key) if isinstance(target, list) else key] = value


def inside(node: Any, keys: Sequence[str]) -> Any:
    """The part of a document at these keys; a number is a place in a list."""
    for key in keys:
        node = node[int(key) if isinstance(node, list) else key]
    return node


def at(kind: str, name: str, path: str, value: Any) -> Change:
    """The mistake of another value at a path of an object: its keys, with spaces between them."""
    *keys, last = path.split()
    return lambda objects: put(inside(one(objects, kind, name), keys), last, value)


def in_pod(path: str, value: Any, *, name: str = "stable") -> Change:
    return at("Deployment", name, f"spec template spec {path}", value)


DEFECTS: dict[str, tuple[str, Change]] = {
    # By Kubernetes' strict schemas.
    "a typo in a field": ("schema", lambda o: put(container(o), "readinesProbe", container(o).pop("readinessProbe"))),
    "a typo deep in a pod": ("schema", in_pod("securityContext runAsNonroot", True)),
    "a number as text": ("schema", at("Deployment", "gateway", "spec replicas", "2")),
    "a field of the wrong object": ("schema", at("Service", "stable", "spec replicas", 2)),
    "an old form of a metric": (
        "schema",
        at("HorizontalPodAutoscaler", "stable", "spec targetCPUUtilizationPercentage", 50),
    ),
    # By our own rules, and by the schemas, of which there is none for these.
    "an apiVersion that is gone": ("kind", at("PodDisruptionBudget", "stable", "apiVersion", "policy/v1beta1")),
    "a typo in an apiVersion": ("kind", at("NetworkPolicy", "gateway", "apiVersion", "networking.k8s.oi/v1")),
    "a group without its version": ("kind", at("ServiceMonitor", "server", "apiVersion", "monitoring.coreos.com")),
    "an unknown kind": ("kind", at("PodDisruptionBudget", "gateway", "kind", "PodDisruptionBudgte")),
    # By our own rules.
    "scaling of another apiVersion": (
        "selector",
        at("HorizontalPodAutoscaler", "stable", "spec scaleTargetRef apiVersion", "extensions/v1beta1"),
    ),
    "a missing probe": ("probe-missing", lambda o: container(o).pop("readinessProbe")),
    "a probe of tritonserver": (
        "probe-answers",
        in_pod("containers 0 readinessProbe httpGet", {"path": "/v2/health/ready", "port": "http"}),
    ),
    "a probe's wrong port": ("probe-port", in_pod("containers 0 startupProbe httpGet port", 8080)),
    "a pod that one classifier ends": ("probe-answers", in_pod("containers 0 livenessProbe httpGet path", "/ready")),
    "a tag in place of a digest": ("image-digest", in_pod("containers 0 image", "slipway-cpu:26.10")),
    "a repository by tag": (
        "image-digest",
        in_pod("volumes 0 image reference", "registry.example/team/colours:new", name="candidate"),
    ),
    "a missing limit": ("resources", lambda o: container(o)["resources"].pop("limits")),
    "two GPUs for a pod": ("one-gpu", in_pod("containers 0 resources limits nvidia.com/gpu", 2)),
    "no securityContext": ("rights", lambda o: container(o).pop("securityContext")),
    "root": ("rights", in_pod("securityContext runAsUser", 0)),
    "a folder of the machine": ("host", in_pod("volumes 0", {"name": "repository", "hostPath": {"path": "/models"}})),
    "a token of the cluster": ("token", lambda o: pod(o).pop("automountServiceAccountToken")),
    "little shared memory": ("shm", in_pod("volumes 2", {"name": "shm", "emptyDir": {}})),
    "a mount of nothing": ("volume", lambda o: pod(o)["volumes"].pop(0)),
    "a selector of others": ("selector", at("Deployment", "stable", "spec selector matchLabels", {"app": "slipway"})),
    "a Service of nobody": (
        "selector",
        at("Service", "candidate", "spec selector app.kubernetes.io/instance", "canary"),
    ),
    "a Service to a port that nothing listens on": (
        "service-port",
        at("Service", "gateway", "spec ports 0 targetPort", 443),
    ),
    "a budget of nobody": (
        "selector",
        at("PodDisruptionBudget", "stable", "spec selector matchLabels", {"app": "triton"}),
    ),
    "scaling of another": ("selector", at("HorizontalPodAutoscaler", "stable", "spec scaleTargetRef name", "server")),
    "a secret in plain text": (
        "secret-text",
        lambda o: o.append(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "gateway-keys", "namespace": "slipway"},
                "stringData": {"keys.yaml": "a-key-of-the-team-pets"},
            }
        ),
    ),
    "a private key in the configuration": (
        "secret-text",
        lambda o: replace_in_bootstrap(o, "static_resources:", "# -----BEGIN PRIVATE KEY-----\nstatic_resources:"),
    ),
    "a key in a variable": (
        "secret-text",
        in_pod("containers 0 env", [{"name": "SLIPWAY_ADMIN_KEY", "value": "0123456789abcdef"}]),
    ),
    "everybody reaches tritonserver": (
        "network",
        at("NetworkPolicy", "servers", "spec ingress 0 from", [{"podSelector": {}}]),
    ),
    "a range of ports that has tritonserver's": (
        "network",
        at("NetworkPolicy", "servers", "spec ingress 1 ports 0", {"protocol": "TCP", "port": 7000, "endPort": 9000}),
    ),
    "a port that the gateway asks and may not reach": (
        "network",
        lambda o: one(o, "NetworkPolicy", "servers")["spec"]["ingress"][0]["ports"].pop(0),
    ),
    "a health check that the gateway may not reach": (
        "network",
        lambda o: one(o, "NetworkPolicy", "servers")["spec"]["ingress"][0]["ports"].pop(2),
    ),
    "a metric that nobody records": (
        "metric",
        at("HorizontalPodAutoscaler", "stable", "spec metrics 0 pods metric name", "queue_ms"),
    ),
    "shared memory as a number, above the limit": ("shm", in_pod("volumes 2 emptyDir sizeLimit", 1 << 40)),
    "no policy": ("network", lambda o: o.remove(one(o, "NetworkPolicy", "servers"))),
    "a gateway that asks a wrong port": (
        "gateway-port",
        lambda o: replace_in_bootstrap(o, "port_value: 8001", "port_value: 8011"),
    ),
    "a gateway that listens elsewhere": (
        "gateway-port",
        lambda o: replace_in_bootstrap(o, "port_value: 8443", "port_value: 443"),
    ),
    "metrics that nobody serves": (
        "monitor-port",
        at("ServiceMonitor", "server", "spec endpoints 0 port", "supervisor"),
    ),
    "a typo in a monitor": ("unknown-field", at("ServiceMonitor", "gateway", "spec endpoints 0 intervall", "5s")),
    "a typo in an alert": ("unknown-field", at("PrometheusRule", "slipway", "spec groups 0 rules 0 forr", "5m")),
    "two namespaces": ("namespace", at("Service", "stable", "metadata namespace", "default")),
}
"""The name of a mistake to the rule that finds it, or `schema`, and its change; schemas find `kind` too."""
