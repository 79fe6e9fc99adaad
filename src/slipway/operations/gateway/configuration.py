"""Envoy's configuration: a bootstrap that names three watched files, of listeners, clusters and routes."""

from collections.abc import Iterable, Mapping

from slipway.contract import SpecError
from slipway.operations.gateway.access_logs import LATENCY, SCOPE
from slipway.operations.gateway.listener import listener
from slipway.operations.gateway.placement import HERE, Placement
from slipway.operations.gateway.routes import (
    CLUSTERS,
    GRPC,
    HTTP,
    LISTENERS,
    STATUS_CLUSTER,
    Node,
    check_traffic,
    make_folder,
    read_traffic,
    replace,
    route_configuration,
    watched,
    write_resources,
    write_same_routes,
)
from slipway.operations.gateway.settings import GatewaySettings, ServerPorts, budget_edges_ms
from slipway.operations.journal.folders import private_folder
from slipway.operations.journal.settings import SERVERS, ArmPorts
from slipway.system.text import few
from slipway.system.yaml_json import dump_yaml

BOOTSTRAP = "bootstrap.yaml"
EDGES_MS = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 75, 100, 150, 250, 500, 1000, 2500, 10_000)
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def write_configuration(settings: GatewaySettings, *, keys: Mapping[str, str], models: Iterable[str]) -> None:
    """Write all that Envoy reads into the gateway's folder; a running Envoy takes it up, the bootstrap excepted.

    Raises:
        SpecError: traffic goes to a candidate, and the settings have none.
    """
    check_traffic(settings, read_traffic(settings))  # first: routes without their clusters would be answered by 503
    make_folder(settings.folder)
    if settings.observe is not None:
        private_folder(settings.spool, what="observe.spool")
        ports = {"stable": settings.stable.grpc} | (
            {"candidate": settings.candidate.grpc} if settings.candidate else {}
        )
        replace(settings.folder / SERVERS, ArmPorts(grpc=ports).to_json())
    write_resources(settings.folder, CLUSTERS, clusters(settings))
    write_same_routes(settings)
    write_resources(settings.folder, LISTENERS, [listener(settings, keys, models)])
    replace(settings.folder / BOOTSTRAP, dump_yaml(bootstrap(settings)))


def bootstrap(settings: GatewaySettings) -> Node:
    """Envoy's Bootstrap. Its administrative interface, on 127.0.0.1, answers /stats/prometheus and /ready alone."""
    return {
        **_base(settings),
        "dynamic_resources": {
            "lds_config": watched(settings.folder, LISTENERS),
            "cds_config": watched(settings.folder, CLUSTERS),
        },
    }


def static_bootstrap(settings: GatewaySettings, *, keys: Mapping[str, str], models: Iterable[str]) -> Node:
    """Return the configuration in one file, for Envoy's validation, which reads no watched files."""
    written = listener(settings, keys, models, routes=route_configuration(settings, read_traffic(settings)))
    resources: Node = {"listeners": [written], "clusters": clusters(settings)}
    return {**_base(settings), "static_resources": resources}


def mounted_bootstrap(settings: GatewaySettings, *, models: Iterable[str], placement: Placement) -> Node:
    """Return the configuration for a container: without a secret, since secrets and routes are files beside it."""
    written = listener(settings, {}, models, placement=placement)
    resources: Node = {"listeners": [written], "clusters": clusters(settings, placement=placement)}
    return {**_base(settings, placement), "static_resources": resources}


def _base(settings: GatewaySettings, placement: Placement = HERE) -> dict[str, Node]:
    edges_us = sorted({1000 * edge for edge in (*EDGES_MS, *budget_edges_ms(settings))})
    histogram: Node = {"match": {"prefix": f"{SCOPE}.{LATENCY}"}, "buckets": edges_us}
    connections: Node = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3"
            ".DownstreamConnectionsConfig",
            "max_active_downstream_connections": settings.max_connections,
        },
    }
    return {
        "node": {"id": "slipway", "cluster": "slipway"},
        "admin": {
            "address": {"socket_address": {"address": placement.metrics, "port_value": settings.metrics_port}},
            "allow_paths": [{"exact": "/ready"}, {"prefix": "/stats/prometheus"}],
        },
        "stats_config": {"histogram_bucket_settings": [histogram]},
        "stats_flush_on_admin": True,  # histograms are complete at the second of two readings, not up to 5 s late
        "overload_manager": {"resource_monitors": [connections]},
    }


def clusters(settings: GatewaySettings, *, placement: Placement = HERE) -> list[Mapping[str, Node]]:
    """Envoy's Clusters: gRPC and HTTP of each server, the supervisor of stable, and candidate with stable behind it.

    Stable has no health check: nothing could take its place, and one broken classifier of many must not close the rest.
    If it is several machines, the broken ones are left out, unless they are most.
    """
    host, checked = placement.stable, placement.ready if placement.by_name else None
    found = [
        _cluster(f"stable_{protocol}", protocol, settings.stable, host=host, checked=checked, whole=True)
        for protocol in (GRPC, HTTP)
    ]
    status = ServerPorts(http=settings.stable.status, status=settings.stable.status)
    found.append(_cluster(STATUS_CLUSTER, HTTP, status, host=host, checked=checked, whole=True))
    if settings.candidate is not None:
        host, checked = placement.candidate, placement.ready
        for protocol in (GRPC, HTTP):
            found.append(
                _cluster(f"candidate_{protocol}", protocol, settings.candidate, host=host, checked=checked, whole=False)
            )
            found.append(_aggregate(protocol))
    return found


def _cluster(
    name: str, protocol: str, server: ServerPorts, *, host: str, checked: str | None, whole: bool
) -> Mapping[str, Node]:
    """A Cluster.

    Args:
        checked: path that tells whether a server is ready; None if nobody asks.
        whole: whether it gets requests even if most of it is not ready.
    """
    port = server.grpc if protocol == GRPC else server.http
    endpoint: dict[str, Node] = {"address": {"socket_address": {"address": host, "port_value": port}}}
    cluster: dict[str, Node] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
    }
    if host != HERE.stable:
        cluster |= {"type": "STRICT_DNS", "dns_refresh_rate": "1s", "dns_lookup_family": "V4_PREFERRED"}
        cluster["lb_policy"] = "LEAST_REQUEST"
    if protocol == GRPC:
        options: Node = {
            "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        cluster["typed_extension_protocol_options"] = {HTTP_OPTIONS: options}
    if checked is not None:
        endpoint["health_check_config"] = {"port_value": server.status}
        if not whole:
            cluster["common_lb_config"] = {"healthy_panic_threshold": {"value": 0}}  # none ready: to stable, not to it
        cluster["health_checks"] = [
            {
                "http_health_check": {"path": checked, "codec_client_type": "HTTP1"},
                "interval": "0.5s",
                "no_traffic_interval": "0.5s",
                "timeout": "0.5s",
                "healthy_threshold": 1,
                "unhealthy_threshold": 1,
            }
        ]
    endpoints: Node = [{"lb_endpoints": [{"endpoint": endpoint}]}]
    cluster["load_assignment"] = {"cluster_name": name, "endpoints": endpoints}
    return cluster


def _aggregate(protocol: str) -> Mapping[str, Node]:
    kind = "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig"
    order: Node = [f"candidate_{protocol}", f"stable_{protocol}"]
    return {
        "name": f"candidate_or_stable_{protocol}",
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": {"@type": kind, "clusters": order}},
    }


def check_budgets(settings: GatewaySettings, models: Iterable[str]) -> None:
    """Raises SpecError if a budget is that of a classifier that the repository does not have."""
    known = set(models)
    if unknown := sorted(settings.budgets_ms.keys() - known):
        raise SpecError(
            f"budgets_ms: {few(unknown)}: the repository has no such classifier; it has {few(sorted(known))}"
        )
