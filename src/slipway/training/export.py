"""A checkpoint to a bundle: the graph that torch writes, compared with torch on the whole test split."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from slipway.contract import Manifest, ManifestError, Spec
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.files import sha256_file
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.targets import check_folder
from slipway.training.bundle import write_bundle
from slipway.training.network import Network
from slipway.training.to_onnx import write_onnx

LIBRARIES = ("torch", "timm", "onnxscript")


def export(checkpoint: Path, out: Path) -> Manifest:
    """Write the bundle of `checkpoint` to `out`, whole or not at all.

    Raises:
        ManifestError: the checkpoint was changed.
        ExportError: ONNX and torch disagree on the test split.
        DataError: too few images for the calibration sample that the spec asks for.
    """
    check_folder(out, kind="bundle", inputs=[checkpoint])
    Manifest.open(checkpoint, kind="checkpoint")
    spec, dataset = Spec.read(checkpoint / "spec.json"), Dataset.read(checkpoint / DATASET)
    network = load_network(checkpoint, spec, classes=len(dataset.labels))
    inputs = {"checkpoint": sha256_file(checkpoint / MANIFEST)}
    return export_network(network, out, spec=spec, dataset=dataset, inputs=inputs, origin="checkpoint")


def load_network(checkpoint: Path, spec: Spec, *, classes: int) -> Network:
    """The network of `spec` with the weights of `checkpoint`, ready to predict."""
    input_size = (spec.preprocess.input_height, spec.preprocess.input_width)
    network = Network(spec.backbone, classes=classes, pretrained=False, input_size=input_size, head=spec.recipe.head)
    network.load_state_dict(_load_weights(checkpoint / "model.safetensors"))
    return network.eval()


def export_network(
    network: Network, out: Path, *, spec: Spec, dataset: Dataset, inputs: Mapping[str, str], origin: str
) -> Manifest:
    """Write the bundle of a network with its weights; `inputs` is the sha256 of what they were read from."""
    network.eval()
    input_shape = (3, spec.preprocess.input_height, spec.preprocess.input_width)

    return write_bundle(
        out,
        spec=spec,
        dataset=dataset,
        write_graph=lambda path: write_onnx(network, path, input_shape=input_shape),
        reference=network.run,
        inputs=inputs,
        libraries=LIBRARIES,
        measured={"origin": origin},
    )


def _load_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise ManifestError(f"{path}: not a safetensors file: {error}; train again") from None
    return weights
