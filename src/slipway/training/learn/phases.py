"""Decides which part of a network is trained, and sets its optimiser and learning rates over time."""

import math
from collections.abc import Callable
from typing import Any

import torch
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay
from torch import nn

from slipway.contract.recipe import Recipe
from slipway.training.learn.network import Network

ALL = "all"
START = 0.01  # share of the learning rate at the first step of the warm-up


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


def configure(network: Network, recipe: Recipe, *, steps_per_epoch: int) -> dict[str, Any]:
    """Return the result of Lightning's `configure_optimizers`; `steps_per_epoch` counts optimiser steps."""
    groups = parameter_groups(network, recipe)
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    else:
        nesterov = recipe.momentum > 0
        optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=nesterov)
    rate = warmup_and_cosine(recipe.warmup_epochs * steps_per_epoch, recipe.epochs * steps_per_epoch)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def parameter_groups(network: Network, recipe: Recipe) -> list[dict[str, Any]]:
    """Group all weights, even frozen ones: these get no gradient, and so no step, until their phase begins.

    Groups are timm's, by layer and with or without weight decay, each divided into head and backbone.
    """
    head = {id(parameter) for parameter in network.head_parameters()}
    decayed = param_groups_layer_decay(
        network.backbone,
        weight_decay=recipe.weight_decay,
        no_weight_decay_list=network.backbone.no_weight_decay() if hasattr(network.backbone, "no_weight_decay") else (),
        layer_decay=recipe.layer_decay,
    )
    groups = []
    for group in decayed:
        rate = recipe.learning_rate * recipe.backbone_multiplier * group["lr_scale"]
        for part, lr in (("backbone", rate), ("head", recipe.learning_rate)):
            members = [parameter for parameter in group["params"] if (id(parameter) in head) == (part == "head")]
            groups.append({"part": part, "params": members, "lr": lr, "weight_decay": group["weight_decay"]})
    for is_matrix in (True, False):  # a head of our own, beside the backbone
        members = [parameter for parameter in network.head.parameters() if (parameter.ndim > 1) == is_matrix]
        decay = recipe.weight_decay if is_matrix else 0.0
        groups.append({"part": "head", "params": members, "lr": recipe.learning_rate, "weight_decay": decay})
    return [group for group in groups if group["params"]]


def warmup_and_cosine(warmup_steps: int, steps: int) -> Callable[[int], float]:
    """Return the share of the learning rate at each step: a line from `START` to 1, then half a cosine to 0."""
    warmup_steps = min(warmup_steps, steps - 1)

    def share(step: int) -> float:
        if step < warmup_steps:
            return START + (1 - START) * step / warmup_steps
        done = (step - warmup_steps) / max(steps - warmup_steps, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    return share


def rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the current learning rates of the head and of the backbone's top layer."""
    highest: dict[str, float] = {}
    for group in optimizer.param_groups:
        highest[group["part"]] = max(group["lr"], highest.get(group["part"], 0.0))
    return {"learning_rate": highest.get("head", 0.0), "backbone_learning_rate": highest.get("backbone", 0.0)}
