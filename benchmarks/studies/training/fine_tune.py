"""A new task from few images: fine-tuning in phases from the digits' backbone, beside other ways to train.

The task is odd or even, from 60 images, six of each digit. The backbone comes from the demo's digits, which had ten
classes and 1,078 images; it has never seen the test split either. All ways have the same images, epochs
and augmentation; two seeds draw the images, the head and the order.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sklearn.metrics import f1_score

from benchmarks.studies.training.result import Found, Target
from slipway.contract import Spec
from slipway.contract.dataset import Dataset
from slipway.contract.evidence.build import CheckpointMeasured
from slipway.contract.evidence.history import HISTORY, read_history
from slipway.contract.typed_file import Evidence
from slipway.evaluation.predict import predict
from slipway.training import train
from slipway.training.bundle.export import load_network
from slipway.training.data.demo_data import write_digits, write_parity

ROOT = Path(__file__).parents[3]
SEEDS, EPOCHS = (0, 1), 6  # of the digits; the new task has those of its configuration
FROM_SCRATCH = "from scratch"
WAYS: dict[str, dict[str, Any]] = {  # changes to the recipe of training/configs/parity.yaml
    "in phases": {},
    "head alone": {"freeze_epochs": 16, "unfreeze_epochs": 0},
    "all at once": {"freeze_epochs": 0, "unfreeze_epochs": 0, "backbone_multiplier": 1.0},
    FROM_SCRATCH: {"freeze_epochs": 0, "unfreeze_epochs": 0, "backbone_multiplier": 1.0},
}


class Row(Evidence):
    """One training."""

    way: str
    seed: int
    macro_f1: float
    phases: tuple[str, ...]
    epochs: int
    best_epoch: int
    phase: str
    train_s: float


def measure(scratch: Path) -> Found:
    """Measure macro-F1 on the test split of each way and seed."""
    write_digits(scratch / "digits", seed=0)
    digits = _spec("digits", data={"root": str(scratch / "digits")}, recipe={"epochs": EPOCHS})
    train(digits, scratch / "checkpoint", resume=True)
    rows = [_row(scratch, way, seed) for seed in SEEDS for way in WAYS]
    means = {way: _mean([row.macro_f1 for row in rows if row.way == way]) for way in WAYS}
    gain = means["in phases"] - means[FROM_SCRATCH]
    return Found(
        what="odd or even from 60 digits, macro-F1 on 540 test images that no backbone has seen",
        rows=rows,
        means=means,
        targets=(
            Target(
                what="fine-tuning in phases against training from scratch, mean macro-F1 of two seeds",
                asked="higher",
                measured=f"{means['in phases']:.4f} against {means[FROM_SCRATCH]:.4f}",
                met=gain > 0,
            ),
        ),
    )


def _row(scratch: Path, way: str, seed: int) -> Row:
    table, out = scratch / f"parity-{seed}.csv", scratch / f"{way.replace(' ', '-')}-{seed}"
    write_parity(scratch / "checkpoint", table, images_per_digit=6, seed=seed)
    weights = str(scratch / "checkpoint/model.safetensors")
    backbone = {"weights": None, "pretrained": False} if way == FROM_SCRATCH else {"weights": weights}
    data = {"root": str(scratch / "digits"), "csv": str(table)}
    spec = _spec("parity", data=data, backbone=backbone, recipe={**WAYS[way], "seed": seed})
    manifest = train(spec, out, resume=True)
    assert manifest  # only a second process gets None
    history = read_history(out / HISTORY)
    trained = manifest.read_measured(CheckpointMeasured)
    return Row(
        way=way,
        seed=seed,
        macro_f1=_test(out),
        phases=tuple(dict.fromkeys(row.phase for row in history)),
        epochs=trained.epochs,
        best_epoch=trained.best_epoch,
        phase=trained.phase,
        train_s=trained.train_s,
    )


def _spec(name: str, **changes: Mapping[str, object]) -> Spec:
    """Return a demo configuration with some keys changed."""
    values = Spec.read(ROOT / f"training/configs/{name}.yaml").model_dump()
    for part, keys in changes.items():
        values[part] |= keys
    return Spec.parse(values, source=name)


def _test(checkpoint: Path) -> float:
    """Return macro-F1 on the test split, by the serving preprocess."""
    spec, dataset = Spec.read(checkpoint / "spec.json"), Dataset.read(checkpoint / "dataset.json")
    network = load_network(checkpoint, spec, classes=len(dataset.labels))
    images = dataset.of("test")
    found = predict(network.run, dataset, images, preprocess=spec.preprocess, batch_size=16, what="test split")
    return float(f1_score(found.truth_n, found.logits_nc.argmax(axis=1), average="macro"))


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 4)
