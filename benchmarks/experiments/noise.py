#!/usr/bin/env python3
"""Label noise: 5 % of the digits get another label, are looked for by find_label_errors, and are left out.

The clean data set's splits stay. Then the spec is trained on the noisy train split and on what is left of it, and both
networks are judged by the true labels of the test split.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

NOISE, LEAST_FOUND, LEAST_PRECISION, MARGIN = 0.05, 0.8, 0.8, -0.01
FOLDS, EPOCHS = 5, 12


def measure(scratch: Path) -> dict[str, Any]:
    from _digits import digits, predict_checkpoint

    from slipway.training import train
    from slipway.training.cross_validation import write_table
    from slipway.training.dataset import scan
    from slipway.training.label_errors import SUSPECTS, find_label_errors, write_clean

    spec = digits(scratch, recipe={"epochs": EPOCHS})
    dataset = scan(spec.data)
    flipped = _flip(len(dataset.images), len(dataset.labels), dataset)
    noisy = [
        image.model_copy(update={"class_ids": (flipped.get(image.path, image.class_id),)}) for image in dataset.images
    ]
    splits = {image.path: image.split for image in dataset.images}
    write_table(scratch / "noisy.csv", dataset, noisy, spec, splits=splits)
    noisy_spec = digits(scratch, recipe={"epochs": EPOCHS}, data={"csv": str(scratch / "noisy.csv")})

    found = find_label_errors(noisy_spec, scratch / "errors", folds=FOLDS, seed=0)
    suspects = {suspect.path: suspect for suspect in found.suspects}
    hits = suspects.keys() & flipped.keys()
    recall, precision = len(hits) / len(flipped), len(hits) / max(len(suspects), 1)
    restored = sum(suspects[path].suggested == (path.split("/")[0],) for path in hits)

    write_clean(noisy_spec, scratch / "errors" / SUSPECTS, scratch / "clean.csv")
    test = dataset.of("test")
    truth_n = np.array([image.class_id for image in test])
    right = {}
    for name in ("noisy", "clean"):
        its_spec = digits(scratch, recipe={"epochs": EPOCHS}, data={"csv": str(scratch / f"{name}.csv")})
        train(its_spec, scratch / name)
        right[name] = predict_checkpoint(scratch / name, its_spec, dataset, test) == truth_n
    gain, low, high = _paired(right["clean"], right["noisy"])
    return {
        "images": len(dataset.images),
        "flipped": len(flipped),
        "suspects": len(suspects),
        "found": len(hits),
        "recall": recall,
        "precision": precision,
        "true_label_suggested": restored,
        "top1_by_fold_against_noisy_labels": found.top1_by_fold,
        "test_images": len(test),
        "top1": {name: float(right_n.mean()) for name, right_n in right.items()},
        "gain": gain,
        "gain_interval": (low, high),
        "targets": [
            {
                "what": f"{len(flipped)} of {len(dataset.images)} labels flipped: share found",
                "asked": f"at least {LEAST_FOUND:.0%}",
                "measured": f"{recall:.1%} ({len(hits)}; the true label suggested for {restored})",
                "met": recall >= LEAST_FOUND,
            },
            {
                "what": "share of the suspects that were flipped",
                "asked": f"at least {LEAST_PRECISION:.0%}",
                "measured": f"{precision:.1%} of {len(suspects)}",
                "met": precision >= LEAST_PRECISION,
            },
            {
                "what": "top-1 on the clean test split, trained without the suspects, against with them",
                "asked": f"not worse: paired 95 % interval not below {100 * MARGIN:g} points",
                "measured": f"{right['clean'].mean():.2%} against {right['noisy'].mean():.2%}: "
                f"{100 * gain:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})",
                "met": low >= MARGIN,
            },
        ],
    }


def _flip(images: int, classes: int, dataset: Any) -> dict[str, int]:
    """Path to wrong class, of a seeded `NOISE` of the images; every other class is as likely."""
    rng = np.random.default_rng(0)
    rows = rng.choice(images, size=round(NOISE * images), replace=False)
    steps = rng.integers(1, classes, size=len(rows))
    chosen = [(dataset.images[row], step) for row, step in zip(rows.tolist(), steps.tolist(), strict=True)]
    return {image.path: (image.class_id + step) % classes for image, step in chosen}


def _paired(one_n: Any, other_n: Any) -> tuple[float, float, float]:
    """The difference of two shares on the same images, and its 95 % interval by 10,000 bootstrap resamples of them."""
    difference_n = one_n.astype(float) - other_n.astype(float)
    rng = np.random.default_rng(0)
    draws = difference_n[rng.integers(len(difference_n), size=(10_000, len(difference_n)))].mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(difference_n.mean()), float(low), float(high)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder)), indent=1))
