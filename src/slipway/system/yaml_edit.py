"""Changes single values of a YAML text, and leaves comments, order and layout as they are."""

from collections.abc import Sequence
from typing import Any

import yaml

from slipway.errors import SpecError
from slipway.system.yaml_json import dump_yaml, parse_yaml


def with_value(text: str, path: Sequence[str], value: str, *, source: str) -> str | None:
    """The text with another text at `path`; None if it cannot be replaced alone, as where an alias stands there.

    Raises:
        SpecError: the text is not YAML that is read.
    """
    before: Any = parse_yaml(text, source=source)
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    for key in path:
        node = _below(node, key)
    if not isinstance(node, yaml.ScalarNode):
        return None
    changed = text[: node.start_mark.index] + _quoted(value) + text[node.end_mark.index :]
    return changed if _means(changed, _replaced(before, path, value), source=source) else None


def with_block(text: str, block: dict[str, Any], *, source: str) -> str | None:
    """The text with new keys of the whole at its end; None if one is there, or the text takes no block.

    Raises:
        SpecError: the text is not YAML that is read.
    """
    before: Any = parse_yaml(text, source=source)
    if not isinstance(before, dict) or before.keys() & block.keys():
        return None
    changed = f"{text.rstrip()}\n{dump_yaml(block)}"
    return changed if _means(changed, before | block, source=source) else None


def _means(text: str, wanted: object, *, source: str) -> bool:
    try:
        return bool(parse_yaml(text, source=source) == wanted)
    except SpecError:  # an anchor was lost, or a file that is one {...} has a block after it
        return False


def _below(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _quoted(value: str) -> str:
    """A text as YAML writes it within a line, also within braces."""
    plain = dump_yaml([value]).removeprefix("- ").rstrip("\n")
    return f"'{value}'" if any(character in value for character in ",[]{}") and plain == value else plain


def _replaced(data: Any, path: Sequence[str], value: str) -> Any:
    if not path:
        return value
    return {**data, path[0]: _replaced(data[path[0]], path[1:], value)}
