"""Label noise: 5 % of the digits get another label, are looked for by find_label_errors, and are left out.

The clean data set's splits stay. Then the spec is trained on the noisy train split and on what is left of it, and both
networks are judged by the true labels of the test split.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

NOISE, LEAST_FOUND, LEAST_PRECISION, MARGIN = 0.05, 0.8, 0.8, -0.01
FOLDS = 3
CHANGES: dict[str, Any] = {"recipe": {"epochs": 5}}
"""Changes to digits.yaml that save time: the study looks for the noise, not for the last tenth of a per cent."""


def measure(scratch: Path) -> dict[str, Any]:
    from benchmarks.studies.training.digits import digits
    from slipway.training.data.dataset import scan
    from slipway.training.search.cross_validation import write_table
    from slipway.training.search.label_errors import SUSPECTS, find_label_errors, write_clean

    spec = digits(scratch, **CHANGES)
    dataset = scan(spec.data)
    flipped = _flip(dataset)
    noisy = [
        image.model_copy(update={"class_ids": (flipped.get(image.path, image.class_id),)}) for image in dataset.images
    ]
    splits = {image.path: image.split for image in dataset.images}
    write_table(scratch / "noisy.csv", dataset, noisy, spec, splits=splits)
    noisy_spec = digits(scratch, **CHANGES, data={"csv": str(scratch / "noisy.csv")})
    found = find_label_errors(noisy_spec, scratch / "errors", folds=FOLDS, seed=0)
    write_clean(noisy_spec, scratch / "errors" / SUSPECTS, scratch / "clean.csv")
    detection = _detection(found.suspects, flipped, dataset)
    retraining = _retrain(scratch, dataset)
    return {
        "images": len(dataset.images),
        "changes": CHANGES,
        "agreement_by_fold": found.top1_by_fold,
        **detection,
        **retraining,
        "targets": _targets(detection, retraining, images=len(dataset.images)),
    }


def _flip(dataset: Any) -> dict[str, int]:
    """Return path to wrong class, for a seeded share `NOISE` of the images; every other class is as likely."""
    rng, images, classes = np.random.default_rng(0), len(dataset.images), len(dataset.labels)
    rows = rng.choice(images, size=round(NOISE * images), replace=False)
    steps = rng.integers(1, classes, size=len(rows))
    chosen = [(dataset.images[row], step) for row, step in zip(rows.tolist(), steps.tolist(), strict=True)]
    return {image.path: (image.class_id + step) % classes for image, step in chosen}


def _detection(suspects: Sequence[Any], flipped: Mapping[str, int], dataset: Any) -> dict[str, Any]:
    truth = {image.path: dataset.labels[image.class_id] for image in dataset.images}
    hits = [suspect for suspect in suspects if suspect.path in flipped]
    return {
        "flipped": len(flipped),
        "suspects": len(suspects),
        "found": len(hits),
        "recall": len(hits) / len(flipped),
        "precision": len(hits) / max(len(suspects), 1),
        "true_label_suggested": sum(suspect.suggested == (truth[suspect.path],) for suspect in hits),
    }


def _retrain(scratch: Path, dataset: Any) -> dict[str, Any]:
    """Train on both tables; returns top-1 on the test split's true labels, and the paired difference."""
    from benchmarks.studies.training.digits import digits, predict_checkpoint
    from slipway.training import train

    test = dataset.of("test")
    truth_n = np.array([image.class_id for image in test])
    right = {}
    for name in ("noisy", "clean"):
        spec = digits(scratch, **CHANGES, data={"csv": str(scratch / f"{name}.csv")})
        train(spec, scratch / name)
        right[name] = predict_checkpoint(scratch / name, spec, dataset, test) == truth_n
    gain, low, high = _paired(right["clean"], right["noisy"])
    return {
        "test_images": len(test),
        "top1": {name: float(right_n.mean()) for name, right_n in right.items()},
        "gain": gain,
        "gain_interval": (low, high),
    }


def _paired(one_n: Any, other_n: Any) -> tuple[float, float, float]:
    """Return the difference of two shares on the same images, and its 95 % interval by 10,000 bootstrap resamples of
    them."""
    difference_n = one_n.astype(float) - other_n.astype(float)
    rng = np.random.default_rng(0)
    draws = difference_n[rng.integers(len(difference_n), size=(10_000, len(difference_n)))].mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(difference_n.mean()), float(low), float(high)


def _targets(detection: Mapping[str, Any], retraining: Mapping[str, Any], *, images: int) -> list[dict[str, Any]]:
    top1, (low, high) = retraining["top1"], retraining["gain_interval"]
    return [
        {
            "what": f"{detection['flipped']} of {images} labels flipped: share found",
            "asked": f"at least {LEAST_FOUND:.0%}",
            "measured": f"{detection['recall']:.1%} ({detection['found']}; the true label is suggested for "
            f"{detection['true_label_suggested']})",
            "met": detection["recall"] >= LEAST_FOUND,
        },
        {
            "what": "share of the suspects that were flipped",
            "asked": f"at least {LEAST_PRECISION:.0%}",
            "measured": f"{detection['precision']:.1%} of {detection['suspects']}",
            "met": detection["precision"] >= LEAST_PRECISION,
        },
        {
            "what": "top-1 on the clean test split, trained without the suspects, against with them",
            "asked": f"not worse: paired 95 % interval not below {100 * MARGIN:g} points",
            "measured": f"{top1['clean']:.2%} against {top1['noisy']:.2%}: {100 * retraining['gain']:+.2f} points "
            f"({100 * low:+.2f} to {100 * high:+.2f})",
            "met": low >= MARGIN,
        },
    ]
