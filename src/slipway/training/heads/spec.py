"""Reads the spec of a head: an ordinary one, which takes from its base what belongs to that."""

from pathlib import Path
from typing import Any

from slipway.contract import Spec, SpecError
from slipway.contract.base_bundle import Base
from slipway.contract.recipe import Recipe
from slipway.system.yaml_json import read_plain

OF_NETWORK = ("compute", "tracking", "sensitive_layers", "tensorrt")
"""Fields of a spec about training or compiling a network, of which a head has none."""
RECIPE = ("head", "loss", "balance", "seed")
"""Fields of a recipe that a head takes."""


def head_spec(path: Path, base: Base) -> Spec:
    """The spec at `path`, completed from `base`.

    Raises:
        SpecError: it is not a valid spec, says something else than the base, or asks for what a head does not have.
    """
    given, own = read_plain(path), of_base(base)
    spec = Spec.parse({**own, **given} if isinstance(given, dict) else given, source=str(path))
    for name, value in own.items():
        if spec.plain()[name] != value:
            raise SpecError(
                f"{path}: {name} is that of the base, {base.path}, and another is given; leave {name} out, or name the "
                "right base"
            )
    if asked := _changed(spec, Spec.model_fields, OF_NETWORK):
        raise SpecError(f"{path}: {asked} of a network, and a head has none of its own; leave it out")
    _check_recipe(spec, path)
    return spec


def of_base(base: Base) -> dict[str, Any]:
    """The fields of a spec that every head takes from its base."""
    of_spec = base.spec.plain()
    shared = {name: of_spec[name] for name in ("backbone", "calibration", "precisions", "serving")}
    return {**shared, "preprocess": base.preprocess.plain()}


def _changed(owner: Any, fields: Any, names: Any) -> str:
    """The names of those fields that differ from their defaults."""
    return ", ".join(n for n in names if getattr(owner, n) != fields[n].get_default(call_default_factory=True))


def _check_recipe(spec: Spec, path: Path) -> None:
    """Raises SpecError: an option that would have no effect on a head."""
    recipe, fields = spec.recipe, Recipe.model_fields
    if asked := _changed(recipe, fields, [name for name in fields if name not in RECIPE]):
        raise SpecError(
            f"{path}: recipe has {asked}, which train a network; a head is fitted to the embeddings of its base, and "
            f"takes {', '.join(RECIPE)}: leave the rest out"
        )
    if recipe.head.dropout:
        raise SpecError(
            f"{path}: recipe.head.dropout: {recipe.head.dropout} given, but a head is regularised by what "
            "cross-validation chooses; leave it out"
        )
    if recipe.head.kind == "linear" and _changed(recipe.head, type(recipe.head).model_fields, ("units",)):
        raise SpecError(
            f"{path}: recipe.head.units: {recipe.head.units} given, but a linear head has no hidden layer; leave it "
            "out, or write kind: mlp"
        )
    if recipe.loss.kind != "cross_entropy":
        raise SpecError(
            f"{path}: recipe.loss.kind: {recipe.loss.kind} given; a head takes cross_entropy, with class_weights or "
            "recipe.balance for rare classes"
        )
    if recipe.head.kind == "mlp" and spec.task == "multilabel" and recipe.loss.class_weights != "none":
        raise SpecError(
            f"{path}: recipe.loss.class_weights: an mlp of several labels weighs images and not labels; write "
            "recipe.balance instead, or recipe.head.kind: linear"
        )
