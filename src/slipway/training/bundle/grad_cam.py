"""Shows where a network looked: captum's Grad-CAM over the image as the network saw it.

Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerAttribution, LayerGradCam
from matplotlib import colormaps
from torch import nn

from slipway.contract import Bundle, DataError, Manifest, ManifestError
from slipway.contract.base_bundle import Base
from slipway.contract.bundle import HEAD
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.steps import guard
from slipway.steps.head import Head
from slipway.steps.normalize import Float, normalize
from slipway.steps.preprocess import Preprocessor
from slipway.system.files import sha256_file
from slipway.training.bundle.base import network_of
from slipway.training.bundle.export import load_network
from slipway.training.learn.network import Network

LEAST_SIDE = 4
"""Fewest cells along each side of a feature map that can locate anything; a small input has fewer in its last
stage."""
COLOURS = colormaps["inferno"]
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Layer:
    """A backbone stage whose output is `[n, channels, height, width]`."""

    name: str
    height: int
    width: int


@dataclass(frozen=True)
class GradCams:
    """Grad-CAM pictures, RGB `[H, W, 3]`, by image and label; empty without a layer."""

    layer: Layer | None
    pictures: Mapping[tuple[str, str], Picture]


class BaseWithHead(nn.Module):
    """The network of a base and a head on its embedding: maps `pixels_nchw` to (`logits_nc`, `embedding_nd`)."""

    def __init__(self, network: Network, head: Head) -> None:
        super().__init__()
        self.network = network
        self.layers = [
            (torch.from_numpy(weight), torch.from_numpy(bias))
            for weight, bias in zip(head.weights, head.biases, strict=True)
        ]

    @property
    def backbone(self) -> Any:
        return self.network.backbone

    def forward(self, pixels_nchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden_nh = embedding_nd = self.network(pixels_nchw)[1]
        for number, (weight, bias) in enumerate(self.layers):  # as Head.run
            hidden_nh = (hidden_nh.relu() if number else hidden_nh) @ weight + bias
        return hidden_nh, embedding_nd


AnyNetwork: TypeAlias = Network | BaseWithHead


def grad_cams(bundle: Bundle, checkpoint: Path, wanted: Sequence[tuple[str, Sequence[str]]]) -> GradCams:
    """Draw the evidence for each label in each image of `wanted`, which holds pairs of a path and labels.

    Missing or changed images are left out, and so are labels that the bundle does not have.

    Raises:
        ManifestError: `checkpoint` has changed, or is not the one the bundle was exported from.
    """
    dataset = Dataset.read(bundle.path / DATASET)
    images = {image.path: image for image in dataset.images}

    def contents() -> Iterator[tuple[str, bytes, Sequence[str]]]:
        for path, labels in wanted:
            with suppress(DataError, KeyError):
                yield path, dataset.load(images[path]), labels

    return grad_cams_of(bundle, checkpoint, contents())


def grad_cams_of(bundle: Bundle, checkpoint: Path, wanted: Iterable[tuple[str, bytes, Sequence[str]]]) -> GradCams:
    """Compute the Grad-CAMs of encoded images, each with a name; otherwise as `grad_cams` does.

    Raises:
        ManifestError: as `grad_cams`.
    """
    Manifest.open(checkpoint, kind="checkpoint")
    if bundle.manifest.inputs.get("checkpoint") != sha256_file(checkpoint / MANIFEST):
        raise ManifestError(f"{checkpoint}: not the checkpoint {bundle.path} was exported from; give that one")
    return _draw(bundle, load_network(checkpoint, bundle.spec, classes=len(bundle.labels)), wanted)


def grad_cams_of_head(bundle: Bundle, base: Base, wanted: Iterable[tuple[str, bytes, Sequence[str]]]) -> GradCams:
    """Compute the Grad-CAMs of a head through the network of its base, in FP32; otherwise as `grad_cams_of` does.

    Args:
        base: the base of the head. Its network is built from the weights file that its spec names.

    Raises:
        ManifestError: the spec names no file, or the file is not the one that the base was made of.
    """
    weights = base.spec.backbone.weights
    if weights is None:
        raise ManifestError(
            f"{base.path}: its spec names no file of weights, so nothing here can build its network for gradients; a "
            "base whose spec has backbone.weights has Grad-CAM"
        )
    if not Path(weights).is_file() or sha256_file(weights) != base.manifest.inputs.get("weights"):
        raise ManifestError(
            f"{weights}: missing, or not the weights that {base.path} was made of; run this in the folder where "
            "slipway base ran, or put that file there"
        )
    network, _ = network_of(base.spec, base.preprocess)
    return _draw(bundle, BaseWithHead(network, Head.read(bundle.path / HEAD)), wanted)


def _draw(bundle: Bundle, network: AnyNetwork, wanted: Iterable[tuple[str, bytes, Sequence[str]]]) -> GradCams:
    preprocess = bundle.preprocess
    layer = find_layer(network, input_size=preprocess.input_size)
    if layer is None:
        return GradCams(None, {})
    config = preprocess.model_dump()
    preprocessor = Preprocessor(config, max_batch_size=1, threads=1)
    pictures: dict[tuple[str, str], Picture] = {}
    for name, encoded, labels in wanted:
        pixels_nhwc_u8, status_n = preprocessor.run([encoded])
        if status_n[0] == guard.OK:
            pixels_nchw = normalize(pixels_nhwc_u8, config)
            for label in labels:
                if label in bundle.labels:
                    heat_hw = attribute(network, layer, pixels_nchw, target=bundle.labels.index(label))
                    pictures[name, label] = _blend(pixels_nhwc_u8[0] / 255, heat_hw)
    return GradCams(layer, pictures)


def find_layer(network: AnyNetwork, *, input_size: tuple[int, int]) -> Layer | None:
    """Find the last backbone stage, by timm's `feature_info`, whose map has at least LEAST_SIDE cells along each side.

    Failing that, the last stage with more than one cell; where timm names no stages, the last convolution. None where
    no stage outputs a map of channels, as in transformers.
    """
    backbone = network.backbone
    stages = {stage["module"]: stage["num_chs"] for stage in getattr(backbone, "feature_info", [])}
    if not stages:
        stages = {name: m.out_channels for name, m in backbone.named_modules() if isinstance(m, nn.Conv2d)}
    shapes = _shapes(network, list(stages), input_size=input_size)
    maps = [
        Layer(name, *shape[2:])
        for name, channels in stages.items()
        if len(shape := shapes.get(name, ())) == 4 and shape[1] == channels and min(shape[2:]) > 1
    ]
    fine = [layer for layer in maps if min(layer.height, layer.width) >= LEAST_SIDE]
    usable = fine or maps
    return usable[-1] if usable else None


def _shapes(network: AnyNetwork, names: Sequence[str], *, input_size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Return the output shape of each named module of the backbone."""
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> object:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                found[name] = tuple(output.shape)

        return hook

    modules = dict(network.backbone.named_modules())
    hooks = [modules[name].register_forward_hook(note(name)) for name in names if name in modules]
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, *input_size))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def attribute(network: AnyNetwork, layer: Layer, pixels_nchw: Float, *, target: int) -> npt.NDArray[np.float64]:
    """Return the evidence for class `target` at each input pixel, `[H, W]`, 0 to 1; all 0 where there is none."""
    module = network.backbone.get_submodule(layer.name)
    method = LayerGradCam(lambda pixels: network(pixels)[0], module)
    heat = method.attribute(torch.from_numpy(pixels_nchw), target=target, relu_attributions=True)
    heat_hw = LayerAttribution.interpolate(heat, pixels_nchw.shape[2:], "bilinear")[0, 0].detach().numpy()
    most = float(heat_hw.max())
    return np.asarray(heat_hw / most if most > 0 else np.zeros_like(heat_hw), np.float64)


def _blend(seen_hwc: npt.NDArray[np.float64], heat_hw: npt.NDArray[np.float64]) -> Picture:
    """Lay the heat map over the picture, RGB from 0 to 1, in grey."""
    grey_hw1 = seen_hwc.mean(axis=2, keepdims=True)
    return np.asarray(255 * (0.45 * grey_hw1 + 0.55 * COLOURS(heat_hw)[..., :3]), np.uint8)
