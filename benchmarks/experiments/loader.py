#!/usr/bin/env python3
"""The DALI loader against torchvision's ImageFolder and DataLoader, with the same augmentation, on 512-pixel JPEGs.

Both are at their best on these cores: torchvision's number of workers (0 to 2) and its decoder (Pillow's or its own)
are searched for each augmentation; DALI has the threads that training gives it. Rounds alternate, an epoch of each.
The photographs are scikit-image's, or scikit-learn's two where it is not installed; the result says which.
"""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

IMAGES, SIDE_PX, QUALITY, INPUT_PX, BATCH, CLASSES = 256, 512, 90, 224, 32, 4
ROUNDS, THREADS, WORKERS = 7, 2, (0, 1, 2)
ASKED = 1.3
RECIPES: dict[str, dict[str, Any]] = {
    "crop and flip": {},
    "small crop, flip, TrivialAugment": {"crop_scale": [0.08, 1.0], "policy": {"kind": "trivial"}},
    "crop, flip, colour, erasing": {
        "crop_scale": [0.8, 1.0],
        "colour": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue_degrees": 36},
        "erase": {"probability": 0.3},
    },
}
"""The default of a spec, and what the usual tutorials do. The target is of the first."""


def measure(scratch: Path) -> dict[str, Any]:
    source = write_images(scratch / "images")
    found = {name: compare(scratch / "images", recipe) for name, recipe in RECIPES.items()}
    first = next(iter(found.values()))
    low, high = first["ratio_interval"]
    return {
        "images": IMAGES,
        "photographs": source,
        "side_px": SIDE_PX,
        "input_px": INPUT_PX,
        "batch_size": BATCH,
        "cores": os.cpu_count(),
        "recipes": found,
        "targets": [
            {
                "what": f"images/s of the DALI loader over torchvision's best, {SIDE_PX}-pixel JPEGs",
                "asked": f">= {ASKED}",
                "measured": f"{first['ratio']:.2f} ({low:.2f} to {high:.2f})",
                "met": first["ratio"] >= ASKED,
            }
        ],
    }


def write_images(root: Path) -> str:
    """Seeded crops of photographs, resized to `SIDE_PX`, in class folders; returns whose photographs they are."""
    from PIL import Image

    photographs, source = pictures()
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        picture = photographs[number % len(photographs)]
        side = int(min(picture.size) * rng.uniform(0.7, 1.0))
        left, top = (int(rng.integers(0, edge - side + 1)) for edge in picture.size)
        crop = picture.crop((left, top, left + side, top + side)).resize((SIDE_PX,) * 2, Image.Resampling.BICUBIC)
        (root / str(number % CLASSES)).mkdir(parents=True, exist_ok=True)
        crop.save(root / str(number % CLASSES) / f"{number:04d}.jpg", quality=QUALITY)
    return source


def pictures() -> tuple[list[Any], str]:
    from PIL import Image

    sys.path.insert(0, str(Path(__file__).parents[1]))
    import guard

    if importlib.util.find_spec("skimage") is not None:
        return list(guard.load(guard.scikit_image()).values()), "scikit-image"
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(picture) for picture in load_sample_images().images], "scikit-learn"


def compare(root: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """Images/s of both, and the ratio with its 95 % interval over the rounds, by bootstrap of their logarithms."""
    ours = dali(root, recipe)
    searched = {}
    peers = {}
    for decoder in ("pillow", "torchvision"):
        for workers in WORKERS:
            name = f"{decoder}, {workers} workers"
            peers[name] = torchvision_loader(root, recipe, workers=workers, decoder=decoder)
            epoch_s(peers[name])  # starts the workers
            searched[name] = IMAGES / epoch_s(peers[name])
            if searched[name] < max(searched.values()):
                del peers[name]
    best = max(searched, key=searched.__getitem__)
    theirs = peers[best]
    epoch_s(ours)
    seconds = np.array(
        [
            (epoch_s(ours), epoch_s(theirs)) if turn % 2 else (epoch_s(theirs), epoch_s(ours))[::-1]
            for turn in range(ROUNDS)
        ]
    )
    logs = np.log(seconds[:, 1] / seconds[:, 0])
    drawn = np.random.default_rng(0).choice(logs, (10_000, len(logs))).mean(axis=1)
    return {
        "recipe": recipe,
        "dali_images_per_s": round(float(IMAGES / np.median(seconds[:, 0])), 1),
        "torchvision_images_per_s": round(float(IMAGES / np.median(seconds[:, 1])), 1),
        "torchvision": best,
        "searched_images_per_s": {name: round(rate, 1) for name, rate in searched.items()},
        "ratio": float(np.exp(logs.mean())),
        "ratio_interval": np.exp(np.quantile(drawn, (0.025, 0.975))).tolist(),
        "ratios": np.exp(logs).round(3).tolist(),
    }


def epoch_s(batches: Iterable[Any]) -> float:
    """Seconds of an epoch, each batch in the hands of the one who asked."""
    started = time.perf_counter()
    images = sum(len(batch[0]["pixels_nchw"] if isinstance(batch[0], dict) else batch[0]) for batch in batches)
    assert images == IMAGES
    return time.perf_counter() - started


def dali(root: Path, recipe: dict[str, Any]) -> Iterable[Any]:
    """The loader that training uses; what it does once (tracing its graph) is done here."""
    from slipway.contract import Preprocess
    from slipway.contract.dataset import Dataset, LabelledImage
    from slipway.contract.recipe import Recipe
    from slipway.training.loader import train_loader

    images = tuple(
        LabelledImage(path=str(path.relative_to(root)), class_id=int(path.parent.name), sha256="", split="train")
        for path in sorted(root.glob("*/*.jpg"))
    )
    dataset = Dataset(root=str(root), labels=tuple(map(str, range(CLASSES))), images=images)
    return train_loader(
        dataset,
        images,
        preprocess=Preprocess(input_height=INPUT_PX, input_width=INPUT_PX),
        recipe=Recipe.parse({"batch_size": BATCH, "augment": recipe}, source="this script"),
        threads=THREADS,
    )


def torchvision_loader(root: Path, recipe: dict[str, Any], *, workers: int, decoder: str) -> Iterable[Any]:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import default_loader

    loader: Callable[[str], Any] = default_loader if decoder == "pillow" else decode
    options = {"persistent_workers": True, "prefetch_factor": 4} if workers else {}
    folder = ImageFolder(str(root), transforms(recipe), loader=loader)
    return DataLoader(folder, batch_size=BATCH, shuffle=True, num_workers=workers, **options)


def decode(path: str) -> Any:
    from torchvision.io import ImageReadMode, decode_image

    return decode_image(path, ImageReadMode.RGB)


def transforms(recipe: dict[str, Any]) -> Any:
    """What `recipe.augment` says, in torchvision."""
    import torch
    from torchvision.transforms import v2

    from slipway.contract.augmentation import Augmentation

    augment = Augmentation.parse(recipe, source="this script")
    steps: list[Any] = [
        v2.RandomResizedCrop(INPUT_PX, scale=augment.crop_scale, ratio=augment.crop_ratio, antialias=True),
        v2.RandomHorizontalFlip(),
    ]
    if colour := augment.colour:
        strengths = (colour.brightness, colour.contrast, colour.saturation, colour.hue_degrees / 360)
        steps.append(v2.ColorJitter(*strengths))
    if augment.policy:
        steps.append(v2.TrivialAugmentWide())
    steps += [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    steps.append(v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    if augment.erase:
        steps.append(v2.RandomErasing(augment.erase.probability, augment.erase.area, augment.erase.ratio))
    return v2.Compose(steps)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder)), indent=1))
