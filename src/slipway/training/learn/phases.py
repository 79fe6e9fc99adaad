"""Decides which part of a network is trained: the head alone, more and more of the backbone, or everything."""

import math

from timm.models import group_parameters
from torch import nn

from slipway.contract.recipe import Recipe
from slipway.training.learn.network import Network

ALL = "all"


class Phases:
    """The phases of a recipe. They depend on the epoch alone, so a resumed run needs no further state."""

    def __init__(self, network: Network, recipe: Recipe) -> None:
        self._network, self._recipe = network, recipe
        self._stages = stages(network)

    def enter(self, epoch: int) -> str:
        """Freeze and unfreeze for `epoch`, from 0, and name the phase: `head`, `head and 2 of 5 stages` or `all`.

        A frozen part stays in eval mode: BatchNorm keeps its pretrained statistics, and dropout is off.
        """
        count = len(self._stages)
        learning = learning_stages(self._recipe, epoch, count)
        for number, stage in enumerate(self._stages):
            for parameter in stage:
                parameter.requires_grad_(number >= count - learning)
        self._network.train()
        for module in self._network.backbone.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        if learning == count:
            return ALL
        return f"head and {learning} of {count} stages" if learning else "head"


def learning_stages(recipe: Recipe, epoch: int, count: int) -> int:
    """Count how many of `count` stages, from the top, are trained in `epoch`, from 0."""
    since = epoch - recipe.freeze_epochs
    return 0 if since < 0 else min(count, math.ceil(count * (since + 1) / (recipe.unfreeze_epochs + 1)))


def first_whole_epoch(recipe: Recipe) -> int:
    """Return the epoch, from 0, in which the last phase begins; a backbone that is never unfrozen has one phase."""
    frozen = recipe.freeze_epochs >= recipe.epochs
    return 0 if frozen else min(recipe.freeze_epochs + recipe.unfreeze_epochs, recipe.epochs - 1)


def stages(network: Network) -> list[list[nn.Parameter]]:
    """Return the backbone's weights from stem to top in timm's coarse groups, without the head's weights."""
    backbone = network.backbone
    head = {id(parameter) for parameter in network.head_parameters()}
    named = {name: parameter for name, parameter in backbone.named_parameters() if id(parameter) not in head}
    if not hasattr(backbone, "group_matcher"):
        return [list(named.values())]
    layers = group_parameters(backbone, backbone.group_matcher(coarse=True), reverse=True)
    grouped: dict[int, list[nn.Parameter]] = {}
    for name, parameter in named.items():
        grouped.setdefault(layers[name], []).append(parameter)
    return [grouped[layer] for layer in sorted(grouped)]
