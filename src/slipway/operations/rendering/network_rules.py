"""Rules about who reaches whom."""

from collections.abc import Container, Iterator, Mapping

import yaml
from pydantic import Field

from slipway.operations.rendering.envoy import BOOTSTRAP
from slipway.operations.rendering.link_rules import Route, addresses
from slipway.operations.rendering.manifests import LOADER, Deployed, ManifestPart, Object, Objects, Selector
from slipway.operations.rendering.pods import COMPONENT, GATEWAY, GATEWAY_PODS, SERVER
from slipway.operations.rendering.violation import Violation
from slipway.serving.container import INNER_PORTS

ASKED = [INNER_PORTS[name] for name in ("grpc", "http")]
_NAMESPACE = "kubernetes.io/metadata.name"


class _Peer(ManifestPart):
    pods: Selector | None = Field(default=None, alias="podSelector")
    namespaces: Selector | None = Field(default=None, alias="namespaceSelector")

    @property
    def namespace(self) -> str:
        return self.namespaces.match_labels.get(_NAMESPACE, "") if self.namespaces else ""


class _PolicyPort(ManifestPart):
    port: int | str | None = None
    last: int | None = Field(default=None, alias="endPort")

    def covers(self, number: int) -> bool:
        """Whether it is this port, one of its name, or a range that has it."""
        if isinstance(self.port, int):
            return self.port <= number <= (self.last or self.port)
        return self.port is None or INNER_PORTS.get(self.port) == number


class _Ingress(ManifestPart):
    peers: tuple[_Peer, ...] = Field(default=(), alias="from")
    ports: tuple[_PolicyPort, ...] = ()

    def covers(self, number: int) -> bool:
        return not self.ports or any(port.covers(number) for port in self.ports)


class _Policy(ManifestPart):
    pods: Selector = Field(default=Selector(), alias="podSelector")
    types: tuple[str, ...] = Field(default=(), alias="policyTypes")
    ingress: tuple[_Ingress, ...] = ()


Policies = list[tuple[Object, _Policy]]


def network_findings(objects: Objects) -> Iterator[Violation]:
    """Check that every pod has a policy, and that only the gateway reaches the ports of tritonserver and reaches all
    its targets."""
    gateways = {parent.namespace for one in objects.of("HTTPRoute") for parent in objects.read(one, Route).parents}
    gateways |= {one.metadata.annotations.get(GATEWAY_PODS, "") for one in objects.of("HTTPRoute")} - {""}
    policies: Policies = [(one, objects.read(one, _Policy)) for one in objects.of("NetworkPolicy")]
    for deployed in objects.deployed:
        own = _own(policies, deployed)
        if not own:
            yield Violation("network", deployed.title, "no NetworkPolicy says who may reach it")
        if deployed.labels.get(COMPONENT) != SERVER:
            continue
        for one, policy in own:
            yield from _open_ports(one, policy, gateways)
    yield from _closed_ports(objects, policies)


def _own(policies: Policies, deployed: Deployed) -> Policies:
    return [
        (one, policy) for one, policy in policies if policy.pods.selects(deployed.labels) and "Ingress" in policy.types
    ]


def _open_ports(one: Object, policy: _Policy, gateways: Container[str]) -> Iterator[Violation]:
    for rule in policy.ingress:
        if not any(rule.covers(port) for port in ASKED):
            continue
        for peer in rule.peers or (_Peer(),):
            wanted = peer.pods.match_labels if peer.pods else {}
            if wanted.get(COMPONENT) != GATEWAY and peer.namespace not in gateways:
                yield Violation("network", one.title, "others than the gateway reach tritonserver")


def _closed_ports(objects: Objects, policies: Policies) -> Iterator[Violation]:
    """Ports that Envoy asks, health checks included, where the policies of those pods do not let it in."""
    gateways = [one for one in objects.deployed if one.labels.get(COMPONENT) == GATEWAY]
    for host, port in sorted(set(_asked(objects))):
        service = objects.services.get(host)
        if service is None or port not in {one.port for one in service.ports}:
            continue  # which another rule finds
        behind = Selector(matchLabels=service.selector)
        for deployed in (one for one in objects.deployed if service.selector and behind.selects(one.labels)):
            own = _own(policies, deployed)
            rules = [rule for _, policy in own for rule in policy.ingress if rule.covers(port)]
            if own and not all(any(_lets_in(rule, one) for rule in rules) for one in gateways):
                yield Violation(
                    "network", own[0][0].title, f"the gateway does not reach port {port} of {deployed.title}"
                )


def _asked(objects: Objects) -> Iterator[tuple[str, int]]:
    for one in objects.of("ConfigMap"):
        static: Mapping[str, object] = yaml.load(one.data.get(BOOTSTRAP, "{}"), Loader=LOADER)
        resources = static.get("static_resources", {})
        if isinstance(resources, Mapping):
            yield from addresses(resources.get("clusters"))


def _lets_in(rule: _Ingress, gateway: Deployed) -> bool:
    """Whether pods of the gateway, in the policy's own namespace, are among the peers of a rule."""
    return not rule.peers or any(
        peer.namespaces is None and peer.pods is not None and peer.pods.selects(gateway.labels) for peer in rule.peers
    )
