"""What an unfinished run leaves beside its checkpoint folder, so that it can go on exactly where it was."""

import json
import os
import pickle
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slipway.contract import Spec, SpecError, StorageError
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.evidence.origin import versions

LIBRARIES = ("torch", "timm", "lightning", "nvidia-dali-cuda130")
SHOWN = 5  # differences in one error
TRAINED_BY = ("task", "preprocess", "backbone", "recipe", "compute")
"""The keys of a spec that a run depends on; its data are compared image by image."""


class Unfinished:
    """The folder `<out>.resume`: what the run is of, its last epoch and its best one.

    `last.ckpt` has everything: weights, averaged ones too, optimiser, schedule, random states, history. An epoch's
    images are a function of the seed and its number. It is written anew after each epoch, in one step.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(f"{out.name}.resume")
        self.last, self.best = self.folder / "last.ckpt", self.folder / "best.ckpt"

    def begin(self, spec: Spec, dataset: Dataset, *, start: str, resume: bool) -> Path | None:
        """The checkpoint to go on from; None begins anew, and says here what the run is of.

        Raises:
            SpecError: there is an unfinished run and no word of resuming it; or it is damaged, or of another spec, data
                or version; or something else stands in its place.
        """
        if self.last.is_file():
            if not resume:
                raise SpecError(
                    f"{self.folder}: an unfinished run; go on with it (--resume), or remove this folder to begin anew"
                )
            self._check(_identity(spec, start), dataset)
            self.read(self.last)  # Lightning's own error for a damaged file says nothing of what to do
            return self.last
        if self.folder.exists() and not (self.folder / "run.json").is_file() and any(self.folder.iterdir()):
            raise SpecError(f"{self.folder}: not an unfinished run, which would stand here; rename it")
        self.remove()
        self.folder.mkdir(parents=True)
        (self.folder / "run.json").write_text(json.dumps(_identity(spec, start), indent=2) + "\n", encoding="utf-8")
        dataset.write(self.folder / DATASET)
        return None

    def _check(self, now: dict[str, Any], dataset: Dataset) -> None:
        try:
            then = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
            dataset_then = Dataset.read(self.folder / DATASET)
        except (OSError, ValueError) as error:
            raise SpecError(f"{self.folder}: cannot be resumed: {error}; remove it to begin anew") from None
        differences = [*_differences(then, now), *_data_differences(dataset_then, dataset)]
        if differences:
            more = f"\n  and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
            raise SpecError(
                f"{self.folder}: the unfinished run is another one:\n  "
                + "\n  ".join(differences[:SHOWN])
                + f"{more}\nundo that, or remove this folder to begin anew"
            )

    def read(self, path: Path) -> dict[str, Any]:
        """A Lightning checkpoint of tensors and plain values; nothing in it is run.

        Raises:
            SpecError: it is something else, or cut short.
        """
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise SpecError(f"{path}: cannot be resumed from: {reason}; remove {self.folder} to begin anew") from None
        return content

    @contextmanager
    def told(self) -> Iterator[None]:
        """Say of a full disk what it has left of the run."""
        try:
            yield
        except StorageError as error:
            if not self.last.is_file():
                raise
            raise StorageError(f"{error}\nthe finished epochs are in {self.folder}; go on with --resume") from None

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Leave nothing behind where no epoch was finished."""
        if not self.last.is_file():
            self.remove()


def _identity(spec: Spec, start: str) -> dict[str, Any]:
    plain = json.loads(spec.to_json())
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        **{key: plain[key] for key in TRAINED_BY},
        "start": start,
        "device": device,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),  # of torchrun
        "threads": torch.get_num_threads(),  # sums in another order are other sums
        "versions": versions(LIBRARIES),
    }


def _differences(then: Any, now: Any, at: str = "") -> Iterator[str]:
    """Each value that differs: `recipe.epochs: 20 in the unfinished run, 30 now`."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            yield from _differences(then.get(key), now.get(key), f"{at}.{key}" if at else key)
    elif then != now:
        yield f"{at}: {json.dumps(then)} in the unfinished run, {json.dumps(now)} now"


def _data_differences(then: Dataset, now: Dataset) -> Iterator[str]:
    if then.labels != now.labels:
        yield f"data: the labels were {', '.join(then.labels[:SHOWN])} …, and are {', '.join(now.labels[:SHOWN])} …"
    before, after = ({image.path: image for image in dataset.images} for dataset in (then, now))
    changed = [path for path in before.keys() & after.keys() if before[path] != after[path]]
    for what, paths in (
        ("are gone", before.keys() - after.keys()),
        ("are new", after.keys() - before.keys()),
        ("have another content, label or split", changed),
    ):
        if paths:
            yield f"data: {len(paths)} images {what}, {min(paths)} among them"


def random_states() -> dict[str, Any]:
    """The state of every generator that training draws from, as tensors and plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
