"""What `slipway up` refuses, or says, before its first stage: it would cost a training to learn it later."""

from typing import TYPE_CHECKING

from slipway.contract import DataError, Spec, SpecError
from slipway.contract.dataset import Dataset
from slipway.contract.selection import SERVED, listed
from slipway.engines.current import installed
from slipway.engines.provable import REMEDY, too_few
from slipway.pages import check_page
from slipway.system.targets import check_folder
from slipway.training import get_ready
from slipway.training.bundle.calibration import sample

if TYPE_CHECKING:
    from slipway.cli.up import Run


def check_places(run: "Run") -> None:
    """Raises SpecError, StorageError: a stage may not write where it would."""
    check_folder(run.bundle, kind="bundle")
    check_folder(run.repository, kind="repository")
    check_page(run.folder / "evaluation.html", kind="evaluation")
    check_page(run.folder / "report.html", kind="build report")


def check_precisions(run: "Run") -> None:
    """Raises SpecError, MissingDependencyError, CompileError: nothing can be served, or a compiler lacks."""
    if not listed(run.spec, lane="cpu"):
        raise SpecError(
            f"precisions: {', '.join(run.spec.precisions)} given, but the cpu lane, which slipway up assembles, serves "
            f"{', '.join(SERVED['cpu'])}; list one of these too"
        )
    for target in run.targets:
        installed(target)


def check_training(run: "Run") -> None:
    """Raise as training, and as export and the engines for reasons that the data set already gives.

    Raises:
        SpecError: as `get_ready`, or the test images are too few for everything that the spec lists.
        DataError: the calibration sample is too small.
    """
    try:
        ready = get_ready(run.spec, run.checkpoint, resume=True)
    except DataError:  # the first stage reports it, beside every other fault of the images
        return
    _check_calibration(run.spec, ready.dataset)
    test = [image.class_ids for image in ready.dataset.of("test")]
    text = too_few(test, ready.dataset.labels, run.spec)
    if text is None:
        return
    if "fp32" not in run.spec.precisions:
        raise SpecError(f"{text}\nthe spec lists nothing else to serve: {REMEDY}, or list fp32 too")
    print(f"{text}\nso fp32 would be served: {REMEDY}, or list fp32 alone (precisions: [fp32])", flush=True)


def _check_calibration(spec: Spec, dataset: Dataset) -> None:
    train = dataset.of("train")
    drawn = {image.class_ids for image in sample(train, spec.calibration)}
    if len(drawn) == 1 < len({image.class_ids for image in train}) and {"int8", "fp8"} & {*spec.precisions}:
        raise DataError(
            f"calibration.images: {spec.calibration.images} given, and all of one class; write at least "
            f"{len(dataset.labels)}, one per class"
        )
