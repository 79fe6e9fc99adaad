"""Resolves `recipe: auto` and `backbone: auto` by the number of images. docs/recipe.md has the table and reasons."""

from dataclasses import dataclass
from typing import Any

import torch

from slipway.contract import Spec
from slipway.contract.dataset import Dataset
from slipway.contract.recipe import AUTO, Recipe

LARGEST_BATCH, STEPS_AN_EPOCH = 64, 16
EPOCHS, LONGER = 30, 60
WARMUP, FREEZE, UNFREEZE = 10, 6, 3  # divisors of the number of epochs: 3, 5 and 10 of 30


@dataclass(frozen=True)
class SizePreset:
    """The choice for data sets of up to `images` images."""

    images: float
    name: str
    backbone: str


SIZES = (
    SizePreset(1_000, "under 1,000 images", "efficientnet_b0"),
    SizePreset(10_000, "1,000 to 10,000 images", "efficientnet_b0"),
    SizePreset(100_000, "10,000 to 100,000 images", "convnext_small"),
    SizePreset(500_000, "100,000 to 500,000 images", "convnext_base"),
    SizePreset(float("inf"), "500,000 images or more", "swin_large_patch4_window7_224"),
)
FROZEN_BELOW, FULL_FROM = 1_000, 100_000


def resolve_preset(spec: Spec, dataset: Dataset) -> tuple[Spec, list[str]]:
    """Return the spec with everything chosen, and the reasons; a spec that leaves nothing open is returned unchanged.

    Given fields stay. The returned spec trains the same network when it is run again.

    Raises:
        SpecError: a given field contradicts a chosen one.
    """
    if spec.recipe.preset is None and spec.backbone.name != AUTO:
        return spec, []
    images = len(dataset.images)
    size = next(size for size in SIZES if images < size.images)
    values: dict[str, Any] = spec.model_dump()
    reasons = []
    if spec.backbone.name == AUTO:
        values["backbone"]["name"] = size.backbone
        reasons.append(f"backbone: {size.backbone}, for {size.name} ({images:,})")
    if spec.recipe.preset is not None:
        given = values.pop("recipe")
        given.pop("preset")
        epochs = given.get("epochs", LONGER if images >= FULL_FROM else EPOCHS)
        train_images = len(dataset.of("train"))
        chosen, why = _recipe(images, train_images, epochs=epochs, learned=spec.backbone.pretrained)
        kept = [name for name in given if name in chosen]
        values["recipe"] = {**Recipe().model_dump(), **chosen, **given}
        reasons.append(f"recipe: {why}")
        reasons.append("recipe: " + ", ".join(f"{name} {value}" for name, value in _shown(chosen, given)))
        if kept:
            reasons.append(f"recipe: {', '.join(kept)} as the spec says")
    return Spec.parse(values, source="the spec with what auto chose"), reasons


def _recipe(images: int, train_images: int, *, epochs: int, learned: bool) -> tuple[dict[str, Any], str]:
    """Return the fields that auto sets, and the reason; `learned` means that the backbone does not start at random."""
    chosen: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": _batch_size(train_images),
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "warmup_epochs": epochs // WARMUP,
        "gradient_clip": 1.0,
        "label_smoothing": 0.1,
        "head": {"kind": "linear", "dropout": 0.3},
        "precision": _precision(),
        "monitor": "val_macro_f1",
        "patience_epochs": 7,
        "freeze_epochs": 0,
        "unfreeze_epochs": 0,
        "backbone_multiplier": 1.0,
    }
    if not learned:
        return chosen, "everything is trained from the first epoch, because the backbone starts at random"
    chosen["backbone_multiplier"] = 0.1
    if images < FROZEN_BELOW:
        chosen["freeze_epochs"] = epochs
        return chosen, f"only the head is trained, because {images:,} images are under {FROZEN_BELOW:,}"
    if images < FULL_FROM:
        chosen |= {"freeze_epochs": epochs // FREEZE, "unfreeze_epochs": epochs // UNFREEZE}
        return chosen, (
            f"the head is trained first and the backbone joins from the top, because {images:,} images are "
            f"{FROZEN_BELOW:,} or more and under {FULL_FROM:,}"
        )
    return chosen, f"everything is trained from the first epoch, because {images:,} images are {FULL_FROM:,} or more"


def _batch_size(train_images: int) -> int:
    """Return the largest power of two, from 4 to `LARGEST_BATCH`, that leaves `STEPS_AN_EPOCH`."""
    size = 4
    while size < LARGEST_BATCH and 2 * size * STEPS_AN_EPOCH <= train_images:
        size *= 2
    return size


def _precision() -> str:
    if not torch.cuda.is_available():
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def _shown(chosen: dict[str, Any], given: dict[str, Any]) -> list[tuple[str, Any]]:
    flat = {**chosen, "head": f"{chosen['head']['kind']} with dropout {chosen['head']['dropout']}"}
    return [(name, value) for name, value in flat.items() if name not in given]
