"""The kustomize tree of a cluster: a base, components that change it, and overlays to apply."""

from collections.abc import Iterable

from slipway.operations.gateway.routes import ROUTES, Node
from slipway.operations.rendering.envoy import BOOTSTRAP, CERTIFICATE_FILE, ROUTE_FILE, gateway_files
from slipway.operations.rendering.fetching import LOGIN_SECRET, fetching_document, fetching_patches, key_document
from slipway.operations.rendering.files import Document, yaml_file
from slipway.operations.rendering.objects import gateway_documents, network_documents, server_documents
from slipway.operations.rendering.observed import adapter_values, monitor_documents, rule_documents
from slipway.operations.rendering.plan import IMAGE_VOLUMES, ClusterPlan, Gpu
from slipway.operations.rendering.pods import (
    CANDIDATE,
    COMPONENT,
    CONFIG,
    GPU_TOLERATION,
    KEYS_SECRET,
    ROUTES_CONFIG,
    SERVER,
    STABLE,
    TLS_SECRET,
)
from slipway.system.text import command

KIND, INIT = "kubernetes", "init-container"
KUSTOMIZATION = "kustomization.yaml"
_SERVERS: Node = {"kind": "Deployment", "labelSelector": f"{COMPONENT}={SERVER}"}


def kubernetes_files(plan: ClusterPlan) -> dict[str, str]:
    """Every file by its path; equal plans give equal bytes.

    Raises:
        SpecError: the gateway's configuration is too large.
    """
    candidate = plan.images.candidate
    stable_only = plan.settings.model_copy(update={"candidate": None})
    files = {
        "README.md": _readme(plan),
        f"base/{STABLE}.yaml": yaml_file(*server_documents(plan, STABLE, plan.images.repository)),
        "base/gateway.yaml": yaml_file(*gateway_documents(plan)),
        "base/network.yaml": yaml_file(*network_documents(plan)),
        "base/monitors.yaml": yaml_file(*monitor_documents()),
        "base/rules.yaml": yaml_file(*rule_documents(plan, candidate=False)),
        f"base/{KUSTOMIZATION}": _base(),
        **{
            f"base/{name}": text
            for name, text in gateway_files(stable_only, plan.server.models, vital=plan.vital).items()
        },
        "monitoring/prometheus-adapter.yaml": adapter_values(),
        f"components/{INIT}/{KUSTOMIZATION}": _kustomization(
            {
                "resources": ["network.yaml", *(["key.yaml"] if plan.public_key else [])],
                "patches": fetching_patches(plan),
            },
            component=True,
            about=f"For clusters before {IMAGE_VOLUMES}, or with image volumes off: pull and unpack the repository "
            "first.",
        ),
        f"components/{INIT}/network.yaml": yaml_file(fetching_document(plan)),
        f"overlays/stable/{KUSTOMIZATION}": _overlay(plan, ()),
    }
    if plan.public_key is not None:
        files[f"components/{INIT}/key.yaml"] = yaml_file(key_document(plan.public_key))
    if plan.gpu is not None:
        files[f"components/gpu/{KUSTOMIZATION}"] = _gpu(plan.gpu)
    if candidate is not None:
        files |= _candidate(plan, candidate)
        files[f"overlays/candidate/{KUSTOMIZATION}"] = _overlay(plan, (CANDIDATE,))
    return files


def _kustomization(content: dict[str, Node], *, component: bool = False, about: str, **reasons: str) -> str:
    head: dict[str, Node] = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1" if component else "kustomize.config.k8s.io/v1beta1",
        "kind": "Component" if component else "Kustomization",
    }
    return yaml_file(Document({**head, **content}, about=about, reasons=reasons))


def _base() -> str:
    resources = [f"{name}.yaml" for name in (STABLE, "gateway", "network", "monitors", "rules")]
    maps: Node = [
        {"name": CONFIG, "files": [BOOTSTRAP, CERTIFICATE_FILE]},
        {"name": ROUTES_CONFIG, "files": [ROUTE_FILE], "options": {"disableNameSuffixHash": True}},
    ]
    return _kustomization(
        {"resources": resources, "configMapGenerator": maps},
        about="The stable release and the gateway. Apply an overlay, not this.\n"
        f"Secrets are not here; README.md says how {KEYS_SECRET} and {TLS_SECRET} are made.",
        disableNameSuffixHash="Envoy takes up new routes by itself. The other map has a hash, and changes start pods.",
    )


def _overlay(plan: ClusterPlan, extra: Iterable[str]) -> str:
    components = [*extra, *(["gpu"] if plan.gpu else []), *([INIT] if plan.fetches else [])]
    content: dict[str, Node] = {"namespace": plan.namespace, "resources": ["../../base"]}
    if components:
        content["components"] = [f"../../components/{name}" for name in components]
    what = "The stable release and a candidate" if extra else "The stable release alone"
    return _kustomization(content, about=f"{what}, for Kubernetes {plan.kubernetes}.")


def _candidate(plan: ClusterPlan, image: str) -> dict[str, str]:
    files = gateway_files(plan.settings, plan.server.models, vital=plan.vital, weight_percent=plan.weight_percent)
    content: dict[str, Node] = {
        "resources": [f"{CANDIDATE}.yaml"],
        "configMapGenerator": [
            {"name": CONFIG, "behavior": "merge", "files": [BOOTSTRAP]},
            {
                "name": ROUTES_CONFIG,
                "behavior": "merge",
                "files": [ROUTE_FILE],
                "options": {"disableNameSuffixHash": True},
            },
        ],
        "patches": [{"path": "rules.yaml"}],
    }
    folder = f"components/{CANDIDATE}"
    written = yaml_file(*server_documents(plan, CANDIDATE, image))
    return {
        f"{folder}/{CANDIDATE}.yaml": written,
        f"{folder}/rules.yaml": yaml_file(*rule_documents(plan, candidate=True)),
        **{f"{folder}/{name}": text for name, text in files.items() if name != CERTIFICATE_FILE},
        f"{folder}/{KUSTOMIZATION}": _kustomization(
            content,
            component=True,
            about="A second server for a share of the requests; stable answers if it is not ready.\n"
            f"The share is the weight in {ROUTE_FILE}.",
        ),
    }


def _gpu(gpu: Gpu) -> str:
    escaped = gpu.resource.replace("/", "~1")
    operations: list[Node] = [
        {"op": "add", "path": f"/spec/template/spec/containers/0/resources/limits/{escaped}", "value": 1},
        {"op": "add", "path": "/spec/template/spec/tolerations", "value": [GPU_TOLERATION]},
    ]
    patch = Document(operations).text()
    return _kustomization(
        {"patches": [{"target": _SERVERS, "patch": patch}]},
        component=True,
        about="One GPU, or one MIG slice, for each server: a pod sees one, and tritonserver one slice alone.\n"
        "NVIDIA's device plugin offers it.",
    )


def _readme(plan: ClusterPlan) -> str:
    overlay = CANDIDATE if plan.images.candidate else STABLE
    settings = plan.settings.file.name
    secrets = command("slipway render secrets", f"../{settings}", "../secrets")
    lines = [
        "# A Slipway deployment",
        "",
        "Written by `slipway render kubernetes`; write it again instead of editing it. Changes go into an overlay of "
        "your own, beside this folder, with `resources: [../NAME/overlays/stable]`.",
        "",
        f"In this folder, with `{settings}` beside it:",
        "",
        "```bash",
        f"kubectl create namespace {plan.namespace}",
        f"{secrets}    # keys.yaml, tls.crt, tls.key: readable by you alone",
        f"kubectl --namespace {plan.namespace} create secret generic {KEYS_SECRET} --from-file=../secrets/keys.yaml",
        f"kubectl --namespace {plan.namespace} create secret tls {TLS_SECRET} --cert=../secrets/tls.crt "
        "--key=../secrets/tls.key",
        "rm -r ../secrets",
        f"kubectl apply --kustomize overlays/{overlay}",
        "```",
        "",
        "| needed in the cluster | for |",
        "| --- | --- |",
        "| the Prometheus operator | `monitors.yaml`, `rules.yaml` |",
        "| prometheus-adapter with `monitoring/prometheus-adapter.yaml` | the HorizontalPodAutoscaler |",
        "| a network that enforces NetworkPolicies | only the gateway reaches tritonserver |",
    ]
    if not plan.fetches:
        lines.append("| containerd 2.1 or CRI-O 1.33 | image volumes |")
    else:
        lines.append(
            f"| Secret `{LOGIN_SECRET}` (`kubectl create secret docker-registry`), if the registry asks who | "
            f"`components/{INIT}`, which pulls by digest and verifies "
            f"{'the signature by its `key.yaml`' if plan.public_key else 'no signature'} |"
        )
    if plan.gpu is not None:
        lines.append(f"| NVIDIA's device plugin | `{plan.gpu.resource}` |")
    lines += [
        "",
        f"The candidate's share is the weight in `{ROUTES}.yaml` of `components/candidate`: render with another "
        "`--weight`, apply, and Envoy takes it up as soon as the kubelet has renewed the file (a minute or so)."
        if plan.images.candidate
        else "Without `--candidate-image` no candidate is rendered.",
    ]
    return "\n".join(lines) + "\n"
