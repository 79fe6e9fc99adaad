"""Writes the bundle of a head: its FP32 form, whose weights are fitted to the embeddings of the base's FP32 engine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from slipway.contract import Manifest, Spec
from slipway.contract.base_bundle import Base, BaseEngine
from slipway.contract.bundle import BASE, HEAD, BaseLink
from slipway.contract.dataset import Dataset
from slipway.contract.evidence.build import HeadFit
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.evaluation.predict import Float, Forward, Predictions, predict
from slipway.evaluation.unknown import check_coverage, foreign_network
from slipway.steps.engine_openvino import Engine
from slipway.steps.head import Head
from slipway.system.files import complete_folder, sha256_file
from slipway.training.bundle.fit_decision import Outputs
from slipway.training.bundle.write import decide_and_seal, describe
from slipway.training.data.sources import read_from
from slipway.training.heads.embeddings import Embeddings


@dataclass(frozen=True)
class HeadOrigin:
    """Origin of the FP32 form."""

    origin: str = "head"
    inputs: Mapping[str, str] = field(default_factory=dict)
    """sha256 of what it was made from, beside the base."""
    max_logit_difference: float | None = None
    """Largest difference from the logits of the whole classifier that the head was made from; None without one."""

    @property
    def measured(self) -> dict[str, Any]:
        """Fields of `BundleMeasured` that describe the origin."""
        difference = self.max_logit_difference
        return {"origin": self.origin} | ({} if difference is None else {"max_logit_difference": difference})


@dataclass(frozen=True)
class FittedHead:
    """Weights, and how they were fitted."""

    head: Head
    evidence: HeadFit
    """Evidence on the fit of the forms that were fitted to embeddings."""
    origin: HeadOrigin = HeadOrigin()


def write_head(
    out: Path,
    fitted: FittedHead,
    *,
    spec: Spec,
    dataset: Dataset,
    base: Base,
    reference: BaseEngine,
    embeddings: Embeddings,
) -> Manifest:
    """Write the bundle `out`, whole or not at all.

    Args:
        reference: the base's FP32 engine, whose `embeddings` the head was fitted to.

    Raises:
        DataError: too few images for the `unknown` that the spec asks for.
    """
    check_coverage(spec.decision.unknown, images=len(dataset.of("validation")))
    head = fitted.head
    with complete_folder(out, kind="bundle", inputs=read_from(spec.data, out=out)) as staging:
        describe(staging, spec=spec, dataset=dataset)
        head.save(staging / HEAD)
        link = BaseLink(id=base.id, name=base.spec.name, embedding_size=head.embedding_size)
        link.write(staging / BASE)
        network = cache(lambda: _whole(head, base))  # most heads need none
        outputs = Outputs(
            validation=embeddings.answer(head, dataset.of("validation")),
            test=embeddings.answer(head, dataset.of("test")),
            train=lambda images: embeddings.answer(head, images),
            foreign=lambda kind: _foreign(network(), kind, spec, dataset),
        )
        return decide_and_seal(
            staging,
            outputs,
            spec=spec,
            dataset=dataset,
            inputs={
                "base": sha256_file(base.path / MANIFEST),
                "engine": sha256_file(reference.path / MANIFEST),
                **fitted.origin.inputs,
            },
            libraries=(),
            seed=spec.recipe.seed,
            measured={"head": fitted.evidence, **fitted.origin.measured},
        )


def _foreign(network: Forward, kind: str, spec: Spec, dataset: Dataset) -> Predictions:
    """The outputs for images that belong to no class. Their embeddings are not kept, as they are made from pixels."""
    return predict(
        foreign_network(network, kind),
        dataset,
        dataset.of("validation"),
        preprocess=spec.preprocess,
        batch_size=spec.serving.max_batch_size,
        what=f"validation split, {kind}",
    )


def _whole(head: Head, base: Base) -> Forward:
    """The base's graph and then the head."""
    engine = Engine(base.path / "model.onnx", arithmetic="f32", threads=base.spec.serving.threads)

    def run(pixels_nchw: Float) -> tuple[Float, Float]:
        embedding_nd = engine.run(pixels_nchw)[1]
        return head.run(embedding_nd), embedding_nd

    return run
