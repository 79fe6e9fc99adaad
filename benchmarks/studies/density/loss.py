"""Measures the accuracy that heads lose on an INT8 base: fitted to its own embeddings, and carried over from FP32's."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold
from tqdm import tqdm

from benchmarks.studies.density.result import HeadLoss, PairedLoss
from slipway.cli.head_fit import HeadRun
from slipway.training.heads.embeddings import FOLDER, embed
from slipway.training.heads.fit import Fitter

FP32, INT8, CARRIED = "fp32", "int8", "carried_over"
FOLDS = 5
Right = npt.NDArray[np.bool_]


def head_loss(base: Path, name: str, images: Path, work: Path, *, seed: int) -> HeadLoss:
    """Measure the loss by cross-validation: every image is tested once, by heads that did not see it.

    Args:
        base: run of a base with the engines `openvino-fp32` and `openvino-int8`.
        images: class folders.
    """
    (work / f"{name}.json").write_text(json.dumps({"name": name, "data": {"root": str(images)}}))
    run = HeadRun.open(work / f"{name}.json", base, work / name)
    all_images = run.dataset.images
    sources = {embedder.engine.path.name: embedder for embedder in run.embedders}
    found = embed(run.base, sources, run.dataset, all_images, cache=base / FOLDER)
    given = {FP32: found["openvino-fp32"], INT8: found["openvino-int8"]}
    truth_n = np.array([image.class_id for image in all_images])
    right: dict[str, Right] = {side: np.zeros(len(truth_n), bool) for side in (FP32, INT8, CARRIED)}
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(truth_n, truth_n)
    for kept, left_out in tqdm(folds, name, total=FOLDS, disable=None):
        train, test = [all_images[row] for row in kept], [all_images[row] for row in left_out]
        fitter = Fitter(run.spec, train, classes=len(run.dataset.labels))
        strength = fitter.choose(given[FP32].of(train)).strength
        heads = {side: fitter.fit(embeddings.of(train), strength=strength) for side, embeddings in given.items()}
        for side, head, embeddings in (
            (FP32, heads[FP32], given[FP32]),
            (INT8, heads[INT8], given[INT8]),
            (CARRIED, heads[FP32], given[INT8]),
        ):
            right[side][left_out] = head.run(embeddings.of(test)).argmax(axis=1) == truth_n[left_out]
    return HeadLoss(
        images=len(truth_n),
        folds=FOLDS,
        top1={side: float(hits.mean()) for side, hits in right.items()},
        loss={side: _paired(right, side) for side in (INT8, CARRIED)},
    )


def _paired(right: Mapping[str, Right], side: str) -> PairedLoss:
    """Return the mean of the paired differences to FP32 with its normal 95 % interval, in percentage points."""
    lost_n: npt.NDArray[np.float64] = right[FP32].astype(np.float64) - right[side]
    half = 1.96 * float(lost_n.std(ddof=1)) / np.sqrt(lost_n.size)
    mean = float(lost_n.mean())
    return PairedLoss(points=100 * mean, low_points=100 * (mean - half), high_points=100 * (mean + half))
