"""A timm backbone with a head."""

import difflib
from typing import Any

import timm
import torch
from torch import nn

from slipway.contract import SpecError
from slipway.contract.recipe import Head
from slipway.contract.spec import Backbone
from slipway.evaluation.predict import Float

WEIGHTS_REMEDY = (
    "connect to the model hub, or fetch the weights where it can be reached and name the safetensors file as "
    "backbone.weights, or write pretrained: false to start from random weights"
)


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
    """`pixels_nchw` to (`logits_nc`, `embedding_nd`); the embedding is what the head sees, before its dropout.

    A linear head is the timm model's own classifier, so that its weights are those of any timm model; an MLP is `head`.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        classes: int,
        pretrained: bool,
        input_size: tuple[int, int],
        head: Head = Head(),  # noqa: B008  frozen
    ) -> None:
        """`pretrained` False builds the architecture alone, for weights that are loaded next.

        `input_size` is height and width: what a backbone of a fixed input (vit, swin) is built for.

        Raises:
            SpecError: no such timm model, not in this size, or its weights cannot be had.
        """
        super().__init__()
        check_backbone(backbone.name)
        config = timm.get_pretrained_cfg(backbone.name)
        options: dict[str, Any] = {"num_classes": classes if head.kind == "linear" else 0}
        resized = config.fixed_input_size and tuple(config.input_size[1:]) != input_size
        if resized:
            options["img_size"] = input_size
        if pretrained and not config.has_weights:  # timm would start some of these at random, with a warning
            raise SpecError(f"backbone.pretrained: timm has no weights of {backbone.name}; {WEIGHTS_REMEDY}")
        try:
            self.backbone = timm.create_model(backbone.name, pretrained=pretrained, **options)
        except Exception as error:
            if resized and isinstance(error, AssertionError):  # timm's windows and patches
                height, width = input_size
                raise SpecError(
                    f"preprocess: backbone {backbone.name} cannot be built for {height}x{width} pixels "
                    f"({error or 'they do not divide into its windows'}); change input_height and input_width"
                ) from error
            if not pretrained:
                raise
            raise SpecError(
                f"backbone.pretrained: the weights of {backbone.name} could not be loaded ({error}); {WEIGHTS_REMEDY}"
            ) from error
        self.head = _before_logits(head, self.backbone, classes)

    def forward(self, pixels_nchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.backbone.forward_features(pixels_nchw)
        embedding_nd = self.backbone.forward_head(features, pre_logits=True)
        return self.backbone.get_classifier()(self.head(embedding_nd)), embedding_nd

    def run(self, pixels_nchw: Float) -> tuple[Float, Float]:
        """The same from array to arrays, without gradients: what `slipway.evaluation.predict` asks for."""
        with torch.inference_mode():
            logits_nc, embedding_nd = self(torch.from_numpy(pixels_nchw))
        return logits_nc.numpy(), embedding_nd.numpy()

    def head_parameters(self) -> list[nn.Parameter]:
        """The weights between embedding and logits."""
        return [*self.backbone.get_classifier().parameters(), *self.head.parameters()]


def _before_logits(head: Head, backbone: Any, classes: int) -> nn.Module:
    """What stands between the embedding and timm's classifier, which an MLP leaves empty."""
    if head.kind == "linear":
        return nn.Dropout(head.dropout) if head.dropout else nn.Identity()
    size = getattr(backbone, "head_hidden_size", backbone.num_features)
    return nn.Sequential(
        nn.Dropout(head.dropout),
        nn.Linear(size, head.units),
        nn.ReLU(),
        nn.Dropout(head.dropout),
        nn.Linear(head.units, classes),
    )
