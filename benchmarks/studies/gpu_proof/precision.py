"""Proof `precision`: our FP16 and INT8 Q/DQ graphs in true FP16 on a GPU.

A torch executor carries out exactly the operators of our graphs, in the types that they say. `f32` repeats them with
FP32 in place of FP16, which must give the logits of OpenVINO on a CPU. Then the executor is right, and any difference
of `typed` comes from FP16. The logits go home, where `judge` puts them through the accuracy gate.
"""

import json
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.studies.gpu_proof.folder import ProofError, read_arrays
from benchmarks.studies.gpu_proof.report import Report
from benchmarks.studies.gpu_proof.torch_graph import Arithmetic, TorchGraph

BATCH = 32
ARITHMETICS: tuple[Arithmetic, ...] = ("f32", "typed")
SAME = 0.02
"""Largest difference to OpenVINO's logits in units of their spread, both in FP32; INT8 may round a half differently."""
LOGITS = "gpu_proof_precision.npz"
Logits = npt.NDArray[np.float32]


def prove(inputs: Path, report: Report) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    folders = sorted(path.parent for path in (inputs / "precision").glob("*/network.json"))
    if not folders:
        raise ProofError(f"{inputs / 'precision'}: no network in it; run prepare, and carry inputs/ here")
    logits: dict[str, Logits] = {}
    for folder in folders:
        arrays = read_arrays(folder / "pixels.npz")
        pixels_nchw = normalised(arrays["pixels_u8"], folder, report.device)
        for graph in ("fp16", "int8"):
            report.part(f"{folder.name}, {graph}")
            expected = arrays[graph]
            found: dict[str, dict[str, float]] = {}
            half_layers = 0
            for arithmetic in ARITHMETICS:
                path, weights = folder / f"{graph}.json", folder / "weights.npz"
                network = TorchGraph(path, weights, device=report.device, arithmetic=arithmetic)
                answered, per_s = run(network, pixels_nchw)
                logits[f"{folder.name}/{graph}/{arithmetic}"] = answered
                found[arithmetic] = {**against(answered, expected), "images_per_s": round(per_s, 1)}
                half_layers = network.half_layers
            name = f"{folder.name}, {graph}"
            report.measure(name, {"images": len(expected), **found, "layers in FP16": half_layers})
            report.require(
                bool(np.isfinite(logits[f"{folder.name}/{graph}/typed"]).all()), f"{name}: logits not finite"
            )
            report.require(half_layers > 0, f"{name}: no layer computes in FP16")
            if graph == "fp16":
                largest = found["f32"]["largest"]
                report.require(largest < SAME, f"{name}: FP32 arithmetic is {largest} spreads from OpenVINO's")
    np.savez(report.folder / LOGITS, **logits)


def normalised(pixels_u8: npt.NDArray[np.uint8], folder: Path, device: str) -> torch.Tensor:
    """Normalise UINT8 `[n, 3, H, W]` for the network, as `preprocess.json` says."""
    network = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    mean, std = (torch.tensor(network[key], dtype=torch.float32)[:, None, None] for key in ("mean", "std"))
    return ((torch.from_numpy(pixels_u8).float() / 255 - mean) / std).to(device)


def run(network: TorchGraph, pixels_nchw: torch.Tensor) -> tuple[Logits, float]:
    """Run the network: FP32 logits, and images/s of the whole pass after a first batch."""
    network.run(pixels_nchw[:BATCH])["logits_nc"].cpu()
    started = time.perf_counter()
    parts = [network.run(batch)["logits_nc"].cpu() for batch in torch.split(pixels_nchw, BATCH)]
    return torch.cat(parts).numpy(), len(pixels_nchw) / (time.perf_counter() - started)


def against(logits_nc: Logits, expected_nc: Logits) -> dict[str, float]:
    """Compare with OpenVINO's logits: the differences in units of their spread, and the share of equal best classes."""
    apart = np.abs(logits_nc - expected_nc) / expected_nc.std()
    return {
        "largest": round(float(apart.max()), 6),
        "mean": round(float(apart.mean()), 6),
        "same class": round(float((logits_nc.argmax(axis=1) == expected_nc.argmax(axis=1)).mean()), 4),
    }
