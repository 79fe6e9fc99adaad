"""Digits of which five have a fiftieth of the images: what the remedy is worth on a balanced test split.

The same spec is trained with and without `recipe.balance`, on three draws of the images, which seed the training too.
"""

from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.studies.training.result import Found, Target
from slipway.contract.evidence.evaluation import ClassMetrics
from slipway.contract.typed_file import Evidence
from slipway.system.yaml_json import read_plain

SEEDS, IMBALANCE = (0, 1, 2), 50
REMEDIES: dict[str, dict[str, Any]] = {"none": {"balance": "none", "epochs": 14}, "remedy": {"epochs": 7}}
"""Changes to the recipe of training/configs/digits_imbalanced.yaml, which has the remedy. An epoch of it is longer, so
that both learn from some 200 batches."""
FIGURES = {"macro_f1": "macro-F1", "worst_recall": "worst class's recall"}


class Run(Evidence):
    """One training, judged on the test split."""

    seed: int
    remedy: str
    macro_f1: float
    worst_recall: float
    top1: float
    train_s: float
    epochs: int


def measure(scratch: Path) -> Found:
    from slipway.training.data.demo_data import write_imbalanced_digits

    runs = []
    for seed in SEEDS:
        root = scratch / f"data{seed}"
        write_imbalanced_digits(root, imbalance=IMBALANCE, seed=seed)
        for name, changes in REMEDIES.items():
            runs.append(train_and_judge(root, scratch / f"{name}{seed}", seed=seed, remedy=name, **changes))
    of = {name: {f: [getattr(r, f) for r in runs if r.remedy == name] for f in FIGURES} for name in REMEDIES}
    means = {name: {figure: fmean(values) for figure, values in figures.items()} for name, figures in of.items()}
    return Found(
        runs=runs,
        means=means,
        targets=tuple(
            Target(
                what=f"digits at 1:{IMBALANCE}, {told}, mean of {len(SEEDS)} seeds",
                asked="more with the remedy than without",
                measured=f"{means['remedy'][figure]:.3f} against {means['none'][figure]:.3f} "
                f"({_listed(of['remedy'][figure])} against {_listed(of['none'][figure])})",
                met=means["remedy"][figure] > means["none"][figure],
            )
            for figure, told in FIGURES.items()
        ),
    )


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def train_and_judge(root: Path, checkpoint: Path, *, seed: int, remedy: str, **changes: Any) -> Run:
    """Train the imbalanced digits' spec with these changes of its recipe; returns figures of the test split."""
    from benchmarks.studies.training.steps import ROOT, measured
    from slipway.contract import Spec
    from slipway.contract.evidence.build import CheckpointMeasured
    from slipway.training import train

    values = read_plain(ROOT / "training/configs/digits_imbalanced.yaml")
    values["data"]["root"] = str(root)
    values["recipe"] |= {"seed": seed, **changes}
    train(Spec.parse(values, source="digits_imbalanced.yaml"), checkpoint)
    figures, trained = judge(checkpoint), measured(checkpoint, CheckpointMeasured)
    return Run(
        seed=seed,
        remedy=remedy,
        macro_f1=figures.macro_f1,
        worst_recall=min(row.recall for row in figures.per_class.values()),
        top1=figures.top1,
        train_s=trained.train_s,
        epochs=trained.epochs,
    )


def judge(checkpoint: Path) -> ClassMetrics:
    """Measure macro-F1, the recall of the worst class, and top-1 of the network in torch, on the test split."""
    import numpy as np

    from slipway.contract import Spec
    from slipway.contract.dataset import Dataset
    from slipway.evaluation.metrics import evaluate
    from slipway.evaluation.predict import predict
    from slipway.training.bundle.export import load_network

    spec, dataset = Spec.read(checkpoint / "spec.json"), Dataset.read(checkpoint / "dataset.json")
    network = load_network(checkpoint, spec, classes=len(dataset.labels))
    images = dataset.of("test")
    found = predict(network.run, dataset, images, preprocess=spec.preprocess, batch_size=32, what="test split")
    peak_nc = np.exp(found.logits_nc - found.logits_nc.max(axis=1, keepdims=True))
    return evaluate(peak_nc / peak_nc.sum(axis=1, keepdims=True), found.truth_n, dataset.labels)
