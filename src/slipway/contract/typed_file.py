"""The base of every typed file: frozen, without unknown keys, and with errors that name the field and valid keys."""

import json
import reprlib
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from slipway.errors import SpecError
from slipway.system.targets import told
from slipway.system.yaml_json import read_plain

_SHORT = reprlib.Repr()  # a few kilobytes of YAML can expand to gigabytes
_SHORT.maxstring = _SHORT.maxother = 100
_LIST, _KEYS = "a list is needed, such as [a, b]", "keys with values are needed"
_NEEDED = {
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "dict_type": _KEYS,
    "mapping_type": _KEYS,
    "model_type": _KEYS,
    "string_type": "text is needed",
}
"""Plain words for the types that pydantic's errors name as Python does."""


class Contract(BaseModel):
    """A frozen pydantic model that is read from and written to JSON or YAML."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic alone would convert in silence: `"010"` to 10, `y` to true, `true` to 1."""
        wanted, items = _wanted(cls, str(info.field_name))
        if wanted == {bool} and isinstance(value, str | int | float) and not isinstance(value, bool):
            raise ValueError("write true or false, without quotes")
        if wanted <= {int, float} and isinstance(value, str | bool):
            raise ValueError("write a number, without quotes")
        listed = value if isinstance(value, list) and items and items <= {int, float} else []
        if any(isinstance(item, str | bool) for item in listed):
            raise ValueError("write numbers, without quotes")
        return value

    @classmethod
    def parse(cls, data: Any, *, source: str) -> Self:
        """Check `data` against the contract.

        Raises:
            SpecError: names `source` and, for every wrong field, the given value and the allowed ones.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise SpecError(_explain(error, model=cls, source=source)) from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a `.json`, `.yaml` or `.yml` file.

        Raises:
            SpecError: as `read_plain` and `parse`.
        """
        return cls.parse(read_plain(path), source=str(path))

    def to_json(self) -> str:
        """Canonical text: sorted keys, two-space indent, one trailing newline. Equal objects give equal bytes."""
        return json.dumps(self.plain(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    def plain(self) -> dict[str, Any]:
        """The object as plain JSON data."""
        return _plain(self.model_dump_json())

    def fields(self) -> dict[str, Any]:
        """The fields that were given, to build a larger model from."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    def write(self, path: Path) -> None:
        """Raises StorageError: the disk is full, or the path is not writable."""
        with told(path):
            path.write_text(self.to_json(), encoding="utf-8")


@cache
def _wanted(model: type[Contract], field: str) -> tuple[frozenset[Any], frozenset[Any]]:
    """The types that a field takes, but for None, and those of the items where it takes a list. Cached: a fleet of a
    thousand heads reads 200,000 fields."""
    annotation = model.model_fields[field].annotation
    taken = {annotation} if get_origin(annotation) is tuple else {*(get_args(annotation) or [annotation])}
    items = {item for kind in taken if get_origin(kind) is tuple for item in get_args(kind)} - {...}
    plain = {get_args(item)[0] if get_origin(item) is Annotated else item for item in items}
    return frozenset(taken - {NoneType}), frozenset(plain)


class Evidence(Contract):
    """A stage's measurements. A field that does not apply is not set, and is absent from the file."""

    def plain(self) -> dict[str, Any]:
        return _plain(self.model_dump_json(exclude_unset=True))


def _plain(text: str) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(text, parse_float=lambda text: float(text) + 0.0)  # -0.0 equals 0.0
    return plain


def _explain(error: ValidationError, *, model: type[BaseModel], source: str) -> str:
    lines = []
    for issue in error.errors():
        location = issue["loc"]
        field = ".".join(str(part) for part in location) or "(the whole file)"
        if issue["type"] == "extra_forbidden":
            allowed = ", ".join(sorted(_model_at(model, location[:-1]).model_fields))
            lines.append(f"{field}: unknown key; the valid keys here are {allowed}")
        elif issue["type"] == "missing":
            lines.append(f"{field}: required but not given")
        elif issue["type"] == "model_type" and issue["input"] is None:
            keys = ", ".join(sorted(_model_at(model, location).model_fields))
            lines.append(f"{field}: empty; write its keys: {keys}")
        elif issue["type"] in _NEEDED:
            given = issue["input"]
            quotes = issue["type"] == "string_type" and not isinstance(given, list | dict | None)
            needed = f"{_NEEDED[issue['type']]}{'; write it in quotes' if quotes else ''}"
            lines.append(f"{field}: {needed}; given {_SHORT.repr(given):.80}")
        else:
            said = issue["msg"].removeprefix("Value error, ")
            lines.append(f"{field}: {said}; given {_SHORT.repr(issue['input']):.80}")
    return f"{source}: " + "\n  ".join(lines)


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    """The nested contract at `location`, to list its valid keys."""
    for part in location:
        if not isinstance(part, str) or part not in model.model_fields:
            continue
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return model
