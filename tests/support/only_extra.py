"""Leaves this process only the packages that `pip install slipway[EXTRA]` brings: `only(extra)`, then import."""

import sys
import tomllib
from collections.abc import Iterable, Set
from importlib.abc import MetaPathFinder
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).parents[2]
INSTALLED = {canonicalize_name(found.name): found for found in distributions()}


def only(extra: str) -> None:
    """Let the modules of every other installed package be missing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    brought = _closure([*project["dependencies"], *project["optional-dependencies"][extra]])
    brought.add(canonicalize_name(project["name"]))
    hidden = {module for name in INSTALLED.keys() - brought for module in _modules(INSTALLED[name])}
    kept = {module for name in brought for module in _modules(INSTALLED[name])}
    sys.meta_path[:] = [_Without(finder, hidden - kept) for finder in sys.meta_path]


def _closure(lines: Iterable[str]) -> set[NormalizedName]:
    """Return the names of the packages that the requirements bring."""
    seen: set[tuple[NormalizedName, str]] = set()
    left = [Requirement(line) for line in lines]
    while left:
        needed = left.pop()
        name = canonicalize_name(needed.name)
        if name not in INSTALLED:  # the lock leaves out what a package requires and we do not use
            continue
        for extra in {"", *needed.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                further = map(Requirement, INSTALLED[name].requires or ())
                left += [each for each in further if each.marker is None or each.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def _modules(package: Distribution) -> set[str]:
    """Return the names that the package can be imported by: `nvidia.dali`, since `nvidia` belongs to many."""
    files = {Path(file) for file in package.files or () if file.suffix in (".py", ".so")}
    names = set()
    for file in files:
        top = file.parts[0]
        if len(file.parts) == 1:
            names.add(top.partition(".")[0])
        elif Path(top, "__init__.py") in files or len(file.parts) == 2:
            names.add(top)
        else:
            names.add(f"{top}.{file.parts[1]}")
    return names


class _Without(MetaPathFinder):
    """A finder of modules that does not find some."""

    def __init__(self, finder: Any, hidden: Set[str]) -> None:
        self.finder, self.hidden = finder, hidden

    def find_spec(self, fullname: str, *rest: Any) -> Any:
        return None if fullname in self.hidden else self.finder.find_spec(fullname, *rest)
