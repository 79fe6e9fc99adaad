"""What `slipway train --check` refuses or says: it would cost a training to learn it from the stages after it."""

from pathlib import Path

from slipway.contract import DataError, Spec, SpecError
from slipway.contract.dataset import SPLITS, Dataset
from slipway.engines.provable import REMEDY, too_few
from slipway.training import get_ready
from slipway.training.bundle.calibration import sample


def check(spec: Spec, out: Path, *, resume: bool) -> None:
    """Check what training, and what export and the engines after it, need of the spec and its images.

    Raises:
        DataError, SpecError: as `get_ready`; the calibration sample is too small; or the test images are too few for
            everything that the spec lists.
    """
    try:
        ready = get_ready(spec, out, resume=resume)
    except DataError as error:
        raise DataError(f"{error}\nslipway inspect SPEC --out FOLDER shows every fault of the images") from None
    counts = ", ".join(f"{len(ready.dataset.of(split)):,} {split}" for split in SPLITS)
    print(f"{counts} images, weights: {ready.origin}")
    _check_calibration(spec, ready.dataset)
    text = too_few([image.class_ids for image in ready.dataset.of("test")], ready.dataset.labels, spec)
    if text is None:
        return
    if "fp32" not in spec.precisions:
        raise SpecError(f"{text}\nthe spec lists nothing else to serve: {REMEDY}, or list fp32 too")
    print(f"{text}\nso fp32 would be served: {REMEDY}, or list fp32 alone (precisions: [fp32])")


def _check_calibration(spec: Spec, dataset: Dataset) -> None:
    train, given = dataset.of("train"), spec.calibration.images
    several = len({image.class_ids for image in train}) > 1

    def of_one_class(images: int) -> bool:
        drawn = sample(train, spec.calibration.model_copy(update={"images": images}))
        return len({image.class_ids for image in drawn}) == 1

    if of_one_class(given) and several and {"int8", "fp8"} & {*spec.precisions}:
        enough = next(images for images in range(given + 1, len(train) + 1) if not of_one_class(images))
        raise DataError(
            f"calibration.images: {given} given, and all of one class; {enough} or more are of several classes"
        )
