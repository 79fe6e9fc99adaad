"""The init containers that fetch the repository where image volumes are off: the launcher's own image pulls it."""

from slipway.oci.reference import RegistryReference
from slipway.operations.gateway.routes import Node
from slipway.operations.rendering.files import Document
from slipway.operations.rendering.objects import DNS_PORTS, policy, ports
from slipway.operations.rendering.plan import ClusterPlan
from slipway.operations.rendering.pods import (
    CANDIDATE,
    COMPONENT,
    NAME,
    REPOSITORY,
    SERVER,
    STABLE,
    container_rights,
    quantity,
    server_of,
)
from slipway.serving.container import MODELS

LOGIN_SECRET = "registry-login"
"""Secret of the registry's login, as `kubectl create secret docker-registry` makes it. It may be missing."""
KEY_CONFIG, PUBLIC_KEY = "signing-key", "public.pem"
"""ConfigMap with the public key that must have signed an image, and its file there."""
_LOGIN, _TRUSTED = "/login", "/trusted"
_IMAGES = "/fetched/images:release"


def fetching_patches(plan: ClusterPlan) -> list[Node]:
    """A patch for the Deployment of each arm."""
    images = {STABLE: plan.images.repository, CANDIDATE: plan.images.candidate}
    return [
        {
            "target": {"kind": "Deployment", "name": instance},
            "patch": Document(_operations(plan, instance, image)).text(),
        }
        for instance, image in images.items()
        if image is not None
    ]


def key_document(public_key: str) -> Document:
    """The public key that the init containers verify signatures with."""
    return Document(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": KEY_CONFIG, "labels": {NAME: "slipway"}},
            "data": {PUBLIC_KEY: public_key},
        },
        about="The key that must have signed a repository's image: otherwise its pod does not start.",
    )


def fetching_document(plan: ClusterPlan) -> Document:
    """The way of an init container to its registry."""
    images = [image for image in (plan.images.repository, plan.images.candidate) if image is not None]
    # 443 too: registries send on to others for tokens and blobs.
    asked = sorted({443, *(RegistryReference.parse(image).port for image in images)})
    return policy(
        "servers-fetch",
        {NAME: "slipway", COMPONENT: SERVER},
        egress=[{"ports": [*DNS_PORTS, *ports(*asked)]}],
        about="The init containers reach the registry. Put its addresses here: a policy holds for a whole pod.",
    )


def _operations(plan: ClusterPlan, instance: str, image: str) -> list[Node]:
    room: Node = {"sizeLimit": quantity(server_of(plan, instance).tmp_bytes)}
    login: Node = {
        "secretName": LOGIN_SECRET,
        "optional": True,
        "defaultMode": 0o440,
        "items": [{"key": ".dockerconfigjson", "path": "config.json"}],
    }
    pull = _container(plan, "pull", "pull", image, _IMAGES)
    unpack = _container(plan, "unpack", "unpack", _IMAGES, REPOSITORY)
    trusted: Node = {"name": "trusted", "configMap": {"name": KEY_CONFIG}}
    mounted: Node = {"name": "repository", "mountPath": MODELS, "readOnly": True}
    pod = "/spec/template/spec"
    return [
        {"op": "replace", "path": f"{pod}/volumes/0", "value": {"name": "repository", "emptyDir": room}},
        {"op": "add", "path": f"{pod}/volumes/-", "value": {"name": "fetched", "emptyDir": room}},
        {"op": "add", "path": f"{pod}/volumes/-", "value": {"name": "login", "secret": login}},
        *([{"op": "add", "path": f"{pod}/volumes/-", "value": trusted}] if plan.public_key else []),
        {"op": "replace", "path": f"{pod}/containers/0/volumeMounts/0", "value": mounted},
        {"op": "add", "path": f"{pod}/initContainers", "value": [pull, unpack]},
    ]


def _container(plan: ClusterPlan, name: str, *arguments: str) -> Node:
    mounts: dict[str, str] = {"fetched": "/fetched", "repository": MODELS, "tmp": "/tmp", "login": _LOGIN}
    mounts |= {"trusted": _TRUSTED} if plan.public_key else {}
    signed = ["--key", f"{_TRUSTED}/{PUBLIC_KEY}"] if plan.public_key else []
    return {
        "name": name,
        "image": plan.images.server,
        "imagePullPolicy": "IfNotPresent",
        "args": ["image", *arguments, *signed],
        "env": [{"name": "DOCKER_CONFIG", "value": _LOGIN}],
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": container_rights(),
        "volumeMounts": [
            {"name": volume, "mountPath": path, **({"readOnly": True} if volume in ("login", "trusted") else {})}
            for volume, path in mounts.items()
        ],
    }
