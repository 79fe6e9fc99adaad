"""Envoy's records of each request: counts and latencies for Prometheus, and a log line if requested."""

from slipway.operations.gateway.routes import ARM_HEADER, Node
from slipway.operations.gateway.settings import TEAM_HEADER, GatewaySettings

METADATA = "slipway.gateway"
"""Namespace of what the guard says of a request: `checked`, and `model` if it asks for inference."""
SCOPE, LATENCY, ANSWERS = "slipway", "latency_us", "answers"
_MODEL, _ARM, _TEAM = f"%DYNAMIC_METADATA({METADATA}:model)%", f"%RESP({ARM_HEADER})%", f"%REQ({TEAM_HEADER})%"


def access_logs(settings: GatewaySettings) -> list[Node]:
    """Envoy's AccessLogs."""
    return [_metrics()] if settings.access_log is None else [_metrics(), _lines(settings.access_log)]


def _metrics() -> Node:
    """Latency and count of the requests for inference that passed the guard, failed ones included."""
    tags = {"model": _MODEL, "arm": _ARM}
    latency: Node = {
        "stat": _stat(LATENCY, tags),
        "unit": "Microseconds",
        "value_format": "%COMMON_DURATION(DS_RX_END:DS_TX_BEG:us)%",
    }
    answered = {"team": _TEAM, "code": "%RESPONSE_CODE%", "grpc": "%GRPC_STATUS%", "server": "%UPSTREAM_HOST%"}
    answers: Node = {"stat": _stat(ANSWERS, tags | answered), "value_fixed": 1}
    named: Node = {"filter": METADATA, "path": [{"key": "model"}], "value": {"present_match": True}}
    return {
        "name": "envoy.access_loggers.stats",
        "filter": {"metadata_filter": {"matcher": named, "match_if_key_not_found": False}},
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config",
            "stats_scope": {"prefix": SCOPE},
            "histograms": [latency],
            "counters": [answers],
        },
    }


def _stat(name: str, tags: dict[str, str]) -> Node:
    return {"name": name, "tags": [{"name": tag, "value_format": value} for tag, value in tags.items()]}


def _lines(path: str) -> Node:
    """One JSON line for each request, without the client's address and without the key."""
    fields: Node = {
        "time": "%START_TIME%",
        "team": _TEAM,
        "model": _MODEL,
        "arm": _ARM,
        "path": "%REQ(:path)%",
        "code": "%RESPONSE_CODE%",
        "grpc": "%GRPC_STATUS%",
        "why": "%RESPONSE_CODE_DETAILS%",
        "ms": "%DURATION%",
        "bytes": "%BYTES_RECEIVED%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": fields},
        },
    }
