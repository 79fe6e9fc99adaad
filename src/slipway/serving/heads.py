"""Asks for a thousand heads at once: a group's step says which heads it has, and one ensemble speaks for the others."""

from collections.abc import Collection, Iterable

from slipway.lint.heads import GROUP, heads_of
from slipway.serving.contents import Contents
from slipway.serving.control import Control


def left_out(control: Control, contents: Contents, steps: Iterable[str]) -> dict[str, str]:
    """The heads that loaded steps do not answer for as lane.json says, each with the reason."""
    problems: dict[str, str] = {}
    for step in steps:
        model, named = contents.models[step], contents.lane.classifiers
        bundles = {head: named[head] for head in heads_of(model) if head in named}
        if bundles:
            (size,) = model.inputs["embedding_nd"].dims
            problems |= control.probe_heads(step, bundles, embedding_size=size)
    return problems


def spokesmen(contents: Contents, names: Iterable[str], *, without: Collection[str]) -> list[str]:
    """Return the ensembles of `names` to ask once they are loaded: all of them, but only one `<name>` and one
    `<name>_full` of a group's heads, since they run the same steps. `without` are heads that were left out."""
    chosen: dict[object, str] = {}
    for name in names:
        steps, classifiers = contents.steps[name], contents.lane.ensembles[name]
        if not any(classifier in without for classifier in classifiers):
            alike = steps[-1].startswith(GROUP) and name not in contents.lane.multi
            chosen.setdefault((steps, name.endswith("_full")) if alike else name, name)
    return list(chosen.values())
