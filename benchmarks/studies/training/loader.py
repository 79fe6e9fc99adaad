"""The DALI loader against torchvision's ImageFolder and DataLoader, with the same augmentation, on 512-pixel JPEGs.

torchvision has two sides: ImageFolder out of the box, which reads with Pillow, and with torchvision.io's decoder, where
transforms are faster too. Each has the best number of workers (0 to 2); DALI has the threads of training.
Rounds alternate, an epoch of each. The photographs are scikit-image's, or scikit-learn's two where it is not installed;
the result says which.
"""

import importlib.util
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.study import load_photographs, scikit_image
from benchmarks.studies.training.result import Found, Target
from slipway.contract.typed_file import Evidence

IMAGES, SIDE_PX, QUALITY, INPUT_PX, BATCH, CLASSES = 512, 512, 90, 224, 32, 4
ROUNDS, THREADS, WORKERS = 5, 2, (0, 1, 2)
ASKED = 1.3
SIDES = {"pillow": "ImageFolder out of the box", "torchvision": "ImageFolder with torchvision.io's decoder"}
Augment = dict[str, Any]
"""Part `recipe.augment` of a spec."""
RECIPES: dict[str, Augment] = {
    "crop and flip": {},
    "small crop, flip, TrivialAugment": {"crop_scale": [0.08, 1.0], "policy": {"kind": "trivial"}},
    "crop, flip, colour, erasing": {
        "crop_scale": [0.8, 1.0],
        "colour": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue_degrees": 36},
        "erase": {"probability": 0.3},
    },
}
"""Augmentation by default in a spec, and as in the usual tutorials. The target is for the first."""


class Ratio(Evidence):
    """Images/s of the DALI loader over another's, with the 95 % interval."""

    ratio: float
    low: float
    high: float
    rounds: tuple[float, ...]


class Compared(Evidence):
    recipe: Augment
    images_per_s: dict[str, float]
    ratios: dict[str, Ratio]


def measure(scratch: Path) -> Found:
    source = write_images(scratch / "images")
    searched = {decoder: search(scratch / "images", decoder) for decoder in SIDES}
    workers = {decoder: max(rates, key=rates.__getitem__) for decoder, rates in searched.items()}
    found = {name: compare(scratch / "images", recipe, workers) for name, recipe in RECIPES.items()}
    first = next(iter(found.values())).ratios
    return Found(
        images=IMAGES,
        photographs=source,
        side_px=SIDE_PX,
        input_px=INPUT_PX,
        batch_size=BATCH,
        cores=os.cpu_count(),
        searched_images_per_s=searched,
        recipes=found,
        targets=(
            Target(
                what=f"images/s of the DALI loader over torchvision's, {SIDE_PX}-pixel JPEGs, crop and flip",
                asked=f">= {ASKED}, {SIDES['pillow']}",
                measured="; ".join(
                    f"{r.ratio:.2f} ({r.low:.2f} to {r.high:.2f}), {SIDES[d]}" for d, r in first.items()
                ),
                met=first["pillow"].ratio >= ASKED,
            ),
        ),
    )


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

    if importlib.util.find_spec("skimage") is not None:
        return list(load_photographs(scikit_image()).values()), "scikit-image"
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(picture) for picture in load_sample_images().images], "scikit-learn"


def search(root: Path, decoder: str) -> dict[int, float]:
    """Measure images/s by the number of workers, without augmentation but crop and flip."""
    rates = {}
    for workers in WORKERS:
        peer = torchvision_loader(root, {}, workers=workers, decoder=decoder)
        epoch_s(peer)  # starts the workers
        rates[workers] = round(IMAGES / epoch_s(peer), 1)
    return rates


def compare(root: Path, recipe: Augment, workers: dict[str, int]) -> Compared:
    """Measure images/s of each side, and the ratios with their 95 % intervals, by bootstrap of the rounds'
    logarithms."""
    sides = {"dali": dali(root, recipe)}
    sides |= {name: torchvision_loader(root, recipe, workers=workers[name], decoder=name) for name in SIDES}
    for batches in sides.values():
        epoch_s(batches)  # starts the workers
    names = list(sides)
    rounds = []
    for turn in range(ROUNDS):
        order = names[turn % len(names) :] + names[: turn % len(names)]  # each is first, in the middle and last
        rounds.append({name: epoch_s(sides[name]) for name in order})
    seconds = {name: np.array([taken[name] for taken in rounds]) for name in names}
    return Compared(
        recipe=recipe,
        images_per_s={name: round(float(IMAGES / np.median(taken)), 1) for name, taken in seconds.items()},
        ratios={name: ratio(seconds[name] / seconds["dali"]) for name in SIDES},
    )


def ratio(ratios: Any) -> Ratio:
    logs = np.log(ratios)
    means = np.random.default_rng(0).choice(logs, (10_000, len(logs))).mean(axis=1)
    low, high = np.exp(np.quantile(means, (0.025, 0.975))).tolist()
    return Ratio(ratio=float(np.exp(logs.mean())), low=low, high=high, rounds=tuple(ratios.round(3).tolist()))


def epoch_s(batches: Iterable[Any]) -> float:
    """Return the seconds of an epoch, until each batch is with its caller."""
    started = time.perf_counter()
    images = sum(len(batch[0]["pixels_nchw"] if isinstance(batch[0], dict) else batch[0]) for batch in batches)
    assert images == IMAGES
    return time.perf_counter() - started


def dali(root: Path, recipe: Augment) -> Iterable[Any]:
    """Make the loader that training uses, and let it trace its graph, which it does once."""
    from slipway.contract import Preprocess
    from slipway.contract.dataset import Dataset, LabelledImage
    from slipway.contract.recipe import Recipe
    from slipway.training.data.loader import Loading, train_loader

    images = tuple(
        LabelledImage(path=str(path.relative_to(root)), class_ids=(int(path.parent.name),), sha256="", split="train")
        for path in sorted(root.glob("*/*.jpg"))
    )
    dataset = Dataset(root=str(root), labels=tuple(map(str, range(CLASSES))), images=images)
    preprocess = Preprocess(input_height=INPUT_PX, input_width=INPUT_PX)
    parsed = Recipe.parse({"batch_size": BATCH, "augment": recipe}, source="this script")
    return train_loader(dataset, images, Loading(preprocess, parsed, threads=THREADS))


def torchvision_loader(root: Path, recipe: Augment, *, workers: int, decoder: str) -> Iterable[Any]:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import default_loader

    loader: Callable[[str], Any] = default_loader if decoder == "pillow" else decode
    folder = ImageFolder(str(root), transforms(recipe), loader=loader)
    some = workers > 0
    return DataLoader(
        folder,
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=some,
        prefetch_factor=4 if some else None,
    )


def decode(path: str) -> Any:
    from torchvision.io import ImageReadMode, decode_image

    return decode_image(path, ImageReadMode.RGB)


def transforms(recipe: Augment) -> Any:
    """Return the transforms of torchvision that do what `recipe.augment` says."""
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
