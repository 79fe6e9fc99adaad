"""Compares one repository with another, so that a reload checks only what changed."""

from typing import TYPE_CHECKING, Any

from slipway.lint.heads import FOLDER, GROUP
from slipway.lint.models import CONFIG

if TYPE_CHECKING:
    from slipway.serving.contents import Contents


class Alike:
    """The steps and classifiers that are the same in two repositories, whose files were compared with their hashes."""

    def __init__(self, new: "Contents", old: "Contents") -> None:
        self._new, self._old = new, old
        self._steps: dict[str, bool] = {}
        self._heads: dict[tuple[str, str], set[str]] = {}

    def step(self, name: str) -> bool:
        if name not in self._steps:
            self._steps[name] = self._new.files(name) == self._old.files(name) != {}
        return self._steps[name]

    def classifier(self, name: str) -> bool:
        """Whether both ensembles and their steps are the same; of a group of heads, the part of this head."""
        bundles = {contents.lane.classifiers.get(name) for contents in (self._new, self._old)}
        return len(bundles) == 1 and self._ensemble(name, name) and self._ensemble(f"{name}_full", name)

    def _ensemble(self, ensemble: str, classifier: str) -> bool:
        new, old = self._new, self._old
        if not new.steps.get(ensemble) or not old.steps.get(ensemble):
            return False
        if new.files(ensemble) == old.files(ensemble):
            return all(map(self.step, new.steps[ensemble]))
        *first, group = new.steps[ensemble]
        *first_before, before = old.steps[ensemble]
        there = group.startswith(GROUP) and group in new.models and before in old.models
        if first != first_before or not all(map(self.step, first)) or not there:
            return False
        but_config = {f"{ensemble}/{CONFIG}": ""}
        if new.files(ensemble) | but_config != old.files(ensemble) | but_config:
            return False
        config = _copied(new.models[ensemble].config)
        config.ensemble_scheduling.step[-1].model_name = before
        return bool(config == old.models[ensemble].config) and classifier in self._same_heads(group, before)

    def _same_heads(self, group: str, before: str) -> set[str]:
        """The heads that are the same in two steps; none if the steps differ in anything but heads."""
        if (group, before) not in self._heads:
            new, old = _by_head(self._new, group), _by_head(self._old, before)
            same = {head for head in new.keys() & old.keys() if new[head] == old[head]}
            self._heads[group, before] = same if "" in same else set()
        return self._heads[group, before]


def _by_head(contents: "Contents", group: str) -> dict[str, list[object]]:
    """Outputs and hashes of the files of each head; with the key "", all else of the step but its name."""
    rest = _copied(contents.models[group].config)
    rest.ClearField("name")
    rest.ClearField("output")
    found: dict[str, list[object]] = {"": [rest]}
    for output in contents.models[group].config.output:
        found.setdefault(output.name.rpartition(".")[0], []).append(output)
    for path, sha256 in contents.files(group).items():
        _, *inside = path.split("/")
        if inside != [CONFIG]:
            of_head = inside[1:2] == [FOLDER] and len(inside) > 2
            found.setdefault(inside[2] if of_head else "", []).append((inside, sha256))
    return found


def _copied(config: Any) -> Any:
    copy = type(config)()
    copy.CopyFrom(config)
    return copy
