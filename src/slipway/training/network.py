"""A timm backbone with a linear head."""

import difflib
from typing import Any

import timm
import torch
from torch import nn

from slipway.contract import SpecError
from slipway.contract.spec import Backbone


def check_backbone(name: str) -> None:
    """Raises SpecError, with the nearest names, where timm has no such model."""
    if not timm.is_model(name):
        similar = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4))
        raise SpecError(f"backbone.name: timm has no {name!r}; near it are: {similar or 'none'}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise SpecError(f"backbone.name: {name}: {error}") from None


class Network(nn.Module):
    """`pixels_nchw` to (`logits_nc`, `embedding_nd`); the embedding is what the linear head sees."""

    def __init__(self, backbone: Backbone, *, classes: int, pretrained: bool, input_size: tuple[int, int]) -> None:
        """`pretrained` False builds the architecture alone, for weights that are loaded next.

        `input_size` is height and width: what a backbone of a fixed input (vit, swin) is built for.

        Raises:
            SpecError: no such timm model, not in this size, or its weights cannot be had.
        """
        super().__init__()
        check_backbone(backbone.name)
        config = timm.get_pretrained_cfg(backbone.name)
        options: dict[str, Any] = {}
        if config.fixed_input_size and tuple(config.input_size[1:]) != input_size:
            options["img_size"] = input_size
        try:
            self.backbone = timm.create_model(backbone.name, pretrained=pretrained, num_classes=classes, **options)
        except Exception as error:
            if options and isinstance(error, AssertionError):  # timm's windows and patches
                height, width = input_size
                raise SpecError(
                    f"preprocess: backbone {backbone.name} cannot be built for {height}x{width} pixels "
                    f"({error or 'they do not divide into its windows'}); change input_height and input_width"
                ) from error
            if not pretrained:
                raise
            raise SpecError(
                f"backbone.pretrained: the weights of {backbone.name} could not be loaded ({error}); connect to the "
                "model hub, or write pretrained: false to start from random weights"
            ) from error

    def forward(self, pixels_nchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.backbone.forward_features(pixels_nchw)
        embedding_nd = self.backbone.forward_head(features, pre_logits=True)
        return self.backbone.get_classifier()(embedding_nd), embedding_nd
