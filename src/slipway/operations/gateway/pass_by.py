"""Filters that only some requests enter."""

from slipway.operations.gateway.routes import Node

_TYPES = "type.googleapis.com"
_SKIP: Node = {
    "name": "skip",
    "typed_config": {"@type": f"{_TYPES}/envoy.extensions.filters.common.matcher.action.v3.SkipFilter"},
}


def where(header: str, value: Node) -> Node:
    """The predicate of a request whose header has this value, an Envoy StringMatcher."""
    has: Node = {"@type": f"{_TYPES}/envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": header}
    return {"single_predicate": {"input": {"name": header, "typed_config": has}, "value_match": value}}


def passed_by(predicate: Node, name: str, config: Node) -> Node:
    """The filter `name`, which requests that meet the predicate do not enter, nor do their answers."""
    return {
        "name": name,
        "typed_config": {
            "@type": f"{_TYPES}/envoy.extensions.common.matching.v3.ExtensionWithMatcher",
            "xds_matcher": {"matcher_list": {"matchers": [{"predicate": predicate, "on_match": {"action": _SKIP}}]}},
            "extension_config": {"name": name, "typed_config": config},
        },
    }
