"""Trains a spec into a checkpoint: weights without pickle, the split that was used, and the training history."""

import logging
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from safetensors import SafetensorError
from safetensors.torch import save_file

from slipway.contract import Manifest, Spec, StorageError
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.evidence.build import CheckpointMeasured
from slipway.contract.evidence.history import HISTORY, EpochRow, history_text
from slipway.system.files import complete_folder, sha256_file
from slipway.training.data.dataset import check_decodable
from slipway.training.data.loader import Loading, eval_loader, train_loader
from slipway.training.data.order import rare_classes, steps_per_epoch
from slipway.training.learn.callbacks import WholeCheckpoints, make
from slipway.training.learn.check_training import CheckedTraining, get_ready
from slipway.training.learn.devices import devices_of, is_first, process_of
from slipway.training.learn.module import Training
from slipway.training.learn.resume import UnfinishedRun
from slipway.training.learn.tracking import begin, logger_for
from slipway.training.learn.weighting import repeated

LIBRARIES = ("torch", "timm", "lightning", "cykooz-resizer", "nvidia-dali-cuda130", "safetensors")
WEIGHTS = "model.safetensors"
PRECISIONS: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}  # our names to Lightning's


def train(spec: Spec, out: Path, *, resume: bool = False, callbacks: Sequence[Callback] = ()) -> Manifest | None:
    """Train `spec` and write the checkpoint folder `out`, whole or not at all; metrics go to the spec's `tracking`.

    A run that ends before its last epoch leaves `<out>.resume`. `resume` continues it, or starts anew where there is
    none, and ends in the same weights and history as a run that was never stopped.

    Args:
        callbacks: Lightning callbacks to run beside our own.

    Returns:
        The manifest, or None on every process but the first, which alone writes.

    Raises:
        DataError: the images cannot be used.
        SpecError: the spec asks for something that does not exist, or differs from that of the unfinished run.
    """
    logger = logger_for(spec.tracking, out)
    ready, unfinished = get_ready(spec, out, resume=resume), UnfinishedRun(out)
    if not is_first():
        _fit(ready, unfinished, None, logger=logger, callbacks=callbacks)
        return None
    spec, dataset = ready.spec, ready.dataset
    check_decodable(dataset, spec.preprocess)
    started = time.monotonic()
    for line in (*ready.reasons, f"weights: {ready.origin}"):
        print(line, flush=True)
    with unfinished.told(), complete_folder(out, kind="checkpoint") as staging:
        checkpoint = unfinished.begin(spec, dataset, start=ready.origin, resume=resume)
        try:
            with unfinished.same_threads():
                history, epoch = _fit(ready, unfinished, checkpoint, logger=logger, callbacks=callbacks)
        finally:
            unfinished.remove_if_empty()
        best = next(row for row in history if row.epoch == epoch)
        measured = CheckpointMeasured(
            images={split: len(dataset.of(split)) for split in ("train", "validation", "test")},
            **({"minority": rare} if (rare := _rare_labels(spec, dataset)) else {}),
            epochs=len(history),
            best_epoch=epoch,
            best_validation_loss=best["val_loss"],
            best_validation_macro_f1=best["val_macro_f1"],
            phase=best.phase,
            weights=ready.origin,
            chosen=tuple(ready.reasons),
            resumed=checkpoint is not None,
            train_s=round(time.monotonic() - started, 1),
        )
        manifest = _write(staging, ready, history=history, measured=measured)
    unfinished.remove()
    return manifest


def _write(
    staging: Path, ready: CheckedTraining, *, history: Sequence[EpochRow], measured: CheckpointMeasured
) -> Manifest:
    spec, weights = ready.spec, {name: tensor.contiguous() for name, tensor in ready.network.state_dict().items()}
    try:
        save_file(weights, staging / WEIGHTS)
    except SafetensorError as error:  # a fault of the disk, without an errno
        raise StorageError(f"{staging.parent}: the weights cannot be written: {error}; free some disk space") from None
    spec.write(staging / "spec.json")
    ready.dataset.write(staging / DATASET)
    (staging / HISTORY).write_text(history_text(history), encoding="utf-8")
    start = {"weights": sha256_file(Path(path))} if (path := spec.backbone.weights) else {}
    return Manifest.seal(
        staging,
        kind="checkpoint",
        name=spec.name,
        inputs={"training": ready.given_sha256} | start,
        libraries=LIBRARIES,
        seed=spec.recipe.seed,
        measured=measured,
    )


def _rare_labels(spec: Spec, dataset: Dataset) -> tuple[str, ...]:
    """Return the labels whose images `recipe.augment.minority` changed."""
    minority = spec.recipe.augment.minority
    if minority is None:
        return ()
    return tuple(dataset.labels[c] for c in sorted(rare_classes(dataset.of("train"), below=minority.below)))


def _fit(
    ready: CheckedTraining,
    unfinished: UnfinishedRun,
    checkpoint: Path | None,
    *,
    logger: Any,
    callbacks: Sequence[Callback],
) -> tuple[Sequence[EpochRow], int]:
    """Fit the network, and return its history and the best epoch, whose weights it gets on the first process."""
    spec, dataset, network = ready.spec, ready.dataset, ready.network
    recipe = spec.recipe
    train_images = repeated(dataset.of("train"), balance=recipe.balance, classes=len(dataset.labels), seed=recipe.seed)
    devices = devices_of(spec.compute)
    for images in (dataset.of("validation"), train_images):
        steps = steps_per_epoch(len(images), batch_size=recipe.batch_size, world_size=devices.processes)
    module = Training(network, spec=spec, dataset=dataset, steps_per_epoch=steps)
    with warnings.catch_warnings():
        # Lightning advises more DataLoader workers, but DALI loads here; it also warns of the non-empty resumed folder.
        warnings.filterwarnings("ignore", message=".*(does not have many workers|LeafSpec|exists and is not empty).*")
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        trainer = lightning.Trainer(
            **asdict(devices),
            max_epochs=recipe.epochs,
            precision=PRECISIONS[recipe.precision],
            accumulate_grad_batches=recipe.accumulate_batches,
            gradient_clip_val=recipe.gradient_clip,
            num_sanity_val_steps=0,
            callbacks=[*make(recipe, unfinished), *([LearningRateMonitor("epoch")] if logger else []), *callbacks],
            default_root_dir=unfinished.folder,
            plugins=WholeCheckpoints(),
            logger=logger,
            log_every_n_steps=steps,
            deterministic=True,
            enable_model_summary=False,
            enable_progress_bar=sys.stdout.isatty(),
        )
        if logger:
            begin(logger, spec)
        loading = Loading(spec.preprocess, recipe, threads=2, task=spec.task, process=process_of(trainer))
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(
                module,
                train_loader(dataset, train_images, loading),
                eval_loader(dataset, dataset.of("validation"), loading),
                ckpt_path=checkpoint,
                weights_only=True,
            )
        except SystemExit:  # Lightning raises it on Ctrl-C, which it ignores from then on
            signal.signal(signal.SIGINT, on_ctrl_c)
            if unfinished.last.is_file():
                print(f"\n{unfinished.folder}: {len(module.history)} epochs; continue with --resume", file=sys.stderr)
            raise KeyboardInterrupt from None
    if not trainer.is_global_zero:  # the first process's checkpoints may lie on another machine
        return module.history, -1
    best = unfinished.read(unfinished.best)
    module.load_state_dict(best["state_dict"])
    network.eval()
    return module.history, int(best["epoch"])
