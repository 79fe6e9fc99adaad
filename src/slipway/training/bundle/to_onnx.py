"""Writes a trained network as one ONNX file."""

import warnings
from pathlib import Path

import torch
from torch import nn

from slipway.contract import ExportError
from slipway.onnx_graph import INPUT, OUTPUTS, save
from slipway.training.learn.network import Network

OPSET = 18
CACHED_WHILE_EXPORTING = r"The tensor attributes? ([\w.]+\.attention_bias_cache\['cpu'\],? )+(was|were) assigned"
"""What torch.export says of levit and its kin. It empties their caches again, and the graph computes the biases."""


class Embedder(nn.Module):
    """`network` without its logits: what a base is."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels_nchw: torch.Tensor) -> torch.Tensor:
        embedding_nd: torch.Tensor = self.network(pixels_nchw)[1]
        return embedding_nd


def write_onnx(network: Network | Embedder, path: Path, *, input_shape: tuple[int, int, int]) -> None:
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
                output_names=list(OUTPUTS[1:] if isinstance(network, Embedder) else OUTPUTS),
                dynamic_shapes=({0: torch.export.Dim("n")},),
                verbose=False,
            )
        assert program is not None
        save(program.model_proto, path)
    except OSError:  # a fault of the file system, not of the network
        raise
    except Exception as error:
        raise ExportError(f"torch could not export this backbone to ONNX opset {OPSET}: {error}") from error
