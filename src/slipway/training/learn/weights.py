"""Weights of a safetensors file into a network; a pickle is never opened."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from slipway.contract import Spec, SpecError
from slipway.system.files import sha256_file
from slipway.training.learn.network import Network, classifier_names

SHOWN = 5  # keys in one error
TO_SAFETENSORS = (
    "write it once as safetensors: safetensors.torch.save_file(torch.load(FILE, map_location='cpu', "
    "weights_only=True), 'weights.safetensors'), or its 'state_dict' where it holds more than the weights"
)
Weights = Mapping[str, torch.Tensor]


def start(spec: Spec, *, classes: int) -> tuple[Network, str]:
    """The network that training begins with, and in words where its weights are from.

    Raises:
        SpecError: no such backbone, or its weights cannot be had or do not fit.
    """
    backbone, recipe = spec.backbone, spec.recipe
    network = Network(
        backbone,
        classes=classes,
        pretrained=backbone.pretrained and backbone.weights is None,
        input_size=(spec.preprocess.input_height, spec.preprocess.input_width),
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
    """Raises SpecError: no such file, no safetensors (a pickle is never opened), or NaN in it, by name."""
    try:
        with path.open("rb") as file:
            first = file.read(4)
        weights: dict[str, torch.Tensor] = load_file(path)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}; give a safetensors file") from None
    except SafetensorError as error:
        if first == b"PK\x03\x04" or first[:1] == b"\x80":
            raise SpecError(f"{path}: a pickle, which can run code when opened; {TO_SAFETENSORS}") from None
        raise SpecError(f"{path}: no safetensors file, or one that was cut short ({error})") from None
    broken = [name for name, tensor in weights.items() if tensor.is_floating_point() and tensor.isnan().any()]
    if broken:
        raise SpecError(f"{path}: NaN in {_listed(broken)}; take a checkpoint that is sound")
    return weights


def fill(network: Network, weights: Weights, *, what: str) -> None:
    """Load the whole timm model, its classifier too.

    Raises:
        SpecError: `what`, and the keys that are missing, unexpected or of another shape.
    """
    faults = _faults(network.backbone.state_dict(), weights)
    if faults:
        raise SpecError(
            f"{what}:\n  {faults}\ngive the state dict of the timm model alone, without a prefix, of this "
            "backbone.name and preprocess.input_height and input_width, with one output a label"
        )
    network.backbone.load_state_dict(weights)


def fill_backbone(network: Network, path: Path) -> str:
    """Load the backbone of a timm model's or a checkpoint's file, and its head where it fits; says which.

    Raises:
        SpecError: the file cannot be used, or its backbone is not this one in this input size.
    """
    weights = _as_network(load_weights(path))
    config = network.backbone.pretrained_cfg
    expected = network.state_dict()
    head = ("head.", *(f"backbone.{name}." for name in classifier_names(network.backbone)))
    body = {name: tensor for name, tensor in weights.items() if not name.startswith(head)}
    faults = _faults({name: tensor for name, tensor in expected.items() if not name.startswith(head)}, body)
    if faults:
        raise SpecError(
            f"backbone.weights: {path}: not the weights of {config['architecture']} in this input size:\n  {faults}\n"
            "give the state dict of this timm model, or model.safetensors of a checkpoint with this backbone.name"
        )
    wanted = {name: tensor for name, tensor in expected.items() if name.startswith(head)}
    found = {name: tensor for name, tensor in weights.items() if name.startswith(head)}
    fits = not _faults(wanted, found)
    network.load_state_dict(weights if fits else {**body, **wanted})
    if fits:
        return "with its head, which has this shape"
    return f"head at random: the file's is {_shapes(found)}, and this one {_shapes(wanted)}"


def _as_network(weights: Weights) -> Weights:
    """Names as in a `Network`, whether the file is of one or of a timm model."""
    if any(name.startswith("backbone.") for name in weights):
        return weights
    return {f"backbone.{name}": tensor for name, tensor in weights.items()}


def _faults(expected: Weights, given: Weights) -> str:
    """What keeps `given` from being loaded as `expected`; empty where nothing does."""
    faults = {
        "missing": [name for name in expected if name not in given],
        "unexpected": [name for name in given if name not in expected],
        "of another shape": [
            f"{name} {list(given[name].shape)} instead of {list(expected[name].shape)}"
            for name in expected.keys() & given.keys()
            if given[name].shape != expected[name].shape
        ],
    }
    return "\n  ".join(f"{fault}: {_listed(names)}" for fault, names in faults.items() if names)


def _shapes(weights: Weights) -> str:
    shapes = ["x".join(map(str, tensor.shape)) for tensor in weights.values() if tensor.ndim > 1]
    return " and ".join(shapes) or "none"


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:SHOWN]) + (f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else "")
