"""Pods of Kubernetes: the containers of servers and gateway, and what guards them."""

from collections.abc import Mapping

from slipway.oci.layers import FOLDER
from slipway.operations.gateway.routes import Node
from slipway.operations.rendering.envoy import BOOTSTRAP, CONFIGURATION, KEY_FOLDER, ROUTE_FOLDER, TLS, ready_path
from slipway.operations.rendering.plan import MIB, ClusterPlan, ServerNeeds
from slipway.serving.container import INNER_PORTS, MODELS, TRITON_USER

SERVER, GATEWAY = "server", "gateway"
"""The components of a deployment."""
STABLE, CANDIDATE = "stable", "candidate"
NAME, COMPONENT, INSTANCE = (f"app.kubernetes.io/{name}" for name in ("name", "component", "instance"))
REPOSITORY = f"{MODELS}/repository"
GATEWAY_PODS = "slipway/gateway-pods-namespace"
"""Annotation of an HTTPRoute: where the pods of its Gateway run, if not in the Gateway's own namespace."""
KEYS_SECRET, TLS_SECRET = "gateway-keys", "gateway-tls"
CONFIG, ROUTES_CONFIG = "gateway", "gateway-routes"
GPU_TOLERATION: Node = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
"""Machines with GPUs are often kept for pods that use one."""
ENVOY_USER = 101
"""The user of Envoy's own image."""
EXIT_S, DRAIN_S = 60, 5
"""Seconds to answer what is under way, and to wait before: until then, clients learn that the pod goes."""


def labels(component: str, instance: str) -> dict[str, Node]:
    return {NAME: "slipway", COMPONENT: component, INSTANCE: instance}


def container_rights() -> Node:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def pod_rights(user: int, group: int) -> Node:
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": group,
        "fsGroup": group,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def quantity(number: int) -> str:
    return f"{number // MIB}Mi"


def server_of(plan: ClusterPlan, instance: str) -> ServerNeeds:
    """Return the resources that a server of one arm needs."""
    return plan.candidate_server or plan.server if instance == CANDIDATE else plan.server


def server_pod(plan: ClusterPlan, image: str, instance: str) -> Mapping[str, Node]:
    """The PodSpec of a server of one arm."""
    user, _, group = TRITON_USER.partition(":")
    server = server_of(plan, instance)
    return {
        **_pod(instance, EXIT_S + DRAIN_S),
        "securityContext": pod_rights(int(user), int(group)),
        "containers": [server_container(server, plan.images.server, ready=ready_probe(plan.vital))],
        "volumes": [
            {"name": "repository", "image": {"reference": image, "pullPolicy": "IfNotPresent"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": quantity(server.tmp_bytes)}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": quantity(server.shm_bytes)}},
        ],
    }


def server_container(server: ServerNeeds, image: str, *, ready: Node, repository: str = REPOSITORY) -> dict[str, Node]:
    """The container of a server, for the repository at this path."""
    arguments = ["serve", repository, "--host", "0.0.0.0", "--timeout-s", str(server.start_s)]
    live: Node = {"path": "/live", "port": "status"}
    everything: Node = {"path": "/ready", "port": "status"}
    return {
        "name": SERVER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        "ports": [{"name": name, "containerPort": port} for name, port in INNER_PORTS.items()],
        "startupProbe": {
            "httpGet": everything,
            "periodSeconds": 2,
            "timeoutSeconds": 2,
            "failureThreshold": (server.start_s + 30) // 2,
        },
        "readinessProbe": {**_mapping(ready), "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {"httpGet": live, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_S}}},
        "resources": {
            "requests": {"cpu": str(server.cores), "memory": quantity(server.memory_bytes)},
            "limits": {"memory": quantity(server.memory_bytes)},
        },
        "securityContext": container_rights(),
        "volumeMounts": [
            {
                "name": "repository",
                "mountPath": repository,
                "readOnly": True,
                "subPath": FOLDER,
            },
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }


def ready_probe(vital: tuple[str, ...]) -> Node:
    """Return the probe that decides whether a pod gets requests: the supervisor asks each classifier for answers, again
    and again."""
    return {"httpGet": {"path": ready_path(vital), "port": "status"}}


def gateway_pod(plan: ClusterPlan) -> Mapping[str, Node]:
    """The PodSpec of the gateway."""
    assert plan.images.gateway is not None
    mounts = {CONFIG: CONFIGURATION, ROUTES_CONFIG: ROUTE_FOLDER, KEYS_SECRET: KEY_FOLDER, TLS_SECRET: TLS}
    port = plan.settings.host_port[1]
    ready: Node = {"path": "/ready", "port": "metrics"}
    container: Node = {
        "name": GATEWAY,
        "image": plan.images.gateway,
        "imagePullPolicy": "IfNotPresent",
        "command": ["envoy"],
        "args": [
            *("--config-path", str(CONFIGURATION / BOOTSTRAP)),
            *("--concurrency", str(plan.settings.workers)),
            *("--log-level", "warning", "--disable-hot-restart"),
        ],
        "ports": [
            {"name": "https", "containerPort": port},
            {"name": "metrics", "containerPort": plan.settings.metrics_port},
        ],
        "startupProbe": {"httpGet": ready, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 60},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {
            "tcpSocket": {"port": "https"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_S}}},
        "resources": {
            "requests": {"cpu": str(plan.settings.workers), "memory": "128Mi"},
            "limits": {"memory": "1024Mi"},
        },
        "securityContext": container_rights(),
        "volumeMounts": [{"name": name, "mountPath": str(path), "readOnly": True} for name, path in mounts.items()],
    }
    return {
        **_pod(GATEWAY, int(plan.settings.timeout_s) + DRAIN_S + 5),
        "securityContext": pod_rights(ENVOY_USER, ENVOY_USER),
        "containers": [container],
        "volumes": [
            {"name": CONFIG, "configMap": {"name": CONFIG}},
            {"name": ROUTES_CONFIG, "configMap": {"name": ROUTES_CONFIG}},
            {"name": KEYS_SECRET, "secret": {"secretName": KEYS_SECRET, "defaultMode": 0o440}},
            {"name": TLS_SECRET, "secret": {"secretName": TLS_SECRET, "defaultMode": 0o440}},
        ],
    }


def _pod(instance: str, seconds: int) -> Mapping[str, Node]:
    spread: Node = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {NAME: "slipway", INSTANCE: instance}},
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": seconds,
        "topologySpreadConstraints": [spread],
    }


def _mapping(node: Node) -> Mapping[str, Node]:
    assert isinstance(node, Mapping)
    return node
