"""The gate of a base's engines: compares their embeddings with FP32's."""

import numpy as np
import numpy.typing as npt

from slipway.contract import CompileError
from slipway.contract.base_bundle import Base, BaseEngine
from slipway.contract.evidence.build import EmbeddingLoss
from slipway.contract.evidence.gate import FAIL, PASS, REFERENCE, Ungated
from slipway.engines.evaluate import image_by_image, run_split
from slipway.evaluation.predict import Float, ServedNetwork
from slipway.steps import engine_openvino


def evaluate_base(
    base: Base,
    network: ServedNetwork,
    *,
    name: str,
    decoder: str,
    reference: BaseEngine | None,
    single_image_profile: bool,
) -> EmbeddingLoss | Ungated:
    """The gate's result for an engine of a base, by the images that judge.

    Args:
        network: the engine as it is served.
        name: its precision, for error messages.
        reference: the FP32 engine that the gate compares with; None for FP32 itself.
        single_image_profile: whether single images run in another way than batches. They are then embedded once more,
            image by image, and the worse result counts.

    Raises:
        CompileError: an embedding is not finite.
        DataError: an image is missing or changed.
    """
    ways = {"batches": network, "single images": image_by_image(network)} if single_image_profile else {None: network}
    found = {way: _embeddings(base, run, what=name, decoder=decoder) for way, run in ways.items()}
    if reference is None:
        return Ungated(verdict=REFERENCE)
    before_nd = _embeddings(base, run_of(reference, threads=base.spec.serving.threads), what="fp32")
    limit = base.spec.embedding.min_cosine
    judged = [
        loss if way is None else loss.model_copy(update={"profile": way})
        for way, after_nd in found.items()
        for loss in [judge(before_nd, after_nd, min_cosine=limit)]
    ]
    return min(judged, key=lambda loss: loss.mean_cosine)


def run_of(engine: BaseEngine, *, threads: int) -> ServedNetwork:
    """The engine in its served form: maps `pixels_nhwc_u8` to logits `[n, 0]` and `embedding_nd`."""
    return engine_openvino.Engine(
        engine.path / "model.onnx", arithmetic=engine.settings.arithmetic, threads=threads
    ).run


def judge(before_nd: Float, after_nd: Float, *, min_cosine: float) -> EmbeddingLoss:
    """Measure how far embeddings `after_nd` `[n, d]` are from FP32's `before_nd` of the same images."""
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


def _embeddings(base: Base, network: ServedNetwork, *, what: str, decoder: str = "cpu") -> Float:
    """Embeddings of the images that judge.

    Raises:
        CompileError: one is not finite.
    """
    found = run_split(base, network, "test", decoder=decoder, what=f"embeddings, {what}")
    broken = int((~np.isfinite(found.embedding_nd).all(axis=1)).sum())
    if broken:
        raise CompileError(
            f"{what}: embeddings of {broken} of {len(found.images)} images are not finite; this precision does not "
            "suit the backbone, so use another"
        )
    return found.embedding_nd
