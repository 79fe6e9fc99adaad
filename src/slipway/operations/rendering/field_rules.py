"""Rules about kinds: their apiVersions, and for kinds without a schema the field names (November 2026) and times."""

import re
from collections.abc import Iterator, Mapping

from pydantic import Field

from slipway.operations.rendering.manifests import ManifestPart, Objects
from slipway.operations.rendering.violation import Violation

KINDS: Mapping[str, str] = {
    **dict.fromkeys(("ConfigMap", "Namespace", "PersistentVolumeClaim", "Secret", "Service", "ServiceAccount"), "v1"),
    **dict.fromkeys(("DaemonSet", "Deployment", "StatefulSet"), "apps/v1"),
    **dict.fromkeys(("CronJob", "Job"), "batch/v1"),
    **dict.fromkeys(("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"), "rbac.authorization.k8s.io/v1"),
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "PodDisruptionBudget": "policy/v1",
    **dict.fromkeys(("Ingress", "NetworkPolicy"), "networking.k8s.io/v1"),
    **dict.fromkeys(("Gateway", "GRPCRoute", "HTTPRoute"), "gateway.networking.k8s.io/v1"),
    **dict.fromkeys(("PrometheusRule", "ServiceMonitor"), "monitoring.coreos.com/v1"),
    "InferenceService": "serving.kserve.io/v1beta1",
    "ServingRuntime": "serving.kserve.io/v1alpha1",
}
"""The apiVersion of each kind that Slipway writes or an overlay usually adds."""
_GROUPS = {version.rpartition("/")[0] for version in KINDS.values()}
_RELABELING = "action modulus regex replacement separator sourceLabels targetLabel"
FIELDS: Mapping[str, Mapping[str, str]] = {
    "ServiceMonitor": {
        "spec": "attachMetadata bodySizeLimit convertClassicHistogramsToNHCB endpoints fallbackScrapeProtocol jobLabel "
        "keepDroppedTargets labelLimit labelNameLengthLimit labelValueLengthLimit namespaceSelector "
        "nativeHistogramBucketLimit nativeHistogramMinBucketFactor podTargetLabels sampleLimit scrapeClass "
        "scrapeClassicHistograms scrapeNativeHistograms scrapeProtocols selector selectorMechanism "
        "serviceDiscoveryRole targetLabels targetLimit",
        "spec.endpoints": "authorization basicAuth bearerTokenFile bearerTokenSecret enableHttp2 filterRunning "
        "followRedirects honorLabels honorTimestamps interval metricRelabelings noProxy oauth2 params path port "
        "proxyConnectHeader proxyFromEnvironment proxyUrl relabelings scheme scrapeTimeout targetPort tlsConfig "
        "trackTimestampsStaleness",
        "spec.endpoints.relabelings": _RELABELING,
        "spec.endpoints.metricRelabelings": _RELABELING,
        "spec.selector": "matchExpressions matchLabels",
    },
    "PrometheusRule": {
        "spec": "groups",
        "spec.groups": "interval labels limit name partial_response_strategy query_offset rules",
        "spec.groups.rules": "alert annotations expr for keep_firing_for labels record",
    },
    "HTTPRoute": {
        "spec": "hostnames parentRefs rules",
        "spec.parentRefs": "group kind name namespace port sectionName",
        "spec.rules": "backendRefs filters matches name retry sessionPersistence timeouts",
        "spec.rules.backendRefs": "filters group kind name namespace port weight",
        "spec.rules.matches": "headers method path queryParams",
        "spec.rules.matches.path": "type value",
        "spec.rules.matches.headers": "name type value",
        "spec.rules.timeouts": "backendRequest request",
    },
}
"""Kind to the fields at each path, lists left out of the path."""


_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
"""A Duration of the Gateway API. Source: GEP-2257."""


def field_findings(objects: Objects) -> Iterator[Violation]:
    yield from _kinds(objects)
    yield from _times(objects)
    for one in objects.of(*FIELDS):
        for path, name in _unknown(one.spec, FIELDS[one.kind], "spec"):
            yield Violation("unknown-field", one.title, f"{path}.{name}: {one.kind} has no such field")


def _kinds(objects: Objects) -> Iterator[Violation]:
    for one in objects.all:
        group = one.api_version.rpartition("/")[0]
        if one.kind not in KINDS and "." in group and not group.endswith("k8s.io") and group not in _GROUPS:
            continue  # an operator's own, whose kinds nobody here knows
        if one.kind not in KINDS:
            known = ", ".join(sorted(KINDS))
            yield Violation("kind", one.title, f"unknown kind; correct it, or check the rest alone; known are {known}")
        elif one.api_version != KINDS[one.kind]:
            yield Violation("kind", one.title, f"apiVersion {one.api_version}; write {KINDS[one.kind]}")


class _Rule(ManifestPart):
    timeouts: dict[str, object] = Field(default={})


class _Timed(ManifestPart):
    rules: tuple[_Rule, ...] = ()


def _times(objects: Objects) -> Iterator[Violation]:
    for one in objects.of("HTTPRoute"):
        for name, text in (pair for rule in objects.read(one, _Timed).rules for pair in rule.timeouts.items()):
            if not _DURATION.fullmatch(str(text)):
                yield Violation("duration", one.title, f"timeouts.{name}: {text!r}; write whole numbers, as in 2s500ms")


def _unknown(node: object, fields: Mapping[str, str], path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, list):
        for value in node:
            yield from _unknown(value, fields, path)
    elif isinstance(node, Mapping) and path in fields:
        known = fields[path].split()
        for name, value in node.items():
            if name in known:
                yield from _unknown(value, fields, f"{path}.{name}")
            else:
                yield path, name
