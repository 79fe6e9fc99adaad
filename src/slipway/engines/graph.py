"""The ONNX file that an engine of one precision is compiled from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.contract import CompileError, Manifest, ManifestError
from slipway.contract.base_bundle import Owner
from slipway.contract.evidence.build import GraphMeasured
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.spec import Precision
from slipway.engines.served_graph import served_graph
from slipway.system.files import sha256_bytes, sha256_file
from slipway.system.text import command


@dataclass(frozen=True)
class Graph:
    """The ONNX file that one precision is compiled from."""

    path: Path
    served: bytes
    """The graph of `path` behind its normalisation."""
    inputs: dict[str, str]
    versions: dict[str, str]
    measured: GraphMeasured

    @property
    def sha256(self) -> str:
        return sha256_bytes(self.served)

    @classmethod
    def open(cls, bundle: Owner[Any], graphs: Path, precision: Precision) -> "Graph":
        """The bundle's own graph for FP32 and BF16, the one in `graphs/<precision>` otherwise.

        Raises:
            ManifestError: the graph is missing, changed, or of another bundle or calibration list.
            CompileError: it is not an ONNX graph of ours.
        """
        inputs = {"bundle": sha256_file(bundle.path / MANIFEST)}
        if precision in ("fp32", "bf16"):
            path = bundle.path / "model.onnx"
            return cls(path, _served(path, bundle), inputs, {}, GraphMeasured())
        folder = graphs / precision
        if not folder.is_dir():
            raise ManifestError(
                f"{folder}: no graph for {precision}; make it: "
                + command("slipway quantize", bundle.path, "--precision", precision, "--out", folder)
            )
        manifest = Manifest.open(folder, kind="graph")
        if manifest.bundle != bundle.id:
            raise ManifestError(
                f"{folder}: made from bundle {str(manifest.bundle)[:12]}, but the given bundle is {bundle.id:.12}; "
                "quantise again"
            )
        path = folder / "model.onnx"
        inputs["graph"] = sha256_file(folder / MANIFEST)
        return cls(path, _served(path, bundle), inputs, manifest.versions, manifest.read_measured(GraphMeasured))


def _served(path: Path, bundle: Owner[Any]) -> bytes:
    try:
        return served_graph(path, bundle.preprocess)
    except ValueError as error:
        raise CompileError(f"{path}: {error}") from None
