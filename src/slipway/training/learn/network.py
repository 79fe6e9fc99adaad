"""Builds a network from a timm backbone and a head."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import huggingface_hub as hub
import timm
import torch
from timm.layers import ClassifierHead, NormMlpClassifierHead
from torch import nn

from slipway.contract import SpecError
from slipway.contract.recipe import HeadRecipe
from slipway.contract.spec import Backbone
from slipway.evaluation.predict import Float

HUB_TIMEOUT_S, SERVER_ERROR = 10, 500
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
"""File names on the hub that timm looks for, in its order."""


def _unavailable(backbone: Backbone, reason: object) -> SpecError:
    return SpecError(
        f"backbone.pretrained: the weights of {backbone.name} cannot be loaded: {reason}; connect to the model hub, or "
        "download the weights elsewhere and name the safetensors file as backbone.weights, or start from random "
        f"weights by backbone: {{name: {backbone.name}, pretrained: false}}"
    )


def check_backbone(name: str) -> None:
    """Raises SpecError, with similar names, where timm has no such model."""
    if not timm.is_model(name):
        similar = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4))
        raise SpecError(f"backbone.name: timm has no {name!r}; similar names: {similar or 'none'}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        model = name.partition(".")[0]
        tagged = ", ".join(timm.list_pretrained(f"{model}.*"))
        raise SpecError(f"backbone.name: {name}: {error} Write {model} alone, or one of: {tagged or 'none'}") from None


def timm_model(backbone: Backbone, *, outputs: int, pretrained: bool, input_size: tuple[int, int]) -> nn.Module:
    """Build timm's own model, with `outputs` logits (0: its features), in training mode.

    `pretrained` False builds the architecture alone. `input_size` is height and width: a backbone with a fixed input
    (vit, swin) is built for it.

    Raises:
        SpecError: timm has no such model, or not in this size, or its weights cannot be loaded.
    """
    check_backbone(backbone.name)
    config = timm.get_pretrained_cfg(backbone.name)
    resized = config.fixed_input_size and tuple(config.input_size[1:]) != input_size
    if pretrained and not config.has_weights:  # timm would only warn and start some of these at random
        raise _unavailable(backbone, "timm has none")
    if pretrained:
        _check_hub(backbone, config)
    options: dict[str, Any] = {"num_classes": outputs} | ({"img_size": input_size} if resized else {})
    try:
        model: nn.Module = timm.create_model(backbone.name, pretrained=pretrained, **options)
    except Exception as error:
        if resized and isinstance(error, (AssertionError, TypeError)):  # timm's windows and patches; no such option
            raise _not_in_this_size(backbone.name, input_size, error) from error
        if not pretrained:
            raise
        raise _unavailable(backbone, error) from error
    return model


def _check_hub(backbone: Backbone, config: Any) -> None:
    """Ask the model hub once: without a network, timm repeats its own request for over a minute.

    Raises:
        SpecError: the weights are not in the cache, and the hub does not answer.
    """
    if not config.hf_hub_id or hub.constants.HF_HUB_OFFLINE:  # offline, timm's own request fails at once
        return
    repository, _, revision = config.hf_hub_id.partition("@")
    at = {"revision": revision or None}
    names = (config.hf_hub_filename,) if config.hf_hub_filename else WEIGHTS_FILES
    cached = (hub.try_to_load_from_cache(repository, name, **at) for name in names)
    if any(isinstance(path, str) for path in cached):
        return
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, names[0], **at), timeout=HUB_TIMEOUT_S)
    except hub.errors.HfHubHTTPError as error:  # it answers; whatever it says, timm's own request says it too
        if error.response.status_code >= SERVER_ERROR:
            raise _unavailable(backbone, error) from error
    except Exception as error:  # below lie sockets, TLS and proxies, each with exceptions of its own
        raise _unavailable(backbone, f"{hub.constants.ENDPOINT} does not answer ({error})") from error


class Network(nn.Module):
    """Maps `pixels_nchw` to (`logits_nc`, `embedding_nd`). The logits are those of the timm model's own `forward`.

    The embedding is the input of the model's classifier, before dropout; where timm averages the logits of several
    classifiers, their inputs are concatenated, each once. A linear head is the timm model's own classifier, so that
    its weights load into any timm model; an MLP is `head`, on the features of a model without a classifier.
    """

    linear: bool
    """Whether the classifier is timm's own."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        classes: int,
        pretrained: bool,
        input_size: tuple[int, int],
        head: HeadRecipe = HeadRecipe(),  # noqa: B008  frozen
    ) -> None:
        """Build the network; `pretrained` False builds the architecture alone, for weights that are loaded next.

        `input_size` is height and width. The network is tried once in it.

        Raises:
            SpecError: timm has no such model, or not in this size or with this head, or its weights cannot be loaded.
        """
        super().__init__()
        self.linear = head.kind == "linear"
        outputs = classes if self.linear else 0
        self.backbone: Any = timm_model(backbone, outputs=outputs, pretrained=pretrained, input_size=input_size)
        self.head = _before_logits(head, self.backbone, classes)
        self._try(backbone.name, classes=classes, input_size=input_size)

    def forward(self, pixels_nchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.linear:
            embedding_nd = _embedding([self.backbone(pixels_nchw)])
            return self.head(embedding_nd), embedding_nd
        with self._inputs_of_classifiers() as inputs:
            logits_nc = self.backbone(pixels_nchw)
        return logits_nc, _embedding(inputs)

    @contextmanager
    def _inputs_of_classifiers(self) -> Iterator[list[torch.Tensor]]:
        """Collect each classifier's input during the block, and apply `head` to it before the classifier."""
        inputs: list[torch.Tensor] = []

        def note(_: nn.Module, given: tuple[torch.Tensor]) -> torch.Tensor:
            inputs.append(given[0])
            changed: torch.Tensor = self.head(given[0])
            return changed

        hooks = [module.register_forward_pre_hook(note) for module in _classifiers(self.backbone)]
        try:
            yield inputs
        finally:
            for hook in hooks:
                hook.remove()

    def _try(self, name: str, *, classes: int, input_size: tuple[int, int]) -> None:
        """Raises SpecError where the network cannot be used, before any image is read."""
        try:
            with torch.no_grad():
                logits_nc, embedding_nd = self.eval()(torch.zeros(1, 3, *input_size))
        except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise _not_in_this_size(name, input_size, error) from error
        if logits_nc.shape != (1, classes) or embedding_nd.ndim != 2:
            raise SpecError(
                f"backbone.name: {name} gives logits {list(logits_nc.shape)} and an embedding "
                f"{list(embedding_nd.shape)} for one image, not [1, {classes}] and [1, d]; choose another backbone"
            )
        self.train()

    def run(self, pixels_nchw: Float) -> tuple[Float, Float]:
        """Run the network from array to arrays, without gradients, as `slipway.evaluation.predict` needs it."""
        with torch.inference_mode():
            logits_nc, embedding_nd = self(torch.from_numpy(pixels_nchw))
        return logits_nc.numpy(), embedding_nd.numpy()

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the weights between embedding and logits, including those of an auxiliary classifier (volo)."""
        prefixes = tuple(f"{name}." for name in classifier_names(self.backbone))
        named = [parameter for name, parameter in self.backbone.named_parameters() if name.startswith(prefixes)]
        within = [parameter for module in _classifiers(self.backbone) for parameter in module.parameters()]
        return [*dict.fromkeys((*named, *within)), *self.head.parameters()]


def memory_format(network: nn.Module) -> torch.memory_format:
    """Choose NHWC memory, in which convolutions train faster, or NCHW if NHWC would break a part of the network.

    In NHWC memory oneDNN's weight gradient of a strided 1x1 convolution writes past its buffer if a group has fewer
    channels than a vector register holds FP32 numbers (8 or 16): wrong weights, or a crash. fastvit begins with such a
    convolution. torch has no NHWC for the weights of a 3D convolution (lambda_resnet).
    Source: oneDNN, issue 6035.
    """

    def breaks(part: nn.Module) -> bool:
        if not isinstance(part, nn.Conv2d):
            return isinstance(part, nn.Conv3d)
        return part.kernel_size == (1, 1) and max(part.stride) > 1 and part.in_channels < 16 * part.groups

    return torch.contiguous_format if any(map(breaks, network.modules())) else torch.channels_last


def _not_in_this_size(name: str, input_size: tuple[int, int], error: Exception) -> SpecError:
    height, width = input_size
    own_height, own_width = timm.get_pretrained_cfg(name).input_size[1:]
    reason = str(error).splitlines()[0] if str(error) else "they do not divide into its windows"
    if (height, width) == (own_height, own_width):
        return SpecError(f"backbone.name: {name} cannot be used: {reason}; choose another backbone")
    return SpecError(
        f"preprocess: backbone {name} cannot be built for {height}x{width} pixels ({reason}); change input_height and "
        f"input_width: timm's own are {own_height} and {own_width}"
    )


def classifier_names(backbone: Any) -> list[str]:
    """Return the names of a timm model's parts whose shape depends on the number of classes.

    They are the parts that timm names, and each classifier that it does not (levit_384_s8's second) or that is empty.
    """
    configured = backbone.pretrained_cfg.get("classifier") or ()
    names = [configured] if isinstance(configured, str) else list(configured)
    modules = set(_classifiers(backbone))
    for name, module in backbone.named_modules():
        named = any(given == name or given.startswith(f"{name}.") for given in names)
        if module in modules and (not named or not list(module.parameters())):
            names.append(name)
    return names


def _classifiers(backbone: Any) -> Iterator[nn.Module]:
    """Yield the modules that output logits: one in most timm models, several where timm averages over heads."""
    try:
        waiting = [backbone.get_classifier()]
    except AttributeError:  # efficientvit_msra and shvit name a part of the head, which is empty under an MLP
        return
    while waiting:
        found = waiting.pop(0)
        if isinstance(found, (tuple, nn.ModuleList)):
            waiting[:0] = found
        elif isinstance(found, (ClassifierHead, NormMlpClassifierHead)):  # these pool first
            yield found.fc
        else:
            yield found


def _embedding(inputs: Iterable[torch.Tensor]) -> torch.Tensor:
    """Concatenate `[n, d]` or `[n, d, 1, 1]` tensors, each once: several classifiers may share one input."""
    distinct: list[torch.Tensor] = []
    for given in inputs:
        if all(given is not other for other in distinct):
            distinct.append(given)
    vectors = [given.flatten(1) if given.ndim == 4 and given.shape[2:].numel() == 1 else given for given in distinct]
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=1)


def _before_logits(head: HeadRecipe, backbone: Any, classes: int) -> nn.Module:
    """Make the layers between the embedding and timm's classifier, which is empty under an MLP."""
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
