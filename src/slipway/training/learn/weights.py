"""Loads weights from a safetensors file into a network; a pickle is never opened."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from slipway.contract import Spec, SpecError
from slipway.system.files import sha256_file
from slipway.system.text import few
from slipway.training.learn.network import Network, classifier_names

TO_SAFETENSORS = (
    "convert it to safetensors: safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in "
    "torch.load(FILE, map_location='cpu', weights_only=True).items()}, 'weights.safetensors'), or only its "
    "'state_dict' if it holds more than weights"
)
Weights = Mapping[str, torch.Tensor]


def start(spec: Spec, *, classes: int) -> tuple[Network, str]:
    """Return the network that training starts from, and the source of its weights in words.

    Raises:
        SpecError: timm has no such backbone, or its weights cannot be loaded or do not fit.
    """
    backbone, recipe = spec.backbone, spec.recipe
    network = Network(
        backbone,
        classes=classes,
        pretrained=backbone.pretrained and backbone.weights is None,
        input_size=spec.preprocess.input_size,
        head=recipe.head,
    )
    if backbone.weights is not None:
        path = Path(backbone.weights)
        return network, f"{path} (sha256 {sha256_file(path)[:12]}), {fill_backbone(network, path)}"
    if backbone.pretrained:
        config = network.backbone.pretrained_cfg
        return network, f"timm's {config.get('architecture')}.{config.get('tag')}, head at random (seed {recipe.seed})"
    return network, f"random (seed {recipe.seed})"


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Raises SpecError: no such file, not a safetensors file (a pickle is never opened), or NaN or infinity in it, by
    tensor name."""
    try:
        with path.open("rb") as file:
            first = file.read(4)
        weights: dict[str, torch.Tensor] = load_file(path)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}; give a safetensors file") from None
    except SafetensorError as error:
        if first == b"PK\x03\x04" or first[:1] == b"\x80":
            raise SpecError(f"{path}: a pickle, which can run code when opened; {TO_SAFETENSORS}") from None
        raise SpecError(
            f"{path}: not a safetensors file, or a truncated one ({error}); copy it again, or {TO_SAFETENSORS}"
        ) from None
    broken = [name for name, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise SpecError(f"{path}: NaN or infinity in {few(sorted(broken))}; give a checkpoint of finite numbers")
    return weights


def fill(network: Network, weights: Weights, *, what: str) -> None:
    """Load the whole timm model, including its classifier.

    Raises:
        SpecError: keys are missing, unexpected or of another shape; the message begins with `what` and names them.
    """
    faults = _faults(network.backbone.state_dict(), weights)
    if faults:
        raise SpecError(
            f"{what}:\n  {faults}\ngive the state dict of the timm model alone, without a prefix, for "
            "this backbone.name, preprocess.input_height and input_width, with one output per label"
        )
    network.backbone.load_state_dict(weights)


def fill_backbone(network: Network, path: Path) -> str:
    """Load the backbone from the file of a timm model or a checkpoint, and its head if it fits; says whether it did.

    Raises:
        SpecError: the file cannot be used, or holds another backbone or input size.
    """
    weights = _as_network(load_weights(path))
    config = network.backbone.pretrained_cfg
    expected = network.state_dict()
    head = ("head.", *(f"backbone.{name}." for name in classifier_names(network.backbone)))
    body = {name: tensor for name, tensor in weights.items() if not name.startswith(head)}
    faults = _faults({name: tensor for name, tensor in expected.items() if not name.startswith(head)}, body)
    if faults:
        raise SpecError(
            f"backbone.weights: {path}: not weights of {config['architecture']} for this input size:\n  {faults}\n"
            "give the state dict of this timm model, or model.safetensors of a checkpoint with this backbone.name"
        )
    wanted = {name: tensor for name, tensor in expected.items() if name.startswith(head)}
    found = {name: tensor for name, tensor in weights.items() if name.startswith(head)}
    fits = not _faults(wanted, found)
    network.load_state_dict(weights if fits else {**body, **wanted})
    if fits:
        return "with its head, whose shape fits"
    return f"head at random: the file's head is {_shapes(found)}, this one {_shapes(wanted)}"


def _as_network(weights: Weights) -> Weights:
    """Rename the weights as in a `Network`, whether they come from one or from a timm model."""
    if any(name.startswith("backbone.") for name in weights):
        return weights
    return {f"backbone.{name}": tensor for name, tensor in weights.items()}


def _faults(expected: Weights, given: Weights) -> str:
    """Say why `given` cannot be loaded as `expected`; empty where it can."""
    faults = {
        "missing": [name for name in expected if name not in given],
        "unexpected": [name for name in given if name not in expected],
        "of another shape": [
            f"{name} {list(given[name].shape)} instead of {list(expected[name].shape)}"
            for name in expected.keys() & given.keys()
            if given[name].shape != expected[name].shape
        ],
    }
    return "\n  ".join(f"{fault}: {few(sorted(names))}" for fault, names in faults.items() if names)


def _shapes(weights: Weights) -> str:
    shapes = ["x".join(map(str, tensor.shape)) for tensor in weights.values() if tensor.ndim > 1]
    return " and ".join(shapes) or "none"
