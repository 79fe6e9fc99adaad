"""Makes a head's engine folder: its form for the embeddings of one engine of its base, gated against the FP32 form."""

from pathlib import Path

from slipway.contract import Bundle, BundleEngine, Decision, EngineSettings, Manifest
from slipway.contract.base_bundle import BaseEngine
from slipway.contract.bundle import HEAD
from slipway.contract.engine import HEAD_INPUT
from slipway.contract.evidence.build import EngineMeasured
from slipway.contract.evidence.evaluation import Conditions, PrimaryMetrics
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.preprocess import PIXEL_LIBRARIES
from slipway.engines.embedders import Embedder
from slipway.engines.evaluate import compared, worse_profile
from slipway.evaluation.fit_decision import refit_decision
from slipway.evaluation.predict import Predictions
from slipway.evaluation.unknown import fit_class_means
from slipway.steps.head import Head
from slipway.system.files import complete_folder, sha256_file

LIBRARIES = ("openvino", "scikit-learn", "scipy")


def build_head_engine(
    bundle: Bundle,
    embedder: Embedder,
    head: Head,
    out: Path,
    *,
    train: Predictions,
    validation: Predictions,
    test: Predictions,
    alone: Predictions | None,
    reference: BundleEngine | None,
) -> BundleEngine:
    """Write one engine folder with its evidence below `out`, whatever the gate's verdict; return it opened.

    Args:
        embedder: the base's engine that gave the embeddings to which `head` was fitted, or its stand-in.
        train: some images of each class, for the class means that `unknown` may need.
        test: as `train` and `validation`, the outputs of `head`.
        alone: those for the test split if images are embedded one by one, which a plan does in another way: the worse
            verdict counts.
        reference: the head's FP32 form, which the gate compares with; None for that form itself.
    """
    decision = refit_decision(
        _with_class_means(bundle.decision, train, classes=len(bundle.labels)),
        bundle.spec.decision,
        validation,
        bundle.labels,
    )
    engine = embedder.engine
    conditions = Conditions(arithmetic=engine.settings.arithmetic, decoder=embedder.decoder)
    evaluated = worse_profile(bundle, decision, test, reference, conditions, alone=alone)
    folder = out / engine.path.name
    with complete_folder(folder, kind="engine") as staging:
        head.save(staging / HEAD)
        _settings(bundle, embedder, graph_sha256=sha256_file(staging / HEAD)).write(staging / "engine.json")
        evaluated.write(staging)
        measured = EngineMeasured(**evaluated.judged.fields())
        if reference is not None:
            measured = measured.model_copy(update={"carried_over": _carried_over(bundle, test, conditions)})
        Manifest.seal(
            staging,
            kind="engine",
            name=bundle.spec.name,
            bundle=bundle.id,
            inputs={name: sha256_file(path / MANIFEST) for name, path in _inputs(bundle, engine).items()},
            libraries=(
                *LIBRARIES,
                *PIXEL_LIBRARIES[embedder.decoder],
                *(("onnxruntime",) if embedder.provider else ()),
            ),
            seed=bundle.spec.recipe.seed,
            measured=measured,
        )
    return BundleEngine.open(folder, bundle=bundle)


def _inputs(bundle: Bundle, engine: BaseEngine) -> dict[str, Path]:
    return {"bundle": bundle.path, "base_engine": engine.path}


def _settings(bundle: Bundle, embedder: Embedder, *, graph_sha256: str) -> EngineSettings:
    engine = embedder.engine
    changed = {
        "classes": len(bundle.labels),
        "input": HEAD_INPUT,
        "graph_sha256": graph_sha256,
        "calibration_sha256": None,
        "base_engine_sha256": sha256_file(engine.path / MANIFEST),
        "decoder": embedder.decoder,
        "provider": embedder.provider,
    }
    return engine.settings.model_copy(update=changed)


def _with_class_means(decision: Decision, train: Predictions, *, classes: int) -> Decision:
    """`decision` with the class means of these embeddings, where it needs some."""
    if decision.unknown is None or decision.unknown.class_means is None:
        return decision
    means = fit_class_means(train.embedding_nd, train.truth_n, classes=classes)
    return decision.model_copy(update={"unknown": decision.unknown.model_copy(update={"class_means": means})})


def _carried_over(bundle: Bundle, test: Predictions, conditions: Conditions) -> PrimaryMetrics:
    """Return the test results of FP32's head and decision on this engine's embeddings."""
    head = Head.read(bundle.path / HEAD)
    carried = Predictions(test.images, head.run(test.embedding_nd), test.embedding_nd)
    found = compared(bundle, bundle.decision, carried, None, conditions).evaluation
    return PrimaryMetrics(**found.fields(PrimaryMetrics))
