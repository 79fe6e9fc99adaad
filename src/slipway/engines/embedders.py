"""Computes the embeddings of a base's engine on this machine, for the heads that stand on it."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from slipway.contract import CompileError, PlanSettings
from slipway.contract.base_bundle import Base, BaseEngine
from slipway.contract.card import cards
from slipway.contract.installed import Installed, differences
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.preprocess import Decoder
from slipway.engines.base_engines import run_of
from slipway.engines.evaluate import image_by_image
from slipway.engines.graph import Graph
from slipway.engines.plan import plan_network
from slipway.engines.tensorrt_library import import_library
from slipway.engines.typed_graph import PROVIDER, TypedGraph
from slipway.evaluation.predict import ServedNetwork
from slipway.system.files import sha256_file


@dataclass(frozen=True)
class Embedder:
    """An engine of a base, or what stands in for it here."""

    engine: BaseEngine
    key: str
    """Name of the file that keeps its embeddings."""
    decoder: Decoder
    """Where the images are decoded."""
    open: Callable[[], ServedNetwork]
    provider: str | None = None
    """Execution provider of ONNX Runtime, if that computes the embeddings."""
    stands_in: str = ""
    """Reason why the typed graph stands in for a plan; empty if it does not."""

    @property
    def size(self) -> int:
        return self.engine.settings.embedding_size

    @property
    def by_single_images(self) -> "Embedder | None":
        """This embedder for one image at a time; None unless single images have kernels of their own."""
        plan = self.engine.settings.plan
        if plan is None or not plan.single_image_profile or self.stands_in:
            return None
        return replace(self, key=f"{self.key}-single", open=lambda: image_by_image(self.open()))


def embedder_of(base: Base, engine: BaseEngine, graphs: Path) -> Embedder:
    """Return an embedder that embeds images as `engine` does. A plan that cannot run here is replaced by the typed
    graph that it was compiled from, on a CPU; `stands_in` and `provider` say so.

    Raises:
        CompileError: nothing stands in for the plan: its graph is another one by now, or FP8, or ONNX Runtime is not
            installed.
        ManifestError: the graph is missing, or not of this base.
    """
    settings, threads = engine.settings, base.spec.serving.threads
    by_engine = Embedder(
        engine,
        f"{engine.path.name}-{sha256_file(engine.path / MANIFEST)[:12]}",
        settings.decoder,
        partial(run_of, engine, threads=threads),
        settings.provider,
    )
    if settings.target == "openvino":
        return by_engine
    key = f"typed-{base.id[:12]}-{settings.graph_sha256[:12]}"
    if settings.target == "onnxruntime":
        path = engine.path / "model.onnx"
        return replace(by_engine, key=key, open=lambda: TypedGraph(path, threads=threads).run)
    assert settings.plan is not None
    reason = why_not_here(settings.plan)
    if not reason:
        return replace(by_engine, open=partial(plan_network, engine))
    if settings.precision == "fp8":
        raise CompileError(f"{engine.path}: {reason}, and nothing stands in for FP8: fit the head where the plan runs")
    if importlib.util.find_spec("onnxruntime") is None:
        raise CompileError(f"{engine.path}: {reason}, and ONNX Runtime, which would stand in, is not installed")
    graph = Graph.open(base, graphs, settings.precision)
    if graph.sha256 != settings.graph_sha256:
        raise CompileError(
            f"{graph.path}: graph {graph.sha256:.12}, and {engine.path} was compiled from {settings.graph_sha256:.12}, "
            f"which is to stand in for it ({reason}); compile the plan again"
        )
    return Embedder(
        engine,
        key,
        base.preprocess.decoder,
        lambda: TypedGraph(graph.path, served=graph.served, threads=threads).run,
        PROVIDER,
        reason,
    )


def why_not_here(plan: PlanSettings) -> str:
    """Return the reason why this machine cannot embed by the plan as its server will; empty if it can."""
    card = next(iter(cards()), None)
    if card is None:
        return "this machine has no GPU"
    if card.compute_capability != plan.compute_capability:
        return (
            f"this GPU has compute capability {card.compute_capability}, and the plan is for {plan.compute_capability}"
        )
    try:
        import_library("tensorrt")
    except CompileError:
        return "TensorRT is not installed here"
    needed = {"tensorrt": plan.version, "dali": plan.dali, "nvimgcodec": plan.nvimgcodec}
    if plan.version_compatible:
        del needed["tensorrt"]
    return next(differences(needed, Installed.here()), "")
