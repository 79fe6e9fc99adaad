"""Reads every YAML and JSON file that users write: drops nothing, and refuses ambiguous values.

YAML follows the core schema of YAML 1.2. Values that YAML 1.1, and so PyYAML, silently reads differently (`yes`, `010`,
`1:30`) are errors that say how to write them.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from slipway.errors import SpecError

MAX_YAML_BYTES = 1 << 20
MAX_VALUES = 100_000
"""Largest number of keys and values of a YAML file, with aliases expanded."""
MAX_DEPTH = 100
"""Largest number of levels of a YAML file."""
_TAGS = "tag:yaml.org,2002:"
_CORE = {
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "null": r"~|null|Null|NULL|",
    "merge": "<<",
}
_AS_TEXT = "put it in quotes if it is text"
_AMBIGUOUS = {
    r"[-+]?0[0-9]+": f"octal in YAML 1.1 and decimal in YAML 1.2; leave out the leading zero, or {_AS_TEXT}",
    r"[-+]?0(?:o[0-7]+|b[01_]+)|[-+]0x[0-9a-fA-F]+": (
        f"a number in one version of YAML and text in another; write it in decimal, or {_AS_TEXT}"
    ),
    r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?": (
        f"in base 60 in YAML 1.1 and text in YAML 1.2; write the number in decimal, or {_AS_TEXT}"
    ),
    r"(?=.*_)[-+]?(?:0x[0-9a-fA-F_]+|\.?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+][0-9]+)?)": (
        f"a number in YAML 1.1 and text in YAML 1.2; leave out the _, or {_AS_TEXT}"
    ),
    r"yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF": (
        f"true or false in YAML 1.1 and text in YAML 1.2; write true or false, or {_AS_TEXT}"
    ),
}


class _Loader(yaml.SafeLoader):
    """SafeLoader with the core schema, and merge keys."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  SafeLoader's are those of YAML 1.1


class _Composer(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml need not be there
    """A composer ten times as fast as `_Loader`, for text that `_Loader` has parsed: its errors name other things."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes text which YAML 1.1 or 1.2 would read as another type."""


for _name, _pattern in _CORE.items():
    _Loader.add_implicit_resolver(f"{_TAGS}{_name}", re.compile(f"(?:{_pattern})\\Z"), None)
for _pattern in (_CORE["float"], *_AMBIGUOUS):
    _Dumper.add_implicit_resolver(f"{_TAGS}float", re.compile(f"(?:{_pattern})\\Z"), None)


def read_plain(path: Path) -> Any:
    """The content of a `.json` file, or of a YAML file, as plain data.

    Raises:
        SpecError: the file cannot be read, is invalid, repeats a key, or has an ambiguous value.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors of Windows write a byte order mark
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 text ({error}); save it in UTF-8") from None
    return parse_json(text, source=str(path)) if path.suffix == ".json" else parse_yaml(text, source=str(path))


def parse_json(text: str, *, source: str) -> Any:
    """Parse JSON; raises SpecError if it is invalid or repeats a key of an object."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except _TwiceError as error:
        with suppress(yaml.YAMLError):  # JSON is YAML, whose nodes know their lines
            _check_nodes(yaml.compose(text, Loader=_Loader), source, most=len(text))
        raise SpecError(f"{source}: {error.args[0]!r} is there twice; remove one") from None
    except RecursionError:
        raise SpecError(f"{source}: too many levels of objects and arrays; write fewer") from None
    except ValueError as error:
        raise SpecError(f"{source}: not valid JSON: {error}") from None


def parse_yaml(text: str, *, source: str) -> Any:
    """Parse YAML.

    Raises:
        SpecError: it is invalid, too large or too deep, or has several documents, a tag, a repeated key or an ambiguous
            value.
    """
    if (size := len(text.encode(errors="surrogatepass"))) > MAX_YAML_BYTES:
        raise SpecError(f"{source}: {size} bytes; at most {MAX_YAML_BYTES} are read: write a shorter file")
    try:
        _check_events(text, source)
        composer = _Composer(text)
        root = composer.get_single_node()
        _check_nodes(root, source, most=MAX_VALUES)
        return composer.construct_document(root) if root is not None else None
    except (ValueError, yaml.YAMLError) as error:  # ValueError: a number or date
        raise SpecError(f"{source}: not valid YAML: {error}{_remedy(str(error))}") from None


def dump_yaml(data: Any) -> str:
    """`data` as YAML that `parse_yaml` reads back unchanged; keys keep their order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Several lines as such, where YAML can: a program in a configuration is to be read."""
    return dumper.represent_scalar(f"{_TAGS}str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


class _TwiceError(Exception):
    """A key is repeated in a JSON object."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return found


def _check_events(text: str, source: str) -> None:
    """Refuse tags, which convert values past every other check, and nesting that is too deep to read."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = _line(event)
        if tag := getattr(event, "tag", None):
            raise SpecError(
                f"{source}: line {line}: the tag {tag.replace(_TAGS, '!!')} is not read; remove it, and write the "
                "value as it is meant: 10, true, or in quotes if it is text"
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise SpecError(f"{source}: line {line}: more than {MAX_DEPTH} levels; write fewer")


def _check_nodes(root: yaml.Node | None, source: str, *, most: int) -> None:
    """Refuse repeated keys, ambiguous plain values, and aliases that expand to too many values."""
    unseen, values = [root] if root else [], 0
    while unseen:
        node = unseen.pop()
        values += 1
        if values > most:
            raise SpecError(
                f"{source}: more than {most} keys and values, aliases expanded; write fewer, and repeat fewer by "
                "aliases (*name)"
            )
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, source)
            unseen += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            unseen += node.value
        elif isinstance(node, yaml.ScalarNode) and not node.style and (reason := _ambiguous(node.value)):
            raise SpecError(f"{source}: line {_line(node)}: {node.value} is {reason}")


def _check_keys(mapping: yaml.MappingNode, source: str) -> None:
    lines: dict[str, int] = {}
    for key, _ in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        if key.value in lines:
            raise SpecError(
                f"{source}: {key.value!r} is there twice, in line {lines[key.value]} and line {_line(key)}; remove one"
            )
        lines[key.value] = _line(key)


def _ambiguous(value: str) -> str | None:
    return next((reason for pattern, reason in _AMBIGUOUS.items() if re.fullmatch(pattern, value)), None)


def _line(part: yaml.Node | yaml.Event) -> int:
    assert part.start_mark is not None
    return int(part.start_mark.line) + 1


def _remedy(message: str) -> str:
    """The remedy, for messages of PyYAML that lack one."""
    remedies: Iterator[str] = (
        remedy
        for sign, remedy in (
            ("'\\t'", "\nindent with spaces, not with tabs"),
            ("another document", "\nwrite one document; remove the second line of three dashes"),
        )
        if sign in message
    )
    return next(remedies, "")
