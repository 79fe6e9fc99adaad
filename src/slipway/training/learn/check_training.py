"""Gets a training ready: every refusal that needs no decoded image and no epoch, so that it comes in seconds."""

from dataclasses import dataclass
from pathlib import Path

import lightning
import torch

from slipway.contract import Spec, SpecError
from slipway.contract.dataset import Dataset
from slipway.contract.recipe import Recipe
from slipway.system.targets import check_folder
from slipway.training.data.augment import check_policies
from slipway.training.data.dataset import check_coverage, check_top_k, scan
from slipway.training.data.sources import read_from
from slipway.training.learn.devices import devices_of, is_first
from slipway.training.learn.network import Network
from slipway.training.learn.preset import resolve_preset
from slipway.training.learn.resume import UnfinishedRun
from slipway.training.learn.weights import start


@dataclass(frozen=True)
class CheckedTraining:
    """A training that was checked."""

    spec: Spec
    """The spec with everything that `auto` left open."""
    given_sha256: str
    """The `training_sha256` of the spec before `auto` filled it in."""
    reasons: list[str]
    """The reasons for what `auto` chose."""
    dataset: Dataset
    network: Network
    """The network that training starts from, built with the recipe's seed."""
    origin: str
    """The source of its weights, in words."""


def get_ready(spec: Spec, out: Path, *, resume: bool) -> CheckedTraining:
    """Check the spec, its images' bytes, the device, the unfinished run beside `out` and the weights to start from.

    Raises:
        DataError: the images cannot be used.
        SpecError: the spec asks for something that does not exist, or differs from that of the unfinished run.
    """
    weights = [] if spec.backbone.weights is None else [Path(spec.backbone.weights)]
    check_folder(out, kind="checkpoint", inputs=[*read_from(spec.data, out=out), *weights])
    if spec.preprocess.decoder != "cpu":
        raise SpecError("preprocess.decoder: mixed belongs to the gpu lane; the valid value for training here is cpu")
    check_policies(spec.recipe.augment)
    dataset = scan(spec.data, task=spec.task)
    check_top_k(spec, dataset)
    check_coverage(spec.decision.unknown, images=len(dataset.of("validation")))
    given = spec.training_sha256
    spec, reasons = resolve_preset(spec, dataset)
    _check_precision(spec.recipe)
    _check_batch(dataset, spec.recipe)
    _check_processes(spec, resume=resume)
    lightning.seed_everything(spec.recipe.seed, workers=True, verbose=False)
    network, origin = start(spec, classes=len(dataset.labels))
    if is_first():
        UnfinishedRun(out).check(spec, dataset, start=origin, resume=resume)
    return CheckedTraining(spec, given, reasons, dataset, network, origin)


def _check_precision(recipe: Recipe) -> None:
    """Raises SpecError where the device lacks the precision: training would silently be slow or wrong."""
    if recipe.precision == "fp32":
        return
    if torch.cuda.is_available():
        if recipe.precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise SpecError("recipe.precision: bf16 given, but this GPU does not support it; write fp16 or fp32")
    elif recipe.precision == "fp16":
        raise SpecError("recipe.precision: fp16 given, which needs a GPU; write fp32, or bf16 if the CPU supports it")
    elif not torch.cpu.get_capabilities().get("avx512_bf16", False):
        raise SpecError("recipe.precision: bf16 given, which needs a GPU or a CPU with BF16; write fp32")


def _check_processes(spec: Spec, *, resume: bool) -> None:
    """Raises SpecError where several processes use options that work only with one."""
    processes = devices_of(spec.compute).processes
    if processes > 1 and (resume or spec.recipe.freeze_epochs or spec.recipe.unfreeze_epochs):
        raise SpecError(
            f"compute: {processes} processes given, but recipe.freeze_epochs, unfreeze_epochs and --resume need a "
            "single one; leave them out, or train in one process"
        )


def _check_batch(dataset: Dataset, recipe: Recipe) -> None:
    images = len(dataset.of("train"))
    if images < recipe.batch_size:
        raise SpecError(
            f"recipe.batch_size: {recipe.batch_size} given, but only {images} train images; write a smaller number"
        )
