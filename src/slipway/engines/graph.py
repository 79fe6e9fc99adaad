"""The ONNX file that an engine of one precision is compiled from, behind the normalisation of UINT8 pixels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from slipway.contract import CompileError, Manifest, ManifestError, Preprocess
from slipway.contract.base_bundle import Owner
from slipway.contract.evidence.build import GraphMeasured
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.spec import Precision
from slipway.onnx_graph import INPUT, SERVED_INPUT, load, to_bytes
from slipway.steps.normalize import constants
from slipway.system.files import sha256_bytes, sha256_file
from slipway.system.text import command


def served_graph(path: Path, preprocess: Preprocess) -> bytes:
    """The ONNX file whose input is `pixels_nhwc_u8`, UINT8 `[n, H, W, 3]`; equal graphs give equal bytes.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not as `onnx_graph.load` asks.
    """
    model = load(path)
    _normalise_first(model.graph, preprocess)
    return to_bytes(model, input_name=SERVED_INPUT)


def _normalise_first(graph: onnx.GraphProto, preprocess: Preprocess) -> None:
    """Let `graph` take UINT8 and compute its old input by the arithmetic of `steps.normalize`.

    TensorRT takes UINT8 that is cast at once. Transposed before it is normalised, a batch costs OpenVINO nothing more
    than its FP32 input did; the other way round, its constants are applied value by value (0.9 ms at 224 pixels).
    """
    (old,) = graph.input
    batch, channels, height, width = old.type.tensor_type.shape.dim
    for name, constant_c in zip(("offset", "factor"), constants(preprocess.model_dump()), strict=True):
        graph.initializer.append(numpy_helper.from_array(constant_c[:, None, None], f"normalize/{name}"))
    cast, moved, shifted = "normalize/cast", "normalize/transpose", "normalize/sub"
    nodes = [
        helper.make_node("Cast", [SERVED_INPUT], [cast], name=cast, to=TensorProto.FLOAT),
        helper.make_node("Transpose", [cast], [moved], name=moved, perm=[0, 3, 1, 2]),
        helper.make_node("Sub", [moved, "normalize/offset"], [shifted], name=shifted),
        helper.make_node("Mul", [shifted, "normalize/factor"], [INPUT], name="normalize/mul"),
    ]
    later = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *later])
    value = graph.input.add(name=SERVED_INPUT)
    value.type.tensor_type.elem_type = TensorProto.UINT8
    value.type.tensor_type.shape.dim.extend([batch, height, width, channels])


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
        path, versions, measured = bundle.path / "model.onnx", dict[str, str](), GraphMeasured()
        inputs = {"bundle": sha256_file(bundle.path / MANIFEST)}
        if precision not in ("fp32", "bf16"):
            folder = graphs / precision
            if not folder.is_dir():
                raise ManifestError(
                    f"{folder}: no graph for {precision}; make it: "
                    + command("slipway quantize", bundle.path, "--precision", precision, "--out", folder)
                )
            manifest = Manifest.open(folder, kind="graph")
            if manifest.bundle != bundle.id:
                raise ManifestError(
                    f"{folder}: made from bundle {str(manifest.bundle)[:12]}, but the given bundle is "
                    f"{bundle.id:.12}; quantise again"
                )
            path, versions = folder / "model.onnx", manifest.versions
            inputs["graph"] = sha256_file(folder / MANIFEST)
            measured = manifest.read_measured(GraphMeasured)
        try:
            return cls(path, served_graph(path, bundle.preprocess), inputs, versions, measured)
        except ValueError as error:
            raise CompileError(f"{path}: {error}") from None
