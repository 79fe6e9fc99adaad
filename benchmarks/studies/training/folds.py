"""Five-fold cross-validation of the demo's digits.

Each of the 1,797 scans is judged once, by a network that was trained on four fifths without it: digits.yaml, with half
of its epochs, to save time.
"""

from pathlib import Path

from benchmarks.studies.training.result import Found, Target

FOLDS, LEAST_TOP1, EPOCHS = 5, 0.985, 5


def measure(scratch: Path) -> Found:
    from benchmarks.studies.training.digits import digits
    from slipway.evaluation.intervals import share_interval
    from slipway.training.search.cross_validation import cross_validate

    spec = digits(scratch, recipe={"epochs": EPOCHS})
    found = cross_validate(spec, scratch / "folds", folds=FOLDS, seed=0)
    by_fold = found.top1_by_fold()
    mean, images = sum(by_fold) / FOLDS, len(found.dataset.images)
    right = sum(
        int(row.argmax() == image.class_id)
        for row, image in zip(found.probability_nc, found.dataset.images, strict=True)
    )
    low, high = share_interval(right, images, error=0.025)
    told = ", ".join(f"{100 * top1:.2f}" for top1 in by_fold)
    return Found(
        images=images,
        recipe=spec.recipe.plain(),
        top1_by_fold=by_fold,
        top1=mean,
        top1_interval=(low, high),
        targets=(
            Target(
                what=f"digits, mean top-1 of {FOLDS} folds",
                asked=f"at least {LEAST_TOP1:.1%}",
                measured=f"{mean:.2%} ({told}); all images {low:.2%} to {high:.2%}",
                met=mean >= LEAST_TOP1,
            ),
        ),
    )
