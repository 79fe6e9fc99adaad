"""A spec to a checkpoint: weights without pickle, the split that was used, and how training went."""

import json
import logging
import re
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from safetensors.torch import save_file

from slipway.contract import DataError, Manifest, Spec, SpecError
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.files import complete_folder
from slipway.evaluation.unknown import check_coverage
from slipway.training.dataset import scan
from slipway.training.decodable import check_decodable
from slipway.training.loader import eval_loader, train_loader
from slipway.training.module import Training
from slipway.training.network import Network
from slipway.training.tracking import hyper_parameters, logger_for

LIBRARIES = ("torch", "timm", "lightning", "nvidia-dali-cuda130", "safetensors")


def train(spec: Spec, out: Path, *, callbacks: Sequence[lightning.Callback] = ()) -> Manifest:
    """Train `spec` and write the checkpoint folder `out`, whole or not at all; metrics go where `tracking` says.

    Args:
        callbacks: of Lightning, beside our own.

    Raises:
        DataError: the images cannot be used.
        SpecError: the spec asks for what is not there.
    """
    if spec.task != "multiclass":
        raise SpecError(f"task: {spec.task} cannot be trained yet; the valid task here is multiclass")
    if spec.preprocess.decoder != "cpu":
        raise SpecError("preprocess.decoder: mixed belongs to the gpu lane; the valid value for training here is cpu")
    logger = logger_for(spec.tracking, out)
    dataset = scan(spec.data, task=spec.task)
    check_decodable(dataset, spec.preprocess)
    check_coverage(spec.decision.unknown, images=len(dataset.of("validation")))
    lightning.seed_everything(spec.recipe.seed, workers=True, verbose=False)
    input_size = (spec.preprocess.input_height, spec.preprocess.input_width)
    network = Network(
        spec.backbone, classes=len(dataset.labels), pretrained=spec.backbone.pretrained, input_size=input_size
    )
    _check_input_size(network, spec)
    started = time.monotonic()
    with complete_folder(out) as staging:
        history, best = _fit(network, dataset, spec, logger=logger, callbacks=callbacks)
        weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        save_file(weights, staging / "model.safetensors")
        spec.write(staging / "spec.json")
        dataset.write(staging / DATASET)
        (staging / "history.json").write_text(json.dumps(history, indent=2) + "\n", encoding="utf-8")
        return Manifest.seal(
            staging,
            kind="checkpoint",
            name=spec.name,
            libraries=LIBRARIES,
            seed=spec.recipe.seed,
            measured={
                "images": {split: len(dataset.of(split)) for split in ("train", "validation", "test")},
                "epochs": len(history),
                "best_validation_loss": best,
                "train_s": round(time.monotonic() - started, 1),
            },
        )


def _check_input_size(network: Network, spec: Spec) -> None:
    """Raises SpecError where the backbone does not take the input size, before any epoch."""
    preprocess = spec.preprocess
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 3, preprocess.input_height, preprocess.input_width))
    except (AssertionError, RuntimeError) as error:
        raise SpecError(
            f"preprocess: backbone {spec.backbone.name} does not take {preprocess.input_height}x"
            f"{preprocess.input_width} pixels: {error}; change input_height and input_width"
        ) from error
    network.train()


def _fit(
    network: Network, dataset: Dataset, spec: Spec, *, logger: Any, callbacks: Sequence[lightning.Callback]
) -> tuple[list[dict[str, float]], float]:
    """Fit in place; the network ends with the weights of the best validation loss."""
    recipe, train_images = spec.recipe, dataset.of("train")
    network.to(memory_format=torch.channels_last)
    steps = len(train_images) // recipe.batch_size
    if steps == 0:
        raise SpecError(f"recipe.batch_size: {recipe.batch_size} given, and only {len(train_images)} train images")
    options: dict[str, Any] = {"preprocess": spec.preprocess, "recipe": recipe, "threads": 2}
    module = Training(network, recipe=recipe, classes=len(dataset.labels), steps_per_epoch=steps)
    with tempfile.TemporaryDirectory(prefix="slipway-train-") as scratch, warnings.catch_warnings():
        # Lightning advises DataLoader workers; the loader here is DALI.
        warnings.filterwarnings("ignore", message=".*(does not have many workers|LeafSpec).*")
        keep_best = ModelCheckpoint(scratch, monitor="val_loss", save_weights_only=True)
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        trainer = lightning.Trainer(
            max_epochs=recipe.epochs,
            devices=1,  # the loader is not sharded
            num_sanity_val_steps=0,
            callbacks=[
                keep_best,
                EarlyStopping("val_loss", patience=recipe.patience_epochs),
                *([LearningRateMonitor("epoch")] if logger else []),
                *callbacks,
            ],
            default_root_dir=scratch,
            logger=logger,
            log_every_n_steps=steps,
            deterministic=True,
            enable_model_summary=False,
        )
        if logger:
            logger.log_hyperparams(hyper_parameters(spec))
        try:
            trainer.fit(
                module,
                train_loader(dataset, train_images, **options),
                eval_loader(dataset, dataset.of("validation"), **options),
            )
        except RuntimeError as error:
            refused = re.search(r"Failed to decode sample #\d+ : (.+)", str(error))
            if refused is None:
                raise
            raise DataError(f"{refused[1]}: the decoder refuses this image; repair or remove it") from error
        if trainer.interrupted:  # Lightning swallows Ctrl-C; a half-trained checkpoint is not a result
            raise KeyboardInterrupt
        state = torch.load(keep_best.best_model_path, weights_only=True)["state_dict"]
    module.load_state_dict(state)
    network.eval()
    return module.history, float(keep_best.best_model_score)
