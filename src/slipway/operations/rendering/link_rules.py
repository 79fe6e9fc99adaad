"""Rules about objects that refer to one another: selectors, ports, names, metrics, and secrets."""

import re
from collections.abc import Iterator, Mapping
from itertools import chain

import yaml
from pydantic import Field

from slipway.operations.rendering.envoy import BOOTSTRAP
from slipway.operations.rendering.manifests import LOADER, Deployed, ManifestPart, Objects, Selector
from slipway.operations.rendering.pods import COMPONENT, GATEWAY
from slipway.operations.rendering.violation import Violation

_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|private_key:\s*\n?\s*inline|^\s*-? *key: \S{16,}$", re.MULTILINE
)
_SECRET_NAME = re.compile(r"(key|token|secret|password|credential)s?$", re.IGNORECASE)


def link_findings(objects: Objects) -> Iterator[Violation]:
    yield from _selectors(objects)
    yield from _services(objects)
    yield from _secrets(objects)
    yield from _named(objects)
    yield from _envoy(objects)
    yield from _monitors(objects)
    yield from _routes(objects)


class _Selecting(ManifestPart):
    selector: Selector = Selector()


class _Target(ManifestPart):
    api_version: str = Field(default="", alias="apiVersion")
    kind: str = ""
    name: str = ""


class _Metric(ManifestPart):
    pods: dict[str, dict[str, object]] = Field(default={})


class _Scaling(ManifestPart):
    target: _Target = Field(default=_Target(), alias="scaleTargetRef")
    metrics: tuple[_Metric, ...] = ()


class _Recording(ManifestPart):
    record: str = ""


class _Group(ManifestPart):
    rules: tuple[_Recording, ...] = ()


class _Recorded(ManifestPart):
    groups: tuple[_Group, ...] = ()


def _selectors(objects: Objects) -> Iterator[Violation]:
    for deployed in objects.deployed:
        wanted = deployed.selector.match_labels
        if not wanted or not deployed.selector.selects(deployed.labels):
            yield Violation("selector", deployed.title, f"{wanted} does not select its own pods, {deployed.labels}")
    for one in objects.of("PodDisruptionBudget"):
        if not _selected(objects, objects.read(one, _Selecting).selector):
            yield Violation("selector", one.title, "selects no pod")
    rules = [objects.read(one, _Recorded) for one in objects.of("PrometheusRule")]
    recorded = {rule.record for read in rules for group in read.groups for rule in group.rules}
    names = {deployed.name for deployed in objects.deployed}
    for one in objects.of("HorizontalPodAutoscaler"):
        scaling = objects.read(one, _Scaling)
        for name in (metric.pods["metric"].get("name") for metric in scaling.metrics if "metric" in metric.pods):
            if name not in recorded:
                yield Violation("metric", one.title, f"scales by {name}, which no PrometheusRule records")
        target = scaling.target
        if (target.api_version, target.kind) != ("apps/v1", "Deployment") or target.name not in names:
            scaled = f"{target.kind}/{target.name} of {target.api_version or 'no apiVersion'}"
            yield Violation("selector", one.title, f"scales {scaled}, which is not there")


def _selected(objects: Objects, selector: Selector) -> list[Deployed]:
    return [one for one in objects.deployed if selector.match_labels and selector.selects(one.labels)]


def _services(objects: Objects) -> Iterator[Violation]:
    for name, service in objects.services.items():
        title = f"Service/{name}"
        pods = _selected(objects, Selector(matchLabels=service.selector))
        if not pods:
            yield Violation("selector", title, f"{service.selector} selects no pod")
        for port in service.ports:
            target = port.target if port.target is not None else port.port
            for one in pods:
                if not any(container.has_port(target) for container in one.pod.containers):
                    yield Violation(
                        "service-port", title, f"port {port.port}: nothing in {one.title} listens on {target!r}"
                    )


def _secrets(objects: Objects) -> Iterator[Violation]:
    for one in objects.of("Secret"):
        if one.data or one.string_data:
            yield Violation("secret-text", one.title, "a secret in a file that goes to git; name it, and make it apart")
    for one in objects.of("ConfigMap"):
        for name, text in one.data.items():
            if _SECRET.search(text):
                yield Violation("secret-text", one.title, f"{name}: a key in plain text")
    for deployed in objects.deployed:
        for container in deployed.pod.all_containers:
            for variable in container.env:
                if variable.value and _SECRET_NAME.search(variable.name):
                    yield Violation("secret-text", deployed.title, f"{container.name}: {variable.name} in plain text")


def _named(objects: Objects) -> Iterator[Violation]:
    maps = {one.metadata.name for one in objects.of("ConfigMap")}
    for one in objects.deployed:
        for volume in one.pod.volumes:
            if volume.config_map is not None and volume.config_map.name not in maps:
                yield Violation("volume", one.title, f"volume {volume.name}: no ConfigMap {volume.config_map.name!r}")
    names = sorted({one.metadata.namespace or "" for one in objects.all})
    if len(names) > 1:
        yield Violation("namespace", objects.source, f"objects are in the namespaces {', '.join(map(repr, names))}")


def _envoy(objects: Objects) -> Iterator[Violation]:
    """The gateway asks Services that are there, on ports that they have, and listens where its pod says."""
    for one in objects.of("ConfigMap"):
        if BOOTSTRAP not in one.data:
            continue
        static = yaml.load(one.data[BOOTSTRAP], Loader=LOADER).get("static_resources", {})
        for cluster in static.get("clusters", ()):
            for host, port in addresses(cluster.get("load_assignment")):
                service = objects.services.get(host)
                if service is None or port not in {each.port for each in service.ports}:
                    yield Violation("gateway-port", one.title, f"{cluster['name']}: no Service {host} with port {port}")
        gateways = [each for each in objects.deployed if each.labels.get(COMPONENT) == GATEWAY]
        for listener in static.get("listeners", ()):
            port = listener["address"]["socket_address"]["port_value"]
            listening = chain.from_iterable(each.pod.containers for each in gateways)
            if not any(container.has_port(port) for container in listening):
                yield Violation(
                    "gateway-port", one.title, f"listens on {port}, which is not a port of the gateway's pods"
                )


def addresses(node: object) -> Iterator[tuple[str, int]]:
    """Host and port of every endpoint below `node`, and of the health check of each."""
    if isinstance(node, Mapping):
        found = node.get("socket_address")
        if isinstance(found, Mapping):
            yield str(found["address"]), int(found["port_value"])
        checked, at = node.get("health_check_config"), node.get("address")
        if isinstance(checked, Mapping) and isinstance(at, Mapping):
            yield str(at["socket_address"]["address"]), int(checked["port_value"])
        for value in node.values():
            yield from addresses(value)
    elif isinstance(node, list):
        for value in node:
            yield from addresses(value)


class _Endpoint(ManifestPart):
    port: str = ""


class _Monitor(ManifestPart):
    selector: Selector = Selector()
    endpoints: tuple[_Endpoint, ...] = ()


def _monitors(objects: Objects) -> Iterator[Violation]:
    for one in objects.of("ServiceMonitor"):
        monitor = objects.read(one, _Monitor)
        services = [
            objects.services[each.metadata.name]
            for each in objects.of("Service")
            if monitor.selector.selects(each.metadata.labels)
        ]
        for endpoint in monitor.endpoints:
            if not any(endpoint.port == port.name for service in services for port in service.ports):
                yield Violation("monitor-port", one.title, f"no Service that it selects has a port {endpoint.port!r}")


class _Backend(ManifestPart):
    name: str = ""
    port: int = 0


class _RouteRule(ManifestPart):
    backends: tuple[_Backend, ...] = Field(default=(), alias="backendRefs")


class _Parent(ManifestPart):
    namespace: str = ""


class Route(ManifestPart):
    """The spec of an HTTPRoute or a GRPCRoute."""

    parents: tuple[_Parent, ...] = Field(default=(), alias="parentRefs")
    hostnames: tuple[str, ...] = ()
    rules: tuple[_RouteRule, ...] = ()


def _routes(objects: Objects) -> Iterator[Violation]:
    """A host has one route: beside a GRPCRoute, an HTTPRoute of the same host gets nothing."""
    hosts: dict[str, str] = {}
    for one in objects.of("HTTPRoute", "GRPCRoute"):
        route = objects.read(one, Route)
        for host in route.hostnames:
            if host in hosts:
                yield Violation("one-route", one.title, f"{host} is that of {hosts[host]} too; write one HTTPRoute")
            hosts[host] = one.title
        for backend in (backend for rule in route.rules for backend in rule.backends):
            service = objects.services.get(backend.name)
            if service is None or backend.port not in {port.port for port in service.ports}:
                yield Violation("route-port", one.title, f"no Service {backend.name} with port {backend.port}")
