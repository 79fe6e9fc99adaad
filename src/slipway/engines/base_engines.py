"""Makes the engines of a base: compiles each precision, and compares its embeddings with FP32's."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from slipway.contract import CompileError, Manifest
from slipway.contract.base_bundle import Base, BaseEngine
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.engine import engine_name
from slipway.contract.evidence.build import BaseEngineMeasured, EmbeddingLoss
from slipway.contract.evidence.gate import FAIL, PASS, REFERENCE, Ungated
from slipway.contract.spec import Precision
from slipway.engines.compile import LIBRARIES, Graph, openvino, settings_of
from slipway.engines.timing import time_batches
from slipway.evaluation.predict import Float, ServedNetwork, predict_served
from slipway.steps import engine_openvino
from slipway.system.files import complete_folder
from slipway.system.targets import check_folder


def build_base_engine(
    base: Base, graphs: Path, out: Path, *, precision: Precision, reference: BaseEngine | None
) -> BaseEngine:
    """Write one engine folder of the cpu lane below `out`, whatever the gate's verdict; return it opened.

    Args:
        reference: the FP32 engine that the gate compares with; None for FP32 itself.

    Raises:
        CompileError: OpenVINO rejected the graph, the processor lacks the arithmetic, or an embedding is not finite.
        ManifestError: the graph is missing or not of this base.
        DataError: an image is missing or changed.
    """
    graph = Graph.open(base, graphs, precision)
    folder = out / engine_name("openvino", precision)
    check_folder(folder, kind="engine", inputs=[base.path, graph.path.parent])
    serving = base.spec.serving
    with complete_folder(folder, kind="engine") as staging:
        (staging / "model.onnx").write_bytes(graph.served)
        network, arithmetic = openvino(staging / "model.onnx", precision=precision, threads=serving.threads)
        settings = settings_of(base, graph, target="openvino", precision=precision, arithmetic=arithmetic)
        settings.write(staging / "engine.json")
        gate: EmbeddingLoss | Ungated = Ungated(verdict=REFERENCE)
        embedding_nd = _embeddings(base, network.run, what=precision)
        if reference is not None:
            before_nd = _embeddings(base, run_of(reference, threads=serving.threads), what="fp32")
            gate = judge(before_nd, embedding_nd, min_cosine=base.spec.embedding.min_cosine)
        Manifest.seal(
            staging,
            kind="engine",
            name=base.spec.name,
            bundle=base.id,
            inputs=graph.inputs,
            libraries=(*LIBRARIES, "openvino"),
            versions_before=graph.versions,
            measured=BaseEngineMeasured(
                gate=gate,
                latency=time_batches(network.run, base, batch_sizes={1, serving.max_batch_size}),
                graph=graph.measured,
            ),
        )
    return BaseEngine.open(folder, base=base)


def run_of(engine: BaseEngine, *, threads: int) -> ServedNetwork:
    """The engine as it is served: maps `pixels_nhwc_u8` to logits `[n, 0]` and `embedding_nd`."""
    return engine_openvino.Engine(
        engine.path / "model.onnx", arithmetic=engine.settings.arithmetic, threads=threads
    ).run


def judge(before_nd: Float, after_nd: Float, *, min_cosine: float) -> EmbeddingLoss:
    """How far embeddings `after_nd` `[n, d]` are from FP32's `before_nd` of the same images."""
    cosine_n = (_unit(before_nd) * _unit(after_nd)).sum(axis=1)
    mean = float(cosine_n.mean())
    return EmbeddingLoss(
        verdict=PASS if mean >= min_cosine else FAIL,
        images=len(cosine_n),
        mean_cosine=mean,
        low_cosine=float(np.quantile(cosine_n, 0.01)),
        same_neighbour=float((_nearest(before_nd) == _nearest(after_nd)).mean()),
        min_cosine=min_cosine,
    )


def _unit(embedding_nd: Float) -> Float:
    lengths_n1 = np.linalg.norm(embedding_nd, axis=1, keepdims=True)
    unit_nd: Float = embedding_nd / np.maximum(lengths_n1, np.finfo(np.float32).tiny)
    return unit_nd


def _nearest(embedding_nd: Float) -> npt.NDArray[np.intp]:
    """The nearest other image of each, by cosine."""
    cosine_nn = _unit(embedding_nd) @ _unit(embedding_nd).T
    np.fill_diagonal(cosine_nn, -np.inf)
    nearest_n: npt.NDArray[np.intp] = cosine_nn.argmax(axis=1)
    return nearest_n


def _embeddings(base: Base, network: ServedNetwork, *, what: str) -> Float:
    """Embeddings of the images that judge.

    Raises:
        CompileError: one is not finite.
    """
    dataset = Dataset.read(base.path / DATASET)
    found = predict_served(
        network,
        dataset,
        dataset.of("test"),
        preprocess=base.preprocess,
        batch_size=base.spec.serving.max_batch_size,
        what=f"embeddings, {what}",
    )
    broken = int((~np.isfinite(found.embedding_nd).all(axis=1)).sum())
    if broken:
        raise CompileError(
            f"{what}: embeddings of {broken} of {len(found.images)} images are not finite; this precision does not "
            "suit the backbone, so use another"
        )
    return found.embedding_nd
