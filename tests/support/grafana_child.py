"""Reads a dashboard by Grafana's own types; a process of its own, as its packages are not those of the tests."""

import json
import sys
from collections.abc import Iterator
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

SDK = "grafana_foundation_sdk"


def lost(given: Any, again: Any, at: str = "board") -> Iterator[str]:
    """What Grafana's types do not know: it is gone when they write what they have read."""
    if isinstance(given, dict) and isinstance(again, dict):
        for key, value in given.items():
            yield from lost(value, again[key], f"{at}.{key}") if key in again else [f"{at}.{key}: unknown"]
    elif isinstance(given, list) and isinstance(again, list) and len(given) == len(again):
        for place, (one, other) in enumerate(zip(given, again, strict=True)):
            yield from lost(one, other, f"{at}[{place}]")
    elif given != again:
        yield f"{at}: {given!r} is read as {again!r}"


def wrong(read: Any, at: str = "board") -> Iterator[str]:
    """Values of another type than the field's."""
    if isinstance(read, list):
        for place, one in enumerate(read):
            yield from wrong(one, f"{at}[{place}]")
    elif type(read).__module__.startswith(SDK):
        for name, hint in get_type_hints(type(read)).items():
            value = getattr(read, name)
            try:
                TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
            except ValidationError as error:
                yield f"{at}.{name}: {error}"
            yield from wrong(value, f"{at}.{name}")


def main() -> None:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder  # type: ignore[import-not-found,unused-ignore]
    from grafana_foundation_sdk.cog.plugins import (  # type: ignore[import-not-found,unused-ignore]
        register_default_plugins,
    )
    from grafana_foundation_sdk.models.dashboard import Dashboard  # type: ignore[import-not-found,unused-ignore]

    register_default_plugins()
    given = json.load(sys.stdin)
    read = Dashboard.from_json(given)
    print(json.dumps([*lost(given, json.loads(JSONEncoder().encode(read))), *wrong(read)]))


if __name__ == "__main__":
    main()
