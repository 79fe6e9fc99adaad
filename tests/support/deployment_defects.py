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
    target[key] = value


DEFECTS: dict[str, tuple[str, Change]] = {
    # By Kubernetes' strict schemas.
    "a typo in a field": ("schema", lambda o: put(container(o), "readinesProbe", container(o).pop("readinessProbe"))),
    "a typo deep in a pod": ("schema", lambda o: put(pod(o)["securityContext"], "runAsNonroot", True)),
    "a number as text": ("schema", lambda o: put(one(o, "Deployment", "gateway")["spec"], "replicas", "2")),
    "a field of the wrong object": ("schema", lambda o: put(one(o, "Service", "stable")["spec"], "replicas", 2)),
    "an old form of a metric": (
        "schema",
        lambda o: put(one(o, "HorizontalPodAutoscaler", "stable")["spec"], "targetCPUUtilizationPercentage", 50),
    ),
    # By our own rules, and by the schemas, of which there is none for these.
    "an apiVersion that is gone": (
        "kind",
        lambda o: put(one(o, "PodDisruptionBudget", "stable"), "apiVersion", "policy/v1beta1"),
    ),
    "a typo in an apiVersion": (
        "kind",
        lambda o: put(one(o, "NetworkPolicy", "gateway"), "apiVersion", "networking.k8s.oi/v1"),
    ),
    "a group without its version": (
        "kind",
        lambda o: put(one(o, "ServiceMonitor", "server"), "apiVersion", "monitoring.coreos.com"),
    ),
    "an unknown kind": ("kind", lambda o: put(one(o, "PodDisruptionBudget", "gateway"), "kind", "PodDisruptionBudgte")),
    # By our own rules.
    "scaling of another apiVersion": (
        "selector",
        lambda o: put(
            one(o, "HorizontalPodAutoscaler", "stable")["spec"]["scaleTargetRef"], "apiVersion", "extensions/v1beta1"
        ),
    ),
    "a missing probe": ("probe-missing", lambda o: container(o).pop("readinessProbe")),
    "a probe of tritonserver": (
        "probe-answers",
        lambda o: put(container(o)["readinessProbe"], "httpGet", {"path": "/v2/health/ready", "port": "http"}),
    ),
    "a probe's wrong port": ("probe-port", lambda o: put(container(o)["startupProbe"]["httpGet"], "port", 8080)),
    "a pod that one classifier ends": (
        "probe-answers",
        lambda o: put(container(o)["livenessProbe"]["httpGet"], "path", "/ready"),
    ),
    "a tag in place of a digest": ("image-digest", lambda o: put(container(o), "image", "slipway-cpu:26.10")),
    "a repository by tag": (
        "image-digest",
        lambda o: put(pod(o, "candidate")["volumes"][0]["image"], "reference", "registry.example/team/colours:new"),
    ),
    "a missing limit": ("resources", lambda o: container(o)["resources"].pop("limits")),
    "two GPUs for a pod": ("one-gpu", lambda o: put(container(o)["resources"]["limits"], "nvidia.com/gpu", 2)),
    "no securityContext": ("rights", lambda o: container(o).pop("securityContext")),
    "root": ("rights", lambda o: put(pod(o)["securityContext"], "runAsUser", 0)),
    "a folder of the machine": (
        "host",
        lambda o: put(pod(o)["volumes"], 0, {"name": "repository", "hostPath": {"path": "/models"}}),
    ),
    "a token of the cluster": ("token", lambda o: pod(o).pop("automountServiceAccountToken")),
    "little shared memory": ("shm", lambda o: put(pod(o)["volumes"], 2, {"name": "shm", "emptyDir": {}})),
    "a mount of nothing": ("volume", lambda o: pod(o)["volumes"].pop(0)),
    "a selector of others": (
        "selector",
        lambda o: put(one(o, "Deployment", "stable")["spec"]["selector"], "matchLabels", {"app": "slipway"}),
    ),
    "a Service of nobody": (
        "selector",
        lambda o: put(one(o, "Service", "candidate")["spec"]["selector"], "app.kubernetes.io/instance", "canary"),
    ),
    "a Service to a port that nothing listens on": (
        "service-port",
        lambda o: put(one(o, "Service", "gateway")["spec"]["ports"][0], "targetPort", 443),
    ),
    "a budget of nobody": (
        "selector",
        lambda o: put(one(o, "PodDisruptionBudget", "stable")["spec"]["selector"], "matchLabels", {"app": "triton"}),
    ),
    "scaling of another": (
        "selector",
        lambda o: put(one(o, "HorizontalPodAutoscaler", "stable")["spec"]["scaleTargetRef"], "name", "server"),
    ),
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
        lambda o: put(container(o), "env", [{"name": "SLIPWAY_ADMIN_KEY", "value": "0123456789abcdef"}]),
    ),
    "everybody reaches tritonserver": (
        "network",
        lambda o: put(one(o, "NetworkPolicy", "servers")["spec"]["ingress"][0], "from", [{"podSelector": {}}]),
    ),
    "a range of ports that has tritonserver's": (
        "network",
        lambda o: put(
            one(o, "NetworkPolicy", "servers")["spec"]["ingress"][1]["ports"],
            0,
            {"protocol": "TCP", "port": 7000, "endPort": 9000},
        ),
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
        lambda o: put(
            one(o, "HorizontalPodAutoscaler", "stable")["spec"]["metrics"][0]["pods"]["metric"], "name", "queue_ms"
        ),
    ),
    "shared memory as a number, above the limit": (
        "shm",
        lambda o: put(pod(o)["volumes"][2]["emptyDir"], "sizeLimit", 1 << 40),
    ),
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
        lambda o: put(one(o, "ServiceMonitor", "server")["spec"]["endpoints"][0], "port", "supervisor"),
    ),
    "a typo in a monitor": (
        "unknown-field",
        lambda o: put(one(o, "ServiceMonitor", "gateway")["spec"]["endpoints"][0], "intervall", "5s"),
    ),
    "a typo in an alert": (
        "unknown-field",
        lambda o: put(one(o, "PrometheusRule", "slipway")["spec"]["groups"][0]["rules"][0], "forr", "5m"),
    ),
    "two namespaces": ("namespace", lambda o: put(one(o, "Service", "stable")["metadata"], "namespace", "default")),
}
"""The name of a mistake to the rule that finds it, or `schema`, and its change; schemas find `kind` too."""
