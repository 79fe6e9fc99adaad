"""Keeps the state of an unfinished run beside its checkpoint folder, so that the run resumes exactly."""

import json
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
from slipway.training.learn.devices import devices_of

LIBRARIES = ("torch", "timm", "lightning", "cykooz-resizer", "nvidia-dali-cuda130")
SHOWN = 5  # most differences listed in one error
IDENTITY, THREADS = "run.json", "threads"
TRAINED_BY = ("task", "preprocess", "backbone", "recipe")
"""Keys of the spec that a run depends on; its data are compared image by image. Of `compute` only the device and the
number of processes count, however the spec arrives at them."""


class UnfinishedRun:
    """The folder `<out>.resume`: the run's identity, its last epoch and its best one.

    `last.ckpt` has everything: weights, averaged weights, optimiser, schedule, random states, history. It is replaced
    in one step after each epoch. An epoch's images depend only on the seed and its number.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(f"{out.name}.resume")
        self.last, self.best = self.folder / "last.ckpt", self.folder / "best.ckpt"

    def check(self, spec: Spec, dataset: Dataset, *, start: str, resume: bool) -> bool:
        """Whether there is a run to continue, by what was recorded of it.

        Raises:
            SpecError: there is an unfinished run but `resume` is False, or that run has another spec, data, device or
                version; or the folder is something else.
        """
        if self.last.is_file():
            if not resume:
                raise SpecError(
                    f"{self.folder}: an unfinished run; continue it (--resume), or remove this folder to start anew"
                )
            self._compare(_identity(spec, start), dataset)
            return True
        if self.folder.exists() and not (self.folder / IDENTITY).is_file() and any(self.folder.iterdir()):
            raise SpecError(f"{self.folder}: not an unfinished run, though named like one; rename it")
        return False

    def begin(self, spec: Spec, dataset: Dataset, *, start: str, resume: bool) -> Path | None:
        """Return the checkpoint to continue from; None starts anew, after recording the run's identity.

        Raises:
            SpecError: as `check`, or the run is damaged.
        """
        if self.check(spec, dataset, start=start, resume=resume):
            self.read(self.last)  # Lightning's own error for a damaged file names no remedy
            return self.last
        self.remove()
        self.folder.mkdir(parents=True)
        identity = {**_identity(spec, start), THREADS: torch.get_num_threads()}
        (self.folder / IDENTITY).write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
        dataset.write(self.folder / DATASET)
        return None

    @contextmanager
    def same_threads(self) -> Iterator[None]:
        """Compute with as many threads as the run began with: another order of summation gives another sum."""
        now = torch.get_num_threads()
        then = self._recorded().get(THREADS, now)
        if then != now:
            print(f"threads: {then}, as before the interruption, instead of {now}", flush=True)
        torch.set_num_threads(then)
        try:
            yield
        finally:
            torch.set_num_threads(now)

    def _recorded(self) -> dict[str, Any]:
        recorded: dict[str, Any] = json.loads((self.folder / IDENTITY).read_text(encoding="utf-8"))
        return recorded

    def _compare(self, now: dict[str, Any], dataset: Dataset) -> None:
        try:
            recorded = self._recorded()
            dataset_then = Dataset.read(self.folder / DATASET)
        except (OSError, ValueError) as error:
            raise SpecError(f"{self.folder}: cannot be resumed: {error}; remove it to start anew") from None
        then = {key: recorded.get(key) for key in now}
        differences = [*_differences(then, now), *_data_differences(dataset_then, dataset)]
        if differences:
            more = f"\n  and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
            raise SpecError(
                f"{self.folder}: the unfinished run is a different one:\n  "
                + "\n  ".join(differences[:SHOWN])
                + f"{more}\nundo these changes, or remove this folder to start anew"
            )

    def read(self, path: Path) -> dict[str, Any]:
        """Read a Lightning checkpoint of tensors and plain values without running any code in it.

        Raises:
            SpecError: the file is something else, or truncated.
        """
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise SpecError(f"{path}: cannot resume from it: {reason}; remove {self.folder} to start anew") from None
        return content

    @contextmanager
    def told(self) -> Iterator[None]:
        """Add to the error of a full disk where the finished epochs are."""
        try:
            yield
        except StorageError as error:
            if not self.last.is_file():
                raise
            raise StorageError(f"{error}\nthe finished epochs are in {self.folder}; continue with --resume") from None

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Remove the folder if no epoch was finished."""
        if not self.last.is_file():
            self.remove()


def _identity(spec: Spec, start: str) -> dict[str, Any]:
    plain, devices = json.loads(spec.to_json()), devices_of(spec.compute)
    return {
        **{key: plain[key] for key in TRAINED_BY},
        "start": start,
        "device": torch.cuda.get_device_name() if devices.accelerator == "gpu" else "cpu",
        "processes": devices.processes,
        "versions": versions(LIBRARIES),
    }


def _differences(then: Any, now: Any, at: str = "") -> Iterator[str]:
    """Yield each value that differs: `recipe.epochs: 20 in the unfinished run, 30 now`."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            yield from _differences(then.get(key), now.get(key), f"{at}.{key}" if at else key)
    elif then != now:
        yield f"{at}: {json.dumps(then)} in the unfinished run, {json.dumps(now)} now"


def _data_differences(then: Dataset, now: Dataset) -> Iterator[str]:
    if then.labels != now.labels:
        yield f"data: the labels were {', '.join(then.labels[:SHOWN])} … and are now {', '.join(now.labels[:SHOWN])} …"
    before, after = ({image.path: image for image in dataset.images} for dataset in (then, now))
    changed = [path for path in before.keys() & after.keys() if before[path] != after[path]]
    for what, paths in (
        ("are missing", before.keys() - after.keys()),
        ("are new", after.keys() - before.keys()),
        ("have different content, label or split", changed),
    ):
        if paths:
            yield f"data: {len(paths)} images {what}, such as {min(paths)}"


def random_states() -> dict[str, Any]:
    """Return the state of every random generator that training uses, as tensors and plain values."""
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
