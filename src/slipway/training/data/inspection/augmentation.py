"""Shows the images that the network will see in training on one page: pictures say more than numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from slipway.contract import Preprocess, Spec
from slipway.contract.dataset import Dataset
from slipway.pages import environment
from slipway.pages.thumbnails import Thumbnail, encode
from slipway.system.yaml_json import dump_yaml
from slipway.training.data.augment import check_policies
from slipway.training.data.dataset import scan
from slipway.training.data.inspection.facts import Viewer, views
from slipway.training.data.inspection.page import thumbnail_of
from slipway.training.data.loader import Loader, Loading, eval_loader, train_loader
from slipway.training.data.mixing import Mixing
from slipway.training.data.order import rare_classes
from slipway.training.data.sources import Entry

DRAWS, ROWS, EACH, MIXED = 6, 60, 2, 12
"""Limits of the page: augmented pictures per image, images in total and per class, pictures of mixed batches."""


@dataclass(frozen=True)
class AugmentationRow:
    """One image of the page, before and after augmentation."""

    label: str
    path: str
    rare: bool
    original: Thumbnail
    serving: Thumbnail
    augmented: tuple[Thumbnail, ...]


class AugmentationContent(NamedTuple):
    """What the page shows."""

    images: int
    draws: int
    minority: list[str]


def render(spec: Spec) -> tuple[str, AugmentationContent]:
    """Return the page and its content.

    Raises:
        DataError: the images cannot be used.
        SpecError: the spec asks for something that does not exist.
    """
    check_policies(spec.recipe.augment)
    dataset = scan(spec.data, task=spec.task)
    images, minority = dataset.of("train"), spec.recipe.augment.minority
    rare = rare_classes(images, below=minority.below) if minority else frozenset()
    chosen = _choose(dataset, seed=spec.recipe.seed)
    rows = _rows(spec, dataset, chosen, rare)
    mixed = _mixed(spec, dataset)
    page = (
        environment("slipway.training.data.inspection")
        .get_template("augmentation.html")
        .render(
            title=f"{spec.name}: what training sees",
            augment=dump_yaml(spec.recipe.augment.model_dump(mode="json", exclude_none=True)),
            rows=rows,
            draws=DRAWS,
            classes=len(dataset.labels),
            shown=len({row.label for row in rows}),
            rare=[dataset.labels[class_id] for class_id in sorted(rare)] if minority else None,
            below=minority.below if minority else None,
            mixed=mixed,
        )
    )
    return page, AugmentationContent(len(rows), DRAWS, [dataset.labels[c] for c in sorted(rare)])


def _choose(dataset: Dataset, *, seed: int) -> list[int]:
    """Choose rows of the train split: a seeded few per class, of the smallest classes where there are many."""
    rows_of: dict[int, list[int]] = {}
    for row, image in enumerate(dataset.of("train")):
        for class_id in image.class_ids:
            rows_of.setdefault(class_id, []).append(row)
    each = EACH if EACH * len(rows_of) <= ROWS else 1
    shown = sorted(sorted(rows_of, key=lambda class_id: len(rows_of[class_id]))[: ROWS // each])
    rng = np.random.default_rng(seed)
    drawn = [row for class_id in shown for row in rng.permutation(rows_of[class_id])[:each].tolist()]
    return list(dict.fromkeys(drawn))


def _rows(spec: Spec, dataset: Dataset, chosen: Sequence[int], rare: frozenset[int]) -> list[AugmentationRow]:
    images, order = dataset.of("train"), np.array(chosen)
    loading = Loading(spec.preprocess, spec.recipe, threads=2)
    shown = [images[row] for row in chosen]
    served = _pictures(eval_loader(dataset, shown, loading), spec.preprocess)
    loader = train_loader(dataset, images, loading, order=lambda _: order)
    drawn = [_pictures(loader, spec.preprocess) for _ in range(DRAWS)]
    viewer = Viewer(exif_orientation=spec.preprocess.exif_orientation)
    entries = [Entry(image.path, ()) for image in shown]
    seen = [view for _, view in views(Path(dataset.root), entries, viewer, what="making the page")]
    return [
        AugmentationRow(
            label=", ".join(dataset.labels[class_id] for class_id in image.class_ids),
            path=image.path,
            rare=not rare.isdisjoint(image.class_ids),
            original=thumbnail_of(view),
            serving=served[number],
            augmented=tuple(pictures[number] for pictures in drawn),
        )
        for number, (image, view) in enumerate(zip(shown, seen, strict=True))
    ]


def _pictures(loader: Loader, preprocess: Preprocess) -> list[Thumbnail]:
    return [picture for batch in loader for picture in _encoded(batch[0]["pixels_nchw"], preprocess)]


def _encoded(pixels_nchw: torch.Tensor, preprocess: Preprocess) -> list[Thumbnail]:
    """Turn the network's input back into pictures by undoing the normalisation."""
    mean, std = (np.array(values, np.float32) for values in (preprocess.mean, preprocess.std))
    levels_nhwc = (pixels_nchw.numpy().transpose(0, 2, 3, 1) * std + mean) * 255
    return [encode(pixels_hwc) for pixels_hwc in levels_nhwc.round().clip(0, 255).astype(np.uint8)]


def _mixed(spec: Spec, dataset: Dataset) -> list[tuple[Thumbnail, str]]:
    """Return pictures of the first mixed batches, with their targets' shares; none where the recipe does not mix."""
    mix, recipe = spec.recipe.augment.mix, spec.recipe
    if mix is None or spec.task != "multiclass":
        return []
    loader = train_loader(dataset, dataset.of("train"), Loading(spec.preprocess, recipe, threads=2))
    found: list[tuple[Thumbnail, str]] = []
    for number, batch in enumerate(loader):
        mixing, draw = Mixing(mix, classes=len(dataset.labels)), (recipe.seed, 0, number, 0)
        pixels_nchw, target_nc = mixing(batch[0]["pixels_nchw"], batch[0]["class_id"], draw=draw)
        shares = [
            " + ".join(f"{share:.2f} {dataset.labels[c]}" for c, share in enumerate(row) if share > 0.005)
            for row in target_nc.tolist()
        ]
        found += list(zip(_encoded(pixels_nchw, spec.preprocess), shares, strict=True))[: MIXED // 3]  # some batches
        if len(found) >= MIXED:
            break
    return found
