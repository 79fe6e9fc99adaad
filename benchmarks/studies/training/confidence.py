"""Confidence: the calibration error, and `unknown` on photographs and on a digit that was held out of training.

Everything is measured on the bundle, in FP32, decoded and decided as served. The photographs are scikit-image's.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.studies.study import PHOTOGRAPHS, scikit_image
from benchmarks.studies.training.result import Found, Target
from slipway.contract import Bundle, DataError, Spec
from slipway.contract.decision import Score
from slipway.contract.evidence.evaluation import EVALUATION, BeforeAndAfter, BundleEvaluation, UnknownEffect
from slipway.contract.typed_file import Evidence

HELD_OUT, EPOCHS = "9", 10
MAX_ECE, MIN_AUROC, MIN_FOREIGN_UNKNOWN, MAX_KNOWN_UNKNOWN = 0.02, 0.9, 0.95, 0.03


class Foreign(Evidence):
    """Images of no class, and those of them that are not `unknown`."""

    images: int
    unknown_rate: float
    not_unknown: tuple[str, ...] = ()
    not_measured: str = ""
    """Why none was measured."""


class HeldOut(Evidence):
    """A class that was left out of training, against the test images of the others."""

    label: str
    score: Score
    images: int
    known_images: int
    auroc: float
    unknown_rate: float
    known_unknown_rate: float


def measure(scratch: Path) -> Found:
    from benchmarks.studies.training.digits import digits
    from slipway.training import export, train

    spec = digits(scratch, config="digits_unknown", recipe={"epochs": EPOCHS})
    train(spec, scratch / "checkpoint")
    export(scratch / "checkpoint", scratch / "bundle")
    bundle = Bundle.open(scratch / "bundle")
    evaluation = BundleEvaluation.read(bundle.path / EVALUATION)
    unknown, reliability = evaluation.unknown, evaluation.reliability
    assert unknown is not None  # the configuration asks for it
    photographs, without = foreign_photographs(bundle), held_out(spec, HELD_OUT, scratch)
    return Found(
        bundle=bundle.id,
        score=unknown.score,
        scores=unknown.scores,
        top1=evaluation.top1,
        reliability=reliability,
        known=unknown.test,
        foreign=photographs,
        held_out=without,
        targets=targets(reliability, unknown.test, photographs, without),
    )


def targets(
    reliability: BeforeAndAfter, known: UnknownEffect, photographs: Foreign, held_out: HeldOut
) -> tuple[Target, ...]:
    told = [
        f"{r.ece:.4f} ({r.ece_interval[0]:.4f} to {r.ece_interval[1]:.4f})"
        for r in (reliability.after, reliability.before)
    ]
    return (
        Target(
            what="calibration error (ECE, 15 equal-mass bins, bootstrap interval) of the test digits",
            asked=f"at most {MAX_ECE}",
            measured=f"{told[0]}; before calibration {told[1]}",
            met=reliability.after.ece <= MAX_ECE,
        ),
        Target(
            what=f"AUROC of the unknown score: digits against the {HELD_OUT}s, never trained on",
            asked=f"at least {MIN_AUROC}",
            measured=f"{held_out.auroc:.3f} ({held_out.score}; {held_out.images} images)",
            met=held_out.auroc >= MIN_AUROC,
        ),
        Target(
            what="unknown of scikit-image's photographs",
            asked=f"at least {MIN_FOREIGN_UNKNOWN:.0%}",
            measured=photographs.not_measured or f"{photographs.unknown_rate:.1%} of {photographs.images}",
            met=photographs.unknown_rate >= MIN_FOREIGN_UNKNOWN,
        ),
        Target(
            what="unknown of the test digits at the same threshold",
            asked=f"at most {MAX_KNOWN_UNKNOWN:.0%}",
            measured=f"{known.unknown_rate:.2%} of {known.images}",
            met=known.unknown_rate <= MAX_KNOWN_UNKNOWN,
        ),
    )


def foreign_photographs(bundle: Bundle) -> Foreign:
    """Measure the share of `unknown` among scikit-image's photographs; without that package the target is missed."""
    try:
        folder = scikit_image()
    except DataError as error:
        return Foreign(images=0, unknown_rate=0.0, not_measured=str(error))
    return foreign(bundle, [path for name in PHOTOGRAPHS for path in sorted(folder.glob(f"{name}.*"))])


def foreign(bundle: Bundle, images: Sequence[Path]) -> Foreign:
    """Count the `images` that the bundle calls `unknown`, and name the others."""
    from slipway.steps.postprocess import UNKNOWN, Postprocessor

    logits_nc, embedding_nd, status_n = outputs(bundle, images)
    step = Postprocessor(bundle.decision.model_dump(), bundle.labels)
    answers = step.run(logits_nc, status_n, embedding_nd)
    taken = tuple(image.name for image, row in zip(images, answers.label_nk, strict=True) if row[0] != UNKNOWN)
    return Foreign(images=len(images), unknown_rate=1 - len(taken) / len(images), not_unknown=taken)


def held_out(spec: Spec, label: str, work: Path) -> HeldOut:
    """Train `spec` without the class `label`; returns the AUROC of its score between test images and all images of the
    class."""
    from slipway.evaluation.unknown import auroc, score_of
    from slipway.training import export, train

    data, folder = Path(spec.data.root), work / f"without_{label}"
    if not (data / label).is_dir():
        raise DataError(f"{data / label}: no such folder; --held-out names a class of the data set")
    leave_out = shutil.ignore_patterns(label)
    shutil.copytree(data, folder / "data", ignore=lambda at, names: leave_out(at, names) if Path(at) == data else set())
    without = spec.model_copy(update={"data": spec.data.model_copy(update={"root": str(folder / "data")})})
    train(without, folder / "checkpoint")
    export(folder / "checkpoint", folder / "bundle")
    bundle = Bundle.open(folder / "bundle")
    known, strange = test_images(bundle), images_in(data / label)
    scores = [score_of(bundle.decision, *outputs(bundle, images)[:2]) for images in (known, strange)]
    separation = auroc(*scores)
    assert bundle.decision.unknown is not None
    assert separation is not None  # there are images of both
    score, threshold = bundle.decision.unknown.score, bundle.decision.unknown.threshold
    return HeldOut(
        label=label,
        score=score,
        images=len(strange),
        known_images=len(known),
        auroc=separation,
        unknown_rate=float((scores[1] < threshold).mean()),
        known_unknown_rate=float((scores[0] < threshold).mean()),
    )


def test_images(bundle: Bundle) -> list[Path]:
    from slipway.contract.dataset import FILE_NAME, Dataset

    dataset = Dataset.read(bundle.path / FILE_NAME)
    return [Path(dataset.root) / image.path for image in dataset.of("test")]


def images_in(folder: Path) -> list[Path]:
    """List the images of a folder. Raises DataError: the folder has none."""
    images = sorted(path for path in folder.glob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg", ".webp"})
    if not images:
        raise DataError(f"{folder}: no .png, .jpg, .jpeg or .webp in it")
    return images


def outputs(bundle: Bundle, images: Sequence[Path]) -> tuple[Any, Any, Any]:
    """Compute logits, embeddings and statuses in FP32 by OpenVINO; all images must be readable."""
    import numpy as np

    from slipway.steps.engine_openvino import Engine
    from slipway.steps.normalize import normalize
    from slipway.steps.preprocess import Preprocessor

    size = bundle.spec.serving.max_batch_size
    config = bundle.preprocess.model_dump()
    preprocessor = Preprocessor(config, max_batch_size=size, threads=1)
    engine = Engine(bundle.path / "model.onnx", arithmetic="f32", threads=bundle.spec.serving.threads)
    parts = []
    for start in range(0, len(images), size):
        pixels_nhwc_u8, status_n = preprocessor.run([path.read_bytes() for path in images[start : start + size]])
        if status_n.any():
            refused = images[start + int(np.flatnonzero(status_n)[0])]
            raise DataError(f"{refused}: serving would refuse it; leave it out")
        parts.append((*engine.run(normalize(pixels_nhwc_u8, config)), status_n))
    logits_nc, embedding_nd, status_n = (np.concatenate(part) for part in zip(*parts, strict=True))
    return logits_nc, embedding_nd, status_n
