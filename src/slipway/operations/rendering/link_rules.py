"""Rules about objects that refer to one another: selectors, ports, names, secrets, and who reaches whom."""

import re
from collections.abc import Container, Iterator, Mapping
from itertools import chain

import yaml
from pydantic import Field

from slipway.operations.rendering.envoy import BOOTSTRAP
from slipway.operations.rendering.finding import Finding
from slipway.operations.rendering.manifests import LOADER, Deployed, Object, Objects, Part, Selector
from slipway.operations.rendering.pods import COMPONENT, GATEWAY, SERVER
from slipway.serving.container import INNER_PORTS

_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|private_key:\s*\n?\s*inline|^\s*-? *key: \S{16,}$", re.MULTILINE
)
_SECRET_NAME = re.compile(r"(key|token|secret|password|credential)s?$", re.IGNORECASE)
ASKED = {INNER_PORTS[name] for name in ("grpc", "http")} | {"grpc", "http"}


def link_findings(objects: Objects) -> Iterator[Finding]:
    yield from _selectors(objects)
    yield from _services(objects)
    yield from _secrets(objects)
    yield from _policies(objects)
    yield from _named(objects)
    yield from _envoy(objects)
    yield from _monitors(objects)
    yield from _routes(objects)


class _Selecting(Part):
    selector: Selector = Selector()


class _Target(Part):
    kind: str = ""
    name: str = ""


class _Scaling(Part):
    target: _Target = Field(default=_Target(), alias="scaleTargetRef")


def _selectors(objects: Objects) -> Iterator[Finding]:
    for deployed in objects.deployed:
        wanted = deployed.selector.match_labels
        if not wanted or not deployed.selector.selects(deployed.labels):
            yield Finding("selector", deployed.title, f"{wanted} does not select its own pods, {deployed.labels}")
    for one in objects.of("PodDisruptionBudget"):
        if not _selected(objects, objects.read(one, _Selecting).selector):
            yield Finding("selector", one.title, "selects no pod")
    for one in objects.of("HorizontalPodAutoscaler"):
        target = objects.read(one, _Scaling).target
        if target.kind != "Deployment" or target.name not in {deployed.name for deployed in objects.deployed}:
            yield Finding("selector", one.title, f"scales {target.kind}/{target.name}, which is not there")


def _selected(objects: Objects, selector: Selector) -> list[Deployed]:
    return [one for one in objects.deployed if selector.match_labels and selector.selects(one.labels)]


def _services(objects: Objects) -> Iterator[Finding]:
    for name, service in objects.services.items():
        title = f"Service/{name}"
        pods = _selected(objects, Selector(matchLabels=service.selector))
        if not pods:
            yield Finding("selector", title, f"{service.selector} selects no pod")
        for port in service.ports:
            target = port.target if port.target is not None else port.port
            for one in pods:
                if not any(container.has_port(target) for container in one.pod.containers):
                    yield Finding(
                        "service-port", title, f"port {port.port}: nothing in {one.title} listens on {target!r}"
                    )


def _secrets(objects: Objects) -> Iterator[Finding]:
    for one in objects.of("Secret"):
        if one.data or one.string_data:
            yield Finding("secret-text", one.title, "a secret in a file that goes to git; name it, and make it apart")
    for one in objects.of("ConfigMap"):
        for name, text in one.data.items():
            if _SECRET.search(text):
                yield Finding("secret-text", one.title, f"{name}: a key in plain text")
    for deployed in objects.deployed:
        for container in deployed.pod.all_containers:
            for variable in container.env:
                if variable.value and _SECRET_NAME.search(variable.name):
                    yield Finding("secret-text", deployed.title, f"{container.name}: {variable.name} in plain text")


class _Peer(Part):
    podSelector: Selector | None = None
    namespaceSelector: Selector | None = None


class _PolicyPort(Part):
    port: int | str | None = None


class _Ingress(Part):
    peers: tuple[_Peer, ...] = ()
    ports: tuple[_PolicyPort, ...] = ()


class _Policy(Part):
    podSelector: Selector = Selector()
    policyTypes: tuple[str, ...] = ()
    ingress: tuple[Mapping[str, object], ...] = ()


def _policies(objects: Objects) -> Iterator[Finding]:
    """Every pod is of a policy, and only the gateway's pods reach the ports of tritonserver."""
    gateways = {parent.namespace for one in objects.of("HTTPRoute") for parent in objects.read(one, _Route).parents}
    policies = [(one, objects.read(one, _Policy)) for one in objects.of("NetworkPolicy")]
    for deployed in objects.deployed:
        own = [
            (one, policy)
            for one, policy in policies
            if policy.podSelector.selects(deployed.labels) and "Ingress" in policy.policyTypes
        ]
        if not own:
            yield Finding("network", deployed.title, "no NetworkPolicy says who may reach it")
        if deployed.labels.get(COMPONENT) != SERVER:
            continue
        for one, policy in own:
            yield from _open_ports(one, policy, gateways)


def _open_ports(one: Object, policy: _Policy, gateways: Container[str]) -> Iterator[Finding]:
    for rule in policy.ingress:
        read = _Ingress.model_validate({"peers": rule.get("from", ()), "ports": rule.get("ports", ())})
        ports = {port.port for port in read.ports}
        if ports and not ports & ASKED:
            continue
        for peer in read.peers or (_Peer(),):
            wanted = peer.podSelector.match_labels if peer.podSelector else {}
            place = peer.namespaceSelector.match_labels if peer.namespaceSelector else {}
            if wanted.get(COMPONENT) != GATEWAY and place.get("kubernetes.io/metadata.name", "") not in gateways:
                yield Finding("network", one.title, "others than the gateway reach tritonserver")


def _named(objects: Objects) -> Iterator[Finding]:
    maps = {one.metadata.name for one in objects.of("ConfigMap")}
    for one in objects.deployed:
        for volume in one.pod.volumes:
            if volume.config_map is not None and volume.config_map.name not in maps:
                yield Finding("volume", one.title, f"volume {volume.name}: no ConfigMap {volume.config_map.name!r}")
    names = sorted({one.metadata.namespace or "" for one in objects.all})
    if len(names) > 1:
        yield Finding("namespace", objects.source, f"objects are in the namespaces {', '.join(map(repr, names))}")


def _envoy(objects: Objects) -> Iterator[Finding]:
    """The gateway asks Services that are there, on ports that they have, and listens where its pod says."""
    for one in objects.of("ConfigMap"):
        if BOOTSTRAP not in one.data:
            continue
        static = yaml.load(one.data[BOOTSTRAP], Loader=LOADER).get("static_resources", {})
        for cluster in static.get("clusters", ()):
            for host, port in _addresses(cluster.get("load_assignment")):
                service = objects.services.get(host)
                if service is None or port not in {each.port for each in service.ports}:
                    yield Finding("gateway-port", one.title, f"{cluster['name']}: no Service {host} with port {port}")
        gateways = [each for each in objects.deployed if each.labels.get(COMPONENT) == GATEWAY]
        for listener in static.get("listeners", ()):
            port = listener["address"]["socket_address"]["port_value"]
            listening = chain.from_iterable(each.pod.containers for each in gateways)
            if not any(container.has_port(port) for container in listening):
                yield Finding(
                    "gateway-port", one.title, f"listens on {port}, which is not a port of the gateway's pods"
                )


def _addresses(node: object) -> Iterator[tuple[str, int]]:
    """Every `socket_address` below `node`."""
    if isinstance(node, Mapping):
        found = node.get("socket_address")
        if isinstance(found, Mapping):
            yield str(found["address"]), int(found["port_value"])
        for value in node.values():
            yield from _addresses(value)
    elif isinstance(node, list):
        for value in node:
            yield from _addresses(value)


class _Endpoint(Part):
    port: str = ""


class _Monitor(Part):
    selector: Selector = Selector()
    endpoints: tuple[_Endpoint, ...] = ()


def _monitors(objects: Objects) -> Iterator[Finding]:
    for one in objects.of("ServiceMonitor"):
        monitor = objects.read(one, _Monitor)
        services = [
            objects.services[each.metadata.name]
            for each in objects.of("Service")
            if monitor.selector.selects(each.metadata.labels)
        ]
        for endpoint in monitor.endpoints:
            if not any(endpoint.port == port.name for service in services for port in service.ports):
                yield Finding("monitor-port", one.title, f"no Service that it selects has a port {endpoint.port!r}")


class _Backend(Part):
    name: str = ""
    port: int = 0


class _RouteRule(Part):
    backends: tuple[_Backend, ...] = Field(default=(), alias="backendRefs")


class _Parent(Part):
    namespace: str = ""


class _Route(Part):
    parents: tuple[_Parent, ...] = Field(default=(), alias="parentRefs")
    hostnames: tuple[str, ...] = ()
    rules: tuple[_RouteRule, ...] = ()


def _routes(objects: Objects) -> Iterator[Finding]:
    """A host has one route: beside a GRPCRoute, an HTTPRoute of the same host gets nothing."""
    hosts: dict[str, str] = {}
    for one in objects.of("HTTPRoute", "GRPCRoute"):
        route = objects.read(one, _Route)
        for host in route.hostnames:
            if host in hosts:
                yield Finding("one-route", one.title, f"{host} is that of {hosts[host]} too; write one HTTPRoute")
            hosts[host] = one.title
        for backend in (backend for rule in route.rules for backend in rule.backends):
            service = objects.services.get(backend.name)
            if service is None or backend.port not in {port.port for port in service.ports}:
                yield Finding("route-port", one.title, f"no Service {backend.name} with port {backend.port}")
