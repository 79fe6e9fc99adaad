"""Trains a spec into a checkpoint: weights without pickle, the split that was used, and the training history."""

import json
import logging
import signal
import sys
import time
import warnings
from collections.abc import Sequence
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
from slipway.system.files import complete_folder, sha256_file
from slipway.training.data.decodable import check_decodable
from slipway.training.data.loader import eval_loader, train_loader
from slipway.training.data.order import rare_classes, steps_per_epoch
from slipway.training.learn.callbacks import WholeCheckpoints, make
from slipway.training.learn.devices import is_first, share_of, trainer_options
from slipway.training.learn.module import Training
from slipway.training.learn.network import Network
from slipway.training.learn.ready import get_ready
from slipway.training.learn.resume import Unfinished
from slipway.training.learn.tracking import begin, logger_for
from slipway.training.learn.weighting import repeated

LIBRARIES = ("torch", "timm", "lightning", "nvidia-dali-cuda130", "safetensors")
WEIGHTS = "model.safetensors"
PRECISIONS: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}  # our names to Lightning's
History = list[dict[str, Any]]


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
    given = spec.training_sha256
    logger = logger_for(spec.tracking, out)
    ready = get_ready(spec, out, resume=resume)
    spec, dataset, network = ready.spec, ready.dataset, ready.network
    if is_first():
        check_decodable(dataset, spec.preprocess)
    started = time.monotonic()
    unfinished = Unfinished(out)
    run: dict[str, Any] = {"logger": logger, "callbacks": callbacks}
    if not is_first():
        _fit(network, dataset, spec, unfinished, None, **run)
        return None
    for line in (*ready.reasons, f"weights: {ready.origin}"):
        print(line, flush=True)
    with unfinished.told(), complete_folder(out, kind="checkpoint") as staging:
        checkpoint = unfinished.begin(spec, dataset, start=ready.origin, resume=resume)
        try:
            with unfinished.same_threads():
                history, best = _fit(network, dataset, spec, unfinished, checkpoint, **run)
        finally:
            unfinished.remove_if_empty()
        measured = CheckpointMeasured(
            images={split: len(dataset.of(split)) for split in ("train", "validation", "test")},
            **_rare_labels(spec, dataset),
            epochs=len(history),
            **best,
            weights=ready.origin,
            chosen=tuple(ready.reasons),
            resumed=checkpoint is not None,
            train_s=round(time.monotonic() - started, 1),
        )
        manifest = _write(staging, network, spec=spec, dataset=dataset, history=history, measured=measured, given=given)
    unfinished.remove()
    return manifest


def _write(
    staging: Path,
    network: Network,
    *,
    spec: Spec,
    dataset: Dataset,
    history: History,
    measured: CheckpointMeasured,
    given: str,
) -> Manifest:
    """Write the checkpoint; `given` is the `training_sha256` of the spec before `auto` filled it in."""
    try:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, staging / WEIGHTS)
    except SafetensorError as error:  # a fault of the disk, without an errno
        raise StorageError(f"{staging.parent}: the weights cannot be written: {error}; free some disk space") from None
    spec.write(staging / "spec.json")
    dataset.write(staging / DATASET)
    (staging / "history.json").write_text(json.dumps(history, indent=2) + "\n", encoding="utf-8")
    return Manifest.seal(
        staging,
        kind="checkpoint",
        name=spec.name,
        inputs={"training": given} | ({"weights": sha256_file(Path(path))} if (path := spec.backbone.weights) else {}),
        libraries=LIBRARIES,
        seed=spec.recipe.seed,
        measured=measured,
    )


def _rare_labels(spec: Spec, dataset: Dataset) -> dict[str, Any]:
    """Return the labels whose images `recipe.augment.minority` changed."""
    minority = spec.recipe.augment.minority
    if minority is None:
        return {}
    return {"minority": [dataset.labels[c] for c in sorted(rare_classes(dataset.of("train"), below=minority.below))]}


def _fit(
    network: Network,
    dataset: Dataset,
    spec: Spec,
    unfinished: Unfinished,
    checkpoint: Path | None,
    *,
    logger: Any,
    callbacks: Sequence[Callback],
) -> tuple[History, dict[str, Any]]:
    """Fit the network. On the first process it gets the weights of the best epoch, whose history row is returned."""
    recipe = spec.recipe
    train_images = repeated(dataset.of("train"), balance=recipe.balance, classes=len(dataset.labels), seed=recipe.seed)
    compute = trainer_options(spec.compute)
    world_size = compute["devices"] * compute["num_nodes"]
    for images in (dataset.of("validation"), train_images):
        steps = steps_per_epoch(len(images), batch_size=recipe.batch_size, world_size=world_size)
    module = Training(network, spec=spec, dataset=dataset, steps_per_epoch=steps)
    with warnings.catch_warnings():
        # Lightning advises more DataLoader workers, but DALI loads here; it also warns of the non-empty resumed folder.
        warnings.filterwarnings("ignore", message=".*(does not have many workers|LeafSpec|exists and is not empty).*")
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        trainer = lightning.Trainer(
            **compute,
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
        options: dict[str, Any] = {"preprocess": spec.preprocess, "recipe": recipe, "threads": 2, "task": spec.task}
        options["share"] = share_of(trainer)
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(
                module,
                train_loader(dataset, train_images, **options),
                eval_loader(dataset, dataset.of("validation"), **options),
                ckpt_path=checkpoint,
                weights_only=True,
            )
        except SystemExit:  # Lightning raises it on Ctrl-C, which it ignores from then on
            signal.signal(signal.SIGINT, on_ctrl_c)
            if unfinished.last.is_file():
                print(f"\n{unfinished.folder}: {len(module.history)} epochs; continue with --resume", file=sys.stderr)
            raise KeyboardInterrupt from None
    if not trainer.is_global_zero:  # the first process's checkpoints may lie on another machine
        return module.history, {}
    best = unfinished.read(unfinished.best)
    module.load_state_dict(best["state_dict"])
    network.eval()
    return module.history, _best_row(module.history, best["epoch"])


def _best_row(history: History, epoch: int) -> dict[str, Any]:
    """Return the manifest's figures for the epoch whose weights are kept."""
    row = next(row for row in history if row["epoch"] == epoch)
    return {
        "best_epoch": epoch,
        "best_validation_loss": row["val_loss"],
        "best_validation_macro_f1": row["val_macro_f1"],
        "phase": row["phase"],
    }
