"""Checks objects against strict schemas; a process of its own, as its packages are not those of the tests."""

import importlib
import json
import sys
import types
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

KSERVE = "serving.kserve.io/"
CUSTOM = {
    "monitoring.coreos.com/v1": {"PrometheusRule", "ServiceMonitor"},
    "gateway.networking.k8s.io/v1": {"GRPCRoute", "HTTPRoute"},
}
"""Kinds of operators, which have no schema here."""


@cache
def _definitions(version: str) -> Any:
    from referencing import Registry, Resource  # type: ignore[import-not-found,unused-ignore]

    text = (_folder(version) / "_definitions.json").read_text()
    return Resource.from_contents(json.loads(text)) @ Registry()


def _folder(version: str) -> Path:
    root = Path(str(resources.files("kubernetes_validate"))) / "kubernetes-json-schema"
    return root / f"v{version}.0-local-strict"


@cache
def _validator(version: str, api_version: str, kind: str) -> Any:
    import jsonschema  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from referencing import Resource

    group, _, number = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], number) if part)
    file = _folder(version) / f"{name}.json"
    schema = json.loads(file.read_text()) if file.is_file() else {}
    # A file's name has the first word of the group alone, and no capitals.
    if {"group": group, "kind": kind, "version": number} not in schema.get("x-kubernetes-group-version-kind", ()):
        return None
    return jsonschema.validators.Draft202012Validator(
        schema, registry=Resource.from_contents(schema) @ _definitions(version)
    )


def _kubernetes(object_: Any, version: str) -> list[str]:
    if object_["kind"] in CUSTOM.get(object_["apiVersion"], ()):
        return []
    validator = _validator(version, object_["apiVersion"], object_["kind"])
    said = f"{version}: {_title(object_)}"
    if validator is None:
        return [f"{said}: no schema of {object_['apiVersion']} {object_['kind']}"]
    return [f"{said}: {'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(object_)]


def _title(object_: Any) -> str:
    return f"{object_['kind']}/{object_['metadata']['name']}"


def _of_kserve(object_: Any) -> list[str]:
    number = object_["apiVersion"].removeprefix(KSERVE)
    kind = f"{number.capitalize()}{object_['kind']}"
    if not hasattr(importlib.import_module("kserve.models"), kind):
        return [f"{_title(object_)}: KServe has no {object_['apiVersion']} {object_['kind']}"]
    return _kserve(object_, kind, object_["kind"])


def _kserve(data: Any, kind: str, at: str) -> list[str]:
    """Unknown fields and wrong types, by the types that KServe generates of its API."""
    if kind.startswith("list["):
        inner = kind[5:-1]
        return [fault for i, one in enumerate(data) for fault in _kserve(one, inner, f"{at}[{i}]")]
    if kind in ("str", "int", "bool"):
        wanted = {"str": str, "int": int, "bool": bool}[kind]
        return [] if isinstance(data, wanted) else [f"{at}: {data!r} is not of type {kind}"]
    model = getattr(importlib.import_module("kserve.models"), kind, None)
    if model is None:  # of Kubernetes itself, or free
        return []
    names = {json_name: name for name, json_name in model.attribute_map.items()}
    found = [f"{at}.{name}: not a field of {kind}" for name in data if name not in names]
    for name, value in data.items():
        if name in names:
            found += _kserve(value, model.openapi_types[names[name]], f"{at}.{name}")
    return found


def main() -> None:
    package = types.ModuleType("kserve")  # its own __init__ imports a server
    package.__path__ = [str(Path(path) / "kserve") for path in sys.path if (Path(path) / "kserve").is_dir()]
    sys.modules["kserve"] = package
    asked = json.load(sys.stdin)
    found: list[str] = []
    for object_ in asked["objects"]:
        if object_["apiVersion"].startswith(KSERVE):
            found += _of_kserve(object_)
        else:
            found += [fault for version in asked["versions"] for fault in _kubernetes(object_, version)]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
