"""Writes chosen settings into a fleet file: only keys in one classifier's `serving` change, all other text stays."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from slipway.errors import SpecError
from slipway.system.yaml_json import parse_yaml

Edit = tuple[int, int, str]
"""Replacement of characters: start, end, new text."""


def with_serving(text: str, name: str, changes: Mapping[str, Any]) -> str:
    """Return the text of a fleet file with `changes` in the `serving` of classifier `name`, comments kept.

    A value that is a mapping, such as that of `gpu`, changes the keys in it.

    Raises:
        SpecError: the change would hit an anchor or a merge key; the message says what to write by hand.
    """
    classifier = _value(_value(yaml.compose(text, Loader=yaml.SafeLoader), "classifiers"), name)
    serving = _value(classifier, "serving")
    edits = _edits(serving, changes) if serving else _edits(classifier, {"serving": _flow(changes)})
    edited = text
    for start, end, new in sorted(edits, reverse=True):
        edited = edited[:start] + new + edited[end:]
    before = parse_yaml(text, source="the fleet file")
    entry = before["classifiers"][name]
    entry = {**entry, "serving": _merged(entry.get("serving", {}), changes)}
    expected = {**before, "classifiers": {**before["classifiers"], name: entry}}
    if not _reads_as(edited, expected):
        raise SpecError(
            f"classifiers.{name}: uses an anchor or a merge key, so other classifiers would change as well; write by "
            f"hand: serving: {_flow(changes)}"
        )
    return edited


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; a link stays a link, and the file keeps its permissions."""
    target = path.resolve()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", dir=target.parent, delete=False) as part:
        try:
            part.write(text)
            part.flush()
            if target.exists():
                shutil.copymode(target, part.name)
            else:
                os.chmod(part.name, 0o644)
            os.replace(part.name, target)
        except BaseException:
            os.unlink(part.name)
            raise


def _value(mapping: Any, key: str) -> Any:
    """Return the node of a key; None where the key or the mapping is missing."""
    pairs = mapping.value if isinstance(mapping, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)


def _edits(mapping: Any, changes: Mapping[str, Any]) -> list[Edit]:
    if not isinstance(mapping, yaml.MappingNode) or not mapping.value:  # an alias, or `{}`
        return [(mapping.start_mark.index, mapping.end_mark.index, _flow(changes))]
    edits = []
    first = mapping.value[0][0].start_mark
    separator = ", " if mapping.flow_style else "\n" + " " * first.column
    for key, value in changes.items():
        node = _value(mapping, key)
        if node is None:
            edits.append((first.index, first.index, f"{key}: {_plain(value)}{separator}"))
        elif isinstance(value, Mapping):
            edits += _edits(node, value)
        else:
            edits.append((node.start_mark.index, node.end_mark.index, str(value)))
    return edits


def _merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    inner = {key: _merged(before.get(key, {}), value) for key, value in changes.items() if isinstance(value, Mapping)}
    return {**before, **changes, **inner}


def _plain(value: Any) -> str:
    return _flow(value) if isinstance(value, Mapping) else str(value)


def _flow(changes: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {_plain(value)}" for key, value in changes.items()) + "}"


def _reads_as(text: str, expected: Any) -> bool:
    try:
        return bool(parse_yaml(text, source="the fleet file") == expected)
    except SpecError:
        return False
