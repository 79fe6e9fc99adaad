"""Compares a run with the run before on the old test split: no loss may be hidden by new images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slipway.contract import Bundle, BundleEngine, DataError, SpecError
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.evidence.gate import OldTest
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.shared_rules import chosen_engine
from slipway.engines.predictions_csv import read_rows
from slipway.evaluation.gate import compare_pairs
from slipway.system.files import sha256_file


@dataclass(frozen=True)
class RunWithEngine:
    """A run with the engine that answers for it on the cpu lane."""

    bundle: Bundle
    engine: BundleEngine

    @property
    def engine_sha256(self) -> str:
        return sha256_file(self.engine.path / MANIFEST)


def open_run(run: Path, engine: str | None = None) -> RunWithEngine:
    """Open a run with its chosen engine, or with the one of this name.

    Raises:
        NotChosenError, ManifestError: there is no such engine, or it is damaged.
    """
    bundle, engines = Bundle.open(run / "bundle"), run / "engines"
    if engine is not None:
        return RunWithEngine(bundle, bundle.open_engine(engines / engine))
    return RunWithEngine(bundle, chosen_engine(bundle, engines)[1])


def compare_on_old_test(old: RunWithEngine, new: RunWithEngine) -> OldTest:
    """The paired exact comparison (ADR 0015) on the old test images, with the limits of the new run's spec.

    The truth is that of the old run, whose classes alone are there. Another answer than the truth is wrong, whether it
    is a new class or `unknown`.

    Raises:
        SpecError: images have several labels, or a class id has another meaning.
        DataError: the new run does not have the old test images in its own test split.
    """
    spec = new.bundle.spec
    if "multilabel" in (spec.task, old.bundle.spec.task):
        raise SpecError("several labels an image: the old test split is compared for one label an image alone")
    if new.bundle.labels[: len(old.bundle.labels)] != old.bundle.labels:
        raise SpecError(
            f"{new.bundle.path}: its labels do not begin with those of {old.bundle.path}; append new classes, and give "
            "the order by data.labels"
        )
    truth_n, before_n, after_n = _paired(old, new)
    error, limits = 1 - spec.accuracy.confidence, spec.accuracy
    classes = {label: truth_n == label for label in dict.fromkeys(truth_n.tolist())}
    return OldTest(
        old_bundle=old.bundle.id,
        bundle=new.bundle.id,
        old_engine_sha256=old.engine_sha256,
        engine_sha256=new.engine_sha256,
        overall=compare_pairs(before_n, after_n, max_loss_points=limits.max_loss_points, confidence=limits.confidence),
        classes={
            label: compare_pairs(
                before_n[own_n],
                after_n[own_n],
                max_loss_points=limits.max_class_loss_points,
                confidence=1 - error / len(classes),
            )
            for label, own_n in classes.items()
        },
        prove_classes=limits.prove_classes,
    )


def _paired(
    old: RunWithEngine, new: RunWithEngine
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Truth `[n]`, and whether each run is right `[n]`, over the images of the old test split."""
    before, after = ({row["image"]: row for row in read_rows(one.engine.path)} for one in (old, new))
    there = _test_hashes(new.bundle)
    for image, sha256 in _test_hashes(old.bundle).items():
        if there.get(image) != sha256 or image not in after:
            raise DataError(
                f"{new.bundle.path}: {image} of the old test split is not in its test split; make the data by slipway "
                "labels dataset, which keeps the old splits"
            )
    rows = [(row["truth"], row["label"], after[image]["label"]) for image, row in before.items()]
    truth_n, before_n, after_n = (np.array(column) for column in zip(*rows, strict=True))
    return truth_n, before_n == truth_n, after_n == truth_n


def _test_hashes(bundle: Bundle) -> Mapping[str, str]:
    return {image.path: image.sha256 for image in Dataset.read(bundle.path / DATASET).of("test")}
