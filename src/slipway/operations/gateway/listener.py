"""The listener: TLS, and the filters that a request passes before it is routed."""

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path

from slipway.contract import Lane, SpecError
from slipway.contract.lane import FILE_NAME as LANE
from slipway.operations.gateway.access_logs import METADATA, access_logs
from slipway.operations.gateway.placement import HERE, Mounted, Placement
from slipway.operations.gateway.routes import ROUTES, Node, file_source, watched
from slipway.operations.gateway.settings import KEY_HEADER, TEAM_HEADER, GatewaySettings, Tls
from slipway.operations.gateway.tap import private_filter, tap_filter

LISTENER = "slipway"
CERTIFICATE, KEYS = "gateway", "keys.yaml"
"""Name of the certificate where Envoy reads it from a file, and the file of the keys there."""
KEY_FILTER = "api_key_auth"
HTTP_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
MOST_STREAMS = 100
"""Requests at once on one connection: each is held whole."""
LONGEST_ID_BYTES, LONGEST_DESCRIPTION_BYTES, MOST_BRACKETS = 256, 4096, 400
LONGEST_VERSION_DIGITS = 19
"""Digits of the largest version, 2^63 - 1."""
MOST_FIELDS, LONGEST_DESCRIPTIONS_BYTES = 10_000, 2**20
"""Most fields of a gRPC message, and bytes of all its descriptions. The guard reads the fields one by one, and
tritonserver makes an object of each, and of each part of a description: 33 MiB hold 17 million."""


def public_models(lane: Lane) -> tuple[str, ...]:
    """The models that clients may ask: the ensembles of a repository, not its steps.

    Raises:
        SpecError: a name is not one that the assembler gives; names become text of the guard.
    """
    for name in lane.ensembles:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,127}", name):
            raise SpecError(f"{LANE}: {name!r} is not the name of a classifier; assemble the repository again")
    return tuple(sorted(lane.ensembles))


def listener(
    settings: GatewaySettings,
    keys: Mapping[str, str],
    models: Iterable[str],
    *,
    routes: "Node | None" = None,
    placement: Placement = HERE,
) -> Mapping[str, Node]:
    """Envoy's Listener for gRPC and HTTP, with `routes` in it, or else with those of the watched file.

    Args:
        keys: the team of each key.
    """
    host, port = settings.host_port
    mounted = placement.mounted
    filters = _filters(settings, _key_filter(keys) if mounted is None else _mounted_key_filter(mounted), models)
    chain: dict[str, Node] = {"filters": [_connection_manager(settings, filters, routes, mounted)]}
    if settings.tls is not None:
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                    **_certificate(settings.tls, mounted),
                },
            },
        }
    return {
        "name": LISTENER,
        "address": {"socket_address": {"address": host, "port_value": port}},
        # Envoy neither copies nor repeats a request that is larger (its counter `retry_or_shadow_abandoned`).
        "per_connection_buffer_limit_bytes": settings.max_request_bytes,
        "filter_chains": [chain],
    }


def _certificate(tls: Tls, mounted: Mounted | None) -> Mapping[str, Node]:
    if mounted is not None:
        return {
            "tls_certificate_sds_secret_configs": [
                {"name": CERTIFICATE, "sds_config": file_source(mounted.certificate, mounted.certificate.parent)}
            ]
        }
    return {
        "tls_certificates": [
            {
                # Not by name: Envoy would go on with the old ones when they are renewed.
                "certificate_chain": {"inline_string": Path(tls.certificate).read_text("utf-8")},
                "private_key": {"inline_string": Path(tls.key).read_text("utf-8")},
            }
        ]
    }


def _connection_manager(
    settings: GatewaySettings, filters: list[Node], routes: "Node | None", mounted: Mounted | None
) -> Node:
    kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    manager: dict[str, Node] = {
        "@type": kind,
        "stat_prefix": "gateway",
        "codec_type": "AUTO",
        "use_remote_address": True,  # what a client writes into x-forwarded-for and x-envoy-… counts for nothing
        "skip_xff_append": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "max_request_headers_kb": 16,
        "http2_protocol_options": {"max_concurrent_streams": MOST_STREAMS},
        "request_headers_timeout": "10s",
        "request_timeout": "60s",  # for the whole request to arrive: a slow sender holds memory
        "stream_idle_timeout": "60s",
        "server_header_transformation": "PASS_THROUGH",
        "http_filters": filters,
        "local_reply_config": {"mappers": _replies(settings)},
        "access_log": access_logs(settings),
    }
    if routes is None:
        source = watched(settings.folder, ROUTES)
        if mounted is not None:
            source = file_source(mounted.routes / f"{ROUTES}.yaml", mounted.routes)
        manager["rds"] = {"route_config_name": ROUTES, "config_source": source}
    else:
        manager["route_config"] = routes
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def _sentences(settings: GatewaySettings) -> Iterator[tuple[int, list[str], str]]:
    """Yield the status, the teams (none: all) and the sentence of each of Envoy's own refusals."""
    yield 401, [], f"the header {KEY_HEADER} does not hold a team's key"
    most = settings.max_request_bytes
    yield 413, [], f"the request is larger than {most:,} bytes (max_request_bytes of the gateway); send smaller images"
    rates: dict[tuple[int, int], list[str]] = {}
    for name, team in settings.teams.items():
        rates.setdefault((team.per_second, team.burst or team.per_second), []).append(name)
    for (per_second, burst), teams in rates.items():
        rate = f"{per_second:,} requests a second, and {burst:,} at once"
        yield 429, teams, f"the team is over its rate, {rate}; send fewer, or have its rate raised"
    yield 503, [], "the gateway reaches no server that is ready"


def _replies(settings: GatewaySettings) -> list[Node]:
    """Return the sentences of Envoy's own answers; over HTTP in the JSON of Triton's errors."""
    answer: Node = {"error": "%LOCAL_REPLY_BODY%", "why": "%RESPONSE_CODE_DETAILS%"}
    as_json: Node = {"json_format": answer, "content_type": "application/json"}
    not_grpc: Node = {
        "header": {
            "name": "content-type",
            "string_match": {"prefix": "application/grpc"},
            "invert_match": True,
            "treat_missing_header_as_empty": True,
        }
    }
    http: Node = {"header_filter": not_grpc}
    found: list[Node] = []
    for code, teams, said in _sentences(settings):
        compared: Node = {"op": "EQ", "value": {"default_value": code, "runtime_key": f"slipway.{code}"}}
        coded: Node = {"status_code_filter": {"comparison": compared}}
        these = _all_of(coded, _any_of(*map(_of_team, teams))) if teams else coded
        body: Node = {"inline_string": said}
        found.append({"filter": _all_of(these, http), "body": body, "body_format_override": as_json})
        found.append({"filter": these, "body": body})
    return [*found, {"filter": http, "body_format_override": as_json}]


def _of_team(name: str) -> Node:
    return {"header_filter": {"header": {"name": TEAM_HEADER, "string_match": {"exact": name}}}}


def _all_of(*filters: Node) -> Node:
    return {"and_filter": {"filters": filters}}


def _any_of(*filters: Node) -> Node:
    return {"or_filter": {"filters": filters}} if len(filters) > 1 else filters[0]  # Envoy wants two at least


def _key_filter(keys: Mapping[str, str]) -> Node:
    """The filter that turns a key into its team."""
    credentials: Node = [{"client": team, "key": key} for key, team in keys.items()]
    return _filter(
        KEY_FILTER,
        "ApiKeyAuth",
        {
            "credentials": credentials,
            "key_sources": [{"header": KEY_HEADER}],
            "forwarding": {"header": TEAM_HEADER, "hide_credentials": True},
        },
    )


def _mounted_key_filter(mounted: Mounted) -> Node:
    """Return the key filter whose configuration Envoy reads from `keys.yaml`; until then every request is refused."""
    return {
        "name": f"envoy.filters.http.{KEY_FILTER}",
        "config_discovery": {
            "config_source": file_source(mounted.keys / KEYS, mounted.keys),
            "type_urls": [f"{HTTP_FILTERS}.{KEY_FILTER}.v3.ApiKeyAuth"],
        },
    }


def key_resource(keys: Mapping[str, str]) -> Node:
    """The content of `keys.yaml`."""
    kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
    written = _key_filter(keys)
    assert isinstance(written, Mapping)
    return {"resources": [{"@type": kind, **written}]}


def certificate_resource(certificate: Path, key: Path) -> Node:
    """The content of the file that names certificate and private key. Envoy reads them again when they are renewed."""
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    files: Node = {
        "certificate_chain": {"filename": str(certificate)},
        "private_key": {"filename": str(key)},
        "watched_directory": {"path": str(certificate.parent)},
    }
    return {"resources": [{"@type": kind, "name": CERTIFICATE, "tls_certificate": files}]}


def _filters(settings: GatewaySettings, keys: Node, models: Iterable[str]) -> list[Node]:
    """A key, the size, the key's rate, the guard, what the guard says, and the way on."""
    return [
        keys,
        _filter("buffer", "Buffer", {"max_request_bytes": settings.max_request_bytes}),
        # After the body is there: an answer before would close the connection, and a new one costs more than the body.
        _filter("local_ratelimit", "LocalRateLimit", _rates(settings)),
        _filter("lua", "Lua", {"default_source_code": {"inline_string": guard(settings, models)}}),
        _filter("rbac", "RBAC", _only_checked()),
        *([private_filter(), tap_filter(settings)] if settings.observe else []),
        _filter("router", "Router", {}),
    ]


def _filter(name: str, kind: str, config: Mapping[str, Node]) -> Node:
    full = f"envoy.filters.http.{name}"
    return {"name": full, "typed_config": {"@type": f"{HTTP_FILTERS}.{name}.v3.{kind}", **config}}


def _rates(settings: GatewaySettings) -> Mapping[str, Node]:
    def bucket(per_second: int, burst: int | None) -> Node:
        return {"max_tokens": burst or per_second, "tokens_per_fill": per_second, "fill_interval": "1s"}

    always: Node = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    total = sum(max(team.per_second, team.burst or 0) for team in settings.teams.values())
    descriptors: Node = [
        {"entries": [{"key": "team", "value": name}], "token_bucket": bucket(team.per_second, team.burst)}
        for name, team in settings.teams.items()
    ]
    return {
        "stat_prefix": "rate",
        "token_bucket": bucket(total, None),
        "filter_enabled": always,
        "filter_enforced": always,
        "rate_limited_as_resource_exhausted": True,
        "always_consume_default_token_bucket": False,
        "descriptors": descriptors,
        "rate_limits": [
            {"actions": [{"request_headers": {"header_name": TEAM_HEADER, "descriptor_key": "team"}}]},
        ],
        "response_headers_to_add": [{"header": {"key": "retry-after", "value": "1"}}],
    }


def _only_checked() -> Mapping[str, Node]:
    checked: Node = {"filter": METADATA, "path": [{"key": "checked"}], "value": {"string_match": {"exact": "passed"}}}
    where: Node = {"metadata_matcher": checked, "metadata_source": "DYNAMIC"}
    policy: Node = {"permissions": [{"sourced_metadata": where}], "principals": [{"any": True}]}
    return {"rules": {"action": "ALLOW", "policies": {"checked": policy}}}


def guard(settings: GatewaySettings, models: Iterable[str]) -> str:
    """The text of the guard for these models."""
    limits = {
        "deadline_s": settings.min_deadline_s,
        "id_bytes": LONGEST_ID_BYTES,
        "version_digits": LONGEST_VERSION_DIGITS,
        "described_bytes": LONGEST_DESCRIPTION_BYTES,
        "all_described_bytes": LONGEST_DESCRIPTIONS_BYTES,
        "fields": MOST_FIELDS,
        "brackets": MOST_BRACKETS,
    }
    if settings.observe is not None:  # each worker runs its own guard, and sees its part of the requests
        limits |= {"share": settings.observe.share, "per_second": settings.observe.per_second / settings.workers}
    lines = [f"local LIMITS = {{{', '.join(f'{name} = {value:.9g}' for name, value in limits.items())}}}"]
    lines += ["local PUBLIC = {}", f'for name in ("{" ".join(models)}"):gmatch("%S+") do PUBLIC[name] = true end']
    return "\n".join([*lines, resources.files(__package__).joinpath("guard.lua").read_text(encoding="utf-8")])
