"""The objects of a KServe cluster: runtime, InferenceService with a canary, and one route for both protocols."""

from collections.abc import Mapping
from dataclasses import replace

from slipway.contract import SpecError
from slipway.operations.gateway.routes import Node
from slipway.operations.rendering.files import Document, yaml_file
from slipway.operations.rendering.manifests import KSERVE_MOUNT
from slipway.operations.rendering.objects import gateway_api_document, headless_service
from slipway.operations.rendering.plan import IMAGE_VOLUMES, ClusterPlan, dns_label, host_name, image_volumes
from slipway.operations.rendering.pods import (
    CANDIDATE,
    DRAIN_S,
    EXIT_S,
    GATEWAY_PODS,
    GPU_TOLERATION,
    INSTANCE,
    NAME,
    SERVER,
    STABLE,
    labels,
    pod_rights,
    quantity,
    ready_probe,
    server_container,
)
from slipway.serving.container import INNER_PORTS, TRITON_USER

KIND = "kserve"
FORMAT = "slipway"
CONTAINER = "kserve-container"


def kserve_files(
    plan: ClusterPlan, *, name: str, host: str, gateway: str, gateway_pods: str | None = None
) -> dict[str, str]:
    """Every file by its path; equal plans give equal bytes.

    Args:
        name: of the InferenceService.
        host: name under which clients ask.
        gateway: the Gateway that the route belongs to, as `namespace/name`.
        gateway_pods: namespace in which the Gateway's proxies run; None if it is the Gateway's own.

    Raises:
        SpecError: a name is not one, or the cluster mounts no images.
    """
    if not image_volumes(plan.kubernetes):
        raise SpecError(
            f"--kubernetes {plan.kubernetes}: KServe mounts the repository as an image volume, which is on from "
            f"{IMAGE_VOLUMES}; give a later version, or use slipway render kubernetes, which can fetch it"
        )
    dns_label(name, what="--name")
    host_name(host, what="--host")
    namespace, slash, gateway_name = gateway.partition("/")
    if not (slash and namespace and gateway_name):
        raise SpecError(
            f"--gateway: {gateway!r}; give namespace and name of the Gateway, such as kserve/kserve-gateway"
        )
    # One runtime serves both arms.
    plan = replace(plan, server=plan.server.or_larger(plan.candidate_server))
    for part in (namespace, gateway_name):
        dns_label(part, what="--gateway")
    pods = dns_label(gateway_pods or namespace, what="--gateway-pods-namespace")
    arms = [STABLE, *([CANDIDATE] if plan.images.candidate else [])]
    services = [
        headless_service(arm, plan.namespace, about="Of our own, so that their names outlive a promotion.")
        for arm in arms
    ]
    return {
        "runtime.yaml": yaml_file(_runtime(plan)),
        "service.yaml": yaml_file(_inference_service(plan, name)),
        "route.yaml": yaml_file(*services, _route(plan, name, host, (namespace, gateway_name), pods)),
        "network.yaml": yaml_file(gateway_api_document(plan, pods)),
        "README.md": _readme(plan, name, pods),
    }


def _runtime(plan: ClusterPlan) -> Document:
    made = server_container(plan.server, plan.images.server, ready=ready_probe(plan.vital), repository=KSERVE_MOUNT)
    mounts = made["volumeMounts"]
    assert isinstance(mounts, list)
    container: Node = {
        **made,
        "name": CONTAINER,
        # KServe mounts the repository by itself.
        "volumeMounts": [mount for mount in mounts if mount["name"] != "repository"],
    }
    node: Node = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": _runtime_name(plan), "namespace": plan.namespace, "labels": {NAME: "slipway"}},
        "spec": {
            "supportedModelFormats": [{"name": FORMAT, "version": "1", "autoSelect": False}],
            "protocolVersions": ["v2", "grpc-v2"],
            "multiModel": False,
            "containers": [container],
            "volumes": [
                {"name": "tmp", "emptyDir": {"sizeLimit": quantity(plan.server.tmp_bytes)}},
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": quantity(plan.server.shm_bytes)}},
            ],
        },
    }
    return Document(
        node,
        about="How a repository is served: the lane's image with our launcher, as slipway render kubernetes has it.",
        reasons={"startupProbe:": "Ready means that every classifier has answered an image."},
    )


def _runtime_name(plan: ClusterPlan) -> str:
    return f"slipway-{plan.server.lane.lane}"


def _inference_service(plan: ClusterPlan, name: str) -> Document:
    canary: dict[str, Node] = {}
    if plan.images.candidate is not None:
        predictor = _predictor(plan, CANDIDATE, plan.images.candidate, replicas=1)
        canary = {"canary": [{"trafficPercent": plan.weight_percent, "predictor": predictor}]}
    node: Node = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "namespace": plan.namespace,
            "labels": {NAME: "slipway", "networking.kserve.io/visibility": "cluster-local"},
            "annotations": {
                "serving.kserve.io/deploymentMode": "Standard",
                "serving.kserve.io/autoscalerClass": "none",
            },
        },
        "spec": {"predictor": _predictor(plan, STABLE, plan.images.repository, replicas=plan.most_pods), **canary},
    }
    reasons = {
        "networking.kserve.io/visibility:": "The way in is our own route.",
        "serving.kserve.io/deploymentMode:": "spec.canary is for this mode alone, since KServe 0.20.",
        "storageUri:": f"The image as a volume, without a sidecar: its folder models at {KSERVE_MOUNT}.",
    }
    if canary:
        reasons["canary:"] = "Its predictor has a name of its own: KServe promotes by that name, without a restart."
    return Document(node, about="All classifiers of one repository.", reasons=reasons)


def _predictor(plan: ClusterPlan, arm: str, image: str, *, replicas: int) -> Mapping[str, Node]:
    user, _, group = TRITON_USER.partition(":")
    gpu: dict[str, Node] = {}
    tolerations: dict[str, Node] = {}
    if plan.gpu is not None:
        memory = quantity(plan.server.memory_bytes)
        gpu["resources"] = {
            "requests": {"cpu": str(plan.server.cores), "memory": memory},
            "limits": {"memory": memory, plan.gpu.resource: "1"},
        }
        tolerations["tolerations"] = [GPU_TOLERATION]
    return {
        "name": arm,
        "labels": labels(SERVER, arm),
        "minReplicas": replicas,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": EXIT_S + DRAIN_S,
        **tolerations,
        "securityContext": pod_rights(int(user), int(group)),
        "model": {
            "modelFormat": {"name": FORMAT, "version": "1"},
            "runtime": _runtime_name(plan),
            "protocolVersion": "v2",
            "storageUri": f"oci+native://{image}",
            **gpu,
        },
    }


def _route(plan: ClusterPlan, name: str, host: str, gateway: tuple[str, str], pods: str) -> Document:
    elsewhere: dict[str, Node] = {} if pods == gateway[0] else {"annotations": {GATEWAY_PODS: pods}}
    grpc: Node = {"type": "RegularExpression", "name": "content-type", "value": "application/grpc.*"}
    service: Node = {"type": "PathPrefix", "value": "/inference.GRPCInferenceService"}
    timeout: Node = {"request": duration(plan.settings.timeout_s)}
    node: Node = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": plan.namespace, "labels": {NAME: "slipway"}, **elsewhere},
        "spec": {
            "parentRefs": [{"name": gateway[1], "namespace": gateway[0]}],
            "hostnames": [host],
            "rules": [
                {
                    "matches": [{"path": service, "headers": [grpc]}],
                    "backendRefs": _backends(plan, INNER_PORTS["grpc"]),
                    "timeouts": timeout,
                },
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/v2/models"}}],
                    "backendRefs": _backends(plan, INNER_PORTS["http"]),
                    "timeouts": timeout,
                },
            ],
        },
    }
    about = (
        "One route with two rules: a GRPCRoute and an HTTPRoute of one host do not work together.\n"
        "Keys, rates and the guard of slipway gateway are not here: the Gateway must know its clients."
    )
    return Document(node, about=about)


def duration(seconds: float) -> str:
    """A Duration of the Gateway API, which has no fractions: 2.5 is `2s500ms`. Source: GEP-2257."""
    whole, thousandths = divmod(max(1, round(1000 * seconds)), 1000)
    return (f"{whole}s" if whole else "") + (f"{thousandths}ms" if thousandths else "")


def _backends(plan: ClusterPlan, port: int) -> list[Node]:
    shares = {STABLE: 100 - plan.weight_percent}
    if plan.images.candidate is not None:
        shares[CANDIDATE] = plan.weight_percent
    return [{"name": arm, "port": port, "weight": share} for arm, share in shares.items()]


def _readme(plan: ClusterPlan, name: str, pods: str) -> str:
    lines = [
        "# A Slipway repository in KServe",
        "",
        "Written by `slipway render kserve`; write it again instead of editing it. In this folder:",
        "",
        "```bash",
        f"kubectl create namespace {plan.namespace}",
        "kubectl apply --filename runtime.yaml --filename service.yaml --filename route.yaml --filename network.yaml",
        f"kubectl --namespace {plan.namespace} wait --for=condition=Ready inferenceservice/{name}",
        "```",
        "",
        "| needed in the cluster | for |",
        "| --- | --- |",
        "| KServe 0.20 or later, mode Standard | `spec.canary`; before it, canaries are ignored in silence |",
        "| `enableOciModelSupport` in KServe's ConfigMap, Kubernetes 1.35 or later | `oci+native://` |",
        "| a Gateway that knows its clients | nothing here asks for a key |",
        f"| the Gateway's proxies in namespace `{pods}` (`--gateway-pods-namespace`) | no others reach the servers |",
    ]
    if plan.images.candidate is not None:
        lines += [
            "",
            "A canary that is not ready keeps its share: KServe's route does not fall back to stable, as `slipway "
            "gateway` does.",
            "",
            f"To promote, render with the candidate's image as `--image`, and set `predictor.name` to `{CANDIDATE}` "
            f"and its label `{INSTANCE}` to `{STABLE}`.",
        ]
    return "\n".join(lines) + "\n"
