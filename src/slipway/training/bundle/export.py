"""Exports a checkpoint to a bundle: torch writes the graph, which is compared with torch on the whole test split."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from slipway.contract import ExportError, Manifest, ManifestError, Spec, SpecError
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.evidence.build import NetworkOrigin
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.spec import AFTER_TRAINING
from slipway.onnx_graph import INPUT, OUTPUTS, save
from slipway.system.files import sha256_file
from slipway.system.targets import check_folder
from slipway.training.bundle.calibration import check_calibration
from slipway.training.bundle.write import write_bundle
from slipway.training.learn.network import Network, timm_model

LIBRARIES = ("torch", "timm", "onnxscript")
MAX_TIMM_DIFFERENCE = 1e-4  # relative to the largest logit; the operations are the same


def export(checkpoint: Path, out: Path, *, spec: Spec | None = None) -> Manifest:
    """Write the bundle of `checkpoint` to `out`, whole or not at all.

    Args:
        spec: the spec as it is now, where fields that no weight depends on have changed since the training.

    Raises:
        ManifestError: the checkpoint has changed.
        SpecError: `spec` differs from the training's spec in a field that the weights depend on.
        ExportError: ONNX and torch disagree on the test split, or the network disagrees with timm's own model.
        DataError: too few images for the calibration sample that the spec asks for.
    """
    check_folder(out, kind="bundle", inputs=[checkpoint])
    manifest = Manifest.open(checkpoint, kind="checkpoint")
    inputs = {"checkpoint": sha256_file(checkpoint / MANIFEST)}
    trained, dataset = Spec.read(checkpoint / "spec.json"), Dataset.read(checkpoint / DATASET)
    if spec is not None and spec.training_sha256 != manifest.inputs["training"]:
        raise SpecError(
            f"{checkpoint}: was not trained with this spec; train again, or change only {', '.join(AFTER_TRAINING)}"
        )
    spec = trained.model_copy(update={name: getattr(spec or trained, name) for name in AFTER_TRAINING})
    check_calibration(spec.calibration, images=len(dataset.of("train")))
    network = load_network(checkpoint, spec, classes=len(dataset.labels))
    return export_network(network, out, spec=spec, dataset=dataset, inputs=inputs, origin="checkpoint")


def load_network(checkpoint: Path, spec: Spec, *, classes: int) -> Network:
    """The network of `spec` with the weights of `checkpoint`, ready to predict."""
    input_size = spec.preprocess.input_size
    network = Network(spec.backbone, classes=classes, pretrained=False, input_size=input_size, head=spec.recipe.head)
    network.load_state_dict(_load_weights(checkpoint / "model.safetensors"))
    return network.eval()


def export_network(
    network: Network, out: Path, *, spec: Spec, dataset: Dataset, inputs: Mapping[str, str], origin: str
) -> Manifest:
    """Write the bundle of a network with its weights; `inputs` holds the sha256 of each file they were read from.

    Raises:
        ExportError: ONNX and torch disagree on the test split, or the network disagrees with timm's own model.
    """
    network.eval()
    check_against_timm(network, spec, classes=len(dataset.labels))
    return write_bundle(
        out,
        spec=spec,
        dataset=dataset,
        write_graph=lambda path: write_onnx(network, path, input_shape=(3, *spec.preprocess.input_size)),
        reference=network.run,
        inputs=inputs,
        libraries=LIBRARIES,
        origin=NetworkOrigin(origin=origin),
    )


def check_against_timm(network: Network, spec: Spec, *, classes: int) -> None:
    """Compare the network with timm's own model, built anew with the same weights, on two random images.

    ONNX is compared with `network` elsewhere; this checks that `network` is the model that the backbone's name means.

    Raises:
        ExportError: they differ.
    """
    input_size = spec.preprocess.input_size
    outputs = classes if network.linear else 0
    own = timm_model(spec.backbone, outputs=outputs, pretrained=False, input_size=input_size).eval()
    own.load_state_dict(network.backbone.state_dict())
    pixels_nchw = torch.randn(2, 3, *input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected_nc = own(pixels_nchw) if network.linear else network.head(own(pixels_nchw).flatten(1))
        difference = float((network(pixels_nchw)[0] - expected_nc).abs().max())
    allowed = MAX_TIMM_DIFFERENCE * float(expected_nc.abs().max())
    if not difference <= allowed:  # also catches NaN
        raise ExportError(
            f"{spec.backbone.name}: logits differ from timm's own model with the same weights by {difference:.2g} "
            f"(allowed: {allowed:.2g}); check the weights for NaN, or choose another backbone"
        )


def _load_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise ManifestError(f"{path}: not a safetensors file: {error}; train again") from None
    return weights


OPSET = 18
CACHED_WHILE_EXPORTING = r"The tensor attributes? ([\w.]+\.attention_bias_cache\['cpu'\],? )+(was|were) assigned"
"""Warning of torch.export about levit and its kin. It empties their caches again, and the graph computes the biases."""


class EmbeddingNetwork(nn.Module):
    """`network` without its logits, which makes a base."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels_nchw: torch.Tensor) -> torch.Tensor:
        embedding_nd: torch.Tensor = self.network(pixels_nchw)[1]
        return embedding_nd


def write_onnx(network: Network | EmbeddingNetwork, path: Path, *, input_shape: tuple[int, int, int]) -> None:
    """Export `network` for `FP32 [n, *input_shape]`; equal weights give equal bytes.

    Raises:
        ExportError: the exporter refuses the network, or loses the dynamic batch or an output.
    """
    example = torch.zeros(2, *input_shape)  # a batch of 1 would become a constant
    network.train()  # drop what some backbones (levit, tiny_vit) cache in eval mode: it would become constants
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", CACHED_WHILE_EXPORTING, UserWarning)
            program = torch.onnx.export(
                network.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(OUTPUTS[1:] if isinstance(network, EmbeddingNetwork) else OUTPUTS),
                dynamic_shapes=({0: torch.export.Dim("n")},),
                verbose=False,
            )
        assert program is not None
        save(program.model_proto, path)
    except OSError:  # a fault of the file system, not of the network
        raise
    except Exception as error:
        raise ExportError(f"torch could not export this backbone to ONNX opset {OPSET}: {error}") from error
