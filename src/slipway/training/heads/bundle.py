"""Writes the bundle of a head: its FP32 form, whose weights are fitted to the embeddings of the base's FP32 engine."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from slipway.contract import Manifest, Spec
from slipway.contract.base_bundle import Base, BaseEngine
from slipway.contract.bundle import BASE, HEAD, BaseLink
from slipway.contract.dataset import Dataset
from slipway.contract.evidence.build import NetworkOrigin
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.evaluation.fit_decision import Outputs
from slipway.evaluation.predict import Float, Forward, Predictions, predict
from slipway.evaluation.unknown import foreign_network
from slipway.steps.engine_openvino import Engine
from slipway.steps.head import Head
from slipway.system.files import complete_folder, sha256_file
from slipway.training.bundle.write import decide_and_seal, describe, some_of_each_class
from slipway.training.data.dataset import check_coverage
from slipway.training.data.sources import read_from
from slipway.training.heads.embeddings import Embeddings


def write_head(
    out: Path,
    head: Head,
    *,
    origin: NetworkOrigin,
    inputs: Mapping[str, str],
    spec: Spec,
    dataset: Dataset,
    base: Base,
    reference: BaseEngine,
    embeddings: Embeddings,
) -> Manifest:
    """Write the bundle `out`, whole or not at all.

    Args:
        origin: with the evidence on the fit of the forms that were fitted to embeddings.
        inputs: the sha256 of what the head was made from, beside the base.
        reference: the base's FP32 engine, whose `embeddings` the head was fitted to.

    Raises:
        DataError: too few images for the `unknown` that the spec asks for.
    """
    check_coverage(spec.decision.unknown, images=len(dataset.of("validation")))
    with complete_folder(out, kind="bundle", inputs=read_from(spec.data, out=out)) as staging:
        describe(staging, spec=spec, dataset=dataset)
        head.save(staging / HEAD)
        link = BaseLink(id=base.id, name=base.spec.name, embedding_size=head.embedding_size)
        link.write(staging / BASE)
        network = cache(lambda: _whole(head, base))  # most heads need none
        outputs = Outputs(
            validation=embeddings.answer(head, dataset.of("validation")),
            test=embeddings.answer(head, dataset.of("test")),
            train=lambda: embeddings.answer(head, some_of_each_class(dataset)),
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
                **inputs,
            },
            libraries=(),
            seed=spec.recipe.seed,
            origin=origin,
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
