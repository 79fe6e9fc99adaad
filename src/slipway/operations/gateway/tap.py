"""The filter that writes the requests which the guard has chosen, and their answers, into the spool of the journal."""

from slipway.operations.gateway.routes import Node
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.journal.settings import MOST_ANSWER_BYTES, SAMPLED_HEADER, TAP_PREFIX

_TYPES = "type.googleapis.com/envoy"
TAP_FILTER = "envoy.filters.http.tap"
PRIVATE_HEADERS = (
    *("authorization", "cookie", "proxy-authorization"),
    *("client-ip", "forwarded", "x-client-ip", "x-cluster-client-ip", "x-original-forwarded-for", "x-real-ip"),
    *("cf-connecting-ip", "cf-connecting-ipv6", "fastly-client-ip", "true-client-ip"),
)
"""Headers in which clients and the usual proxies write secrets, or the address of a client. The guard removes those of
Envoy itself from a tapped request."""


def private_filter() -> Node:
    """The filter that removes `PRIVATE_HEADERS` from every request: the tap after it writes all headers down."""
    removed: Node = [{"remove": name} for name in PRIVATE_HEADERS]
    return {
        "name": "envoy.filters.http.header_mutation",
        "typed_config": {
            "@type": f"{_TYPES}.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": removed},
        },
    }


def tap_filter(settings: GatewaySettings) -> Node:
    """The tap filter, which only requests with the header of the sample pass.

    Envoy's tap alone copies the body of every request, and looks at its end whether it was to be written.
    """
    skip: Node = {
        "name": "skip",
        "typed_config": {"@type": f"{_TYPES}.extensions.filters.common.matcher.action.v3.SkipFilter"},
    }
    header: Node = {
        "name": SAMPLED_HEADER,
        "typed_config": {
            "@type": f"{_TYPES}.type.matcher.v3.HttpRequestHeaderMatchInput",
            "header_name": SAMPLED_HEADER,
        },
    }
    chosen: Node = {"input": header, "value_match": {"safe_regex": {"google_re2": {}, "regex": ".+"}}}
    not_chosen: Node = {"not_matcher": {"single_predicate": chosen}}
    return {
        "name": TAP_FILTER,
        "typed_config": {
            "@type": f"{_TYPES}.extensions.common.matching.v3.ExtensionWithMatcher",
            "xds_matcher": {"matcher_list": {"matchers": [{"predicate": not_chosen, "on_match": {"action": skip}}]}},
            "extension_config": {"name": TAP_FILTER, "typed_config": _tap(settings)},
        },
    }


def _tap(settings: GatewaySettings) -> Node:
    chosen: Node = {"name": SAMPLED_HEADER, "present_match": True}
    matched: Node = {"http_request_headers_match": {"headers": [chosen]}}
    file: Node = {"path_prefix": str(settings.spool / TAP_PREFIX.rstrip("_"))}
    output: Node = {
        "max_buffered_rx_bytes": settings.max_request_bytes,
        "max_buffered_tx_bytes": MOST_ANSWER_BYTES,
        "sinks": [{"format": "PROTO_BINARY", "file_per_tap": file}],
    }
    return {
        "@type": f"{_TYPES}.extensions.filters.http.tap.v3.Tap",
        "common_config": {"static_config": {"match": matched, "output_config": output}},
        "record_headers_received_time": True,
    }
