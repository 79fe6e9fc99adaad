"""Reads literal values and the full names of called functions from Python source, without running it."""

import ast
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any


class _Unknown:
    def __repr__(self) -> str:
        return "a value that is only known when the code runs"


UNKNOWN: Any = _Unknown()
_DEPTH = 20
"""Largest number of names that refer to each other, or are joined by points; more is a circle, or not ours."""


@lru_cache(maxsize=64)
def walked(tree: ast.Module) -> tuple[ast.AST, ...]:
    """Every node of a tree; cached, since each check looks for nodes of its own in the trees that `parse` keeps."""
    return tuple(ast.walk(tree))


class Literals:
    """The constants of one file: literal, at the top of the module, or in a JSON file beside it.

    A dotted name such as `types.FLOAT` gives its last word, `"FLOAT"`.
    """

    def __init__(self, tree: ast.Module, folder: Path) -> None:
        self.folder = folder
        self.imported = dict(_imported(tree))
        self.names = {
            node.targets[0].id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        }

    def value(self, node: ast.AST, depth: int = 0) -> Any:
        """The value of `node`, or UNKNOWN."""

        def inner(node: ast.AST) -> Any:
            return UNKNOWN if depth > _DEPTH else self.value(node, depth + 1)

        value: Any = UNKNOWN
        match node:
            case ast.Constant(value):
                pass
            case ast.List(elements) | ast.Tuple(elements):
                value = [inner(element) for element in elements]
            case ast.Attribute(attr=word):
                value = word
            case ast.Name(id=name) if name in self.names:
                value = inner(self.names[name])
            case ast.Subscript(value=whole, slice=key):
                value = _part(inner(whole), inner(key))
            case ast.IfExp(test=ast.Compare(left, [ast.Eq() | ast.Is()], [right]), body=then, orelse=otherwise):
                sides = inner(left), inner(right)
                value = UNKNOWN if UNKNOWN in sides else inner(then if sides[0] == sides[1] else otherwise)
            case ast.Call(func=ast.Attribute(attr="loads"), args=[read]):
                value = self._json(read)
        return value

    def dotted(self, node: ast.AST, depth: int = 0) -> str:
        """The full name of `node`, such as `nvidia.dali.fn.decoders.image`, whatever this file imports or calls it as;
        empty if it is not a name."""
        match node:
            case ast.Attribute(value=whole, attr=word) if depth < _DEPTH:
                return f"{self.dotted(whole, depth + 1)}.{word}"
            case ast.Name(id=name) if name in self.imported:
                return self.imported[name]
            case ast.Name(id=name) if name in self.names and depth < _DEPTH:
                return self.dotted(self.names[name], depth + 1)
            case ast.Name(id=name):
                return name
        return ""

    def _json(self, read: ast.AST) -> Any:
        """The value of `json.loads((HERE / "sizes.json").read_text())`."""
        names = [
            node.value for node in ast.walk(read) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        files = [name for name in names if name.endswith(".json") and Path(name).name == name]
        try:
            return json.loads((self.folder / files[0]).read_text(encoding="utf-8")) if files else UNKNOWN
        except (OSError, ValueError, RecursionError):
            return UNKNOWN


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each name that the file imports under a name of its own, with the full name."""
    for node in walked(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname, alias.name) for alias in node.names if alias.asname)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _part(whole: Any, key: Any) -> Any:
    try:
        return UNKNOWN if whole is UNKNOWN else whole[key]
    except (TypeError, KeyError, IndexError):
        return UNKNOWN
