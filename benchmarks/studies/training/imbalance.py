"""Digits of which five have a fiftieth of the images: what the remedy is worth on a balanced test split.

The same spec is trained with and without `recipe.balance`, on three draws of the images, which seed the training too.
"""

from pathlib import Path
from statistics import fmean
from typing import Any

from slipway.system.yaml_json import read_plain

SEEDS, IMBALANCE = (0, 1, 2), 50
REMEDIES: dict[str, dict[str, Any]] = {"none": {"balance": "none", "epochs": 14}, "remedy": {"epochs": 7}}
"""Changes to the recipe of training/configs/digits_imbalanced.yaml, which has the remedy. An epoch of it is longer, so
that both learn from some 200 batches."""
FIGURES = {"macro_f1": "macro-F1", "worst_recall": "worst class's recall"}


def measure(scratch: Path) -> dict[str, Any]:
    from slipway.training.data.demo_data import write_imbalanced_digits

    runs = []
    for seed in SEEDS:
        root = scratch / f"data{seed}"
        write_imbalanced_digits(root, imbalance=IMBALANCE, seed=seed)
        for name, changes in REMEDIES.items():
            found = train_and_judge(root, scratch / f"{name}{seed}", seed=seed, **changes)
            runs.append({"seed": seed, "remedy": name, **found})
    means = {name: {f: fmean(r[f] for r in runs if r["remedy"] == name) for f in FIGURES} for name in REMEDIES}
    return {
        "runs": runs,
        "means": means,
        "targets": [
            {
                "what": f"digits at 1:{IMBALANCE}, {told}, mean of {len(SEEDS)} seeds",
                "asked": "more with the remedy than without",
                "measured": f"{means['remedy'][figure]:.3f} against {means['none'][figure]:.3f} "
                f"({_listed(runs, 'remedy', figure)} against {_listed(runs, 'none', figure)})",
                "met": means["remedy"][figure] > means["none"][figure],
            }
            for figure, told in FIGURES.items()
        ],
    }


def _listed(runs: list[dict[str, Any]], remedy: str, figure: str) -> str:
    return ", ".join(f"{run[figure]:.3f}" for run in runs if run["remedy"] == remedy)


def train_and_judge(root: Path, checkpoint: Path, *, seed: int, **changes: Any) -> dict[str, Any]:
    """Train the imbalanced digits' spec with these changes of its recipe; returns figures of the test split."""
    from benchmarks.studies.training.steps import ROOT, measured
    from slipway.contract import Spec
    from slipway.training import train

    values = read_plain(ROOT / "training/configs/digits_imbalanced.yaml")
    values["data"]["root"] = str(root)
    values["recipe"] |= {"seed": seed, **changes}
    train(Spec.parse(values, source="digits_imbalanced.yaml"), checkpoint)
    return {**judge(checkpoint), "train_s": measured(checkpoint)["train_s"], "epochs": measured(checkpoint)["epochs"]}


def judge(checkpoint: Path) -> dict[str, float]:
    """Measure macro-F1, the recall of the worst class, and top-1 of the network in torch, on the test split."""
    import numpy as np

    from slipway.contract import Spec
    from slipway.contract.dataset import Dataset
    from slipway.evaluation.metrics import evaluate
    from slipway.evaluation.predict import predict
    from slipway.training.bundle.export import load_network

    spec, dataset = Spec.read(checkpoint / "spec.json"), Dataset.read(checkpoint / "dataset.json")
    network = load_network(checkpoint, spec, classes=len(dataset.labels))
    options: dict[str, Any] = {"preprocess": spec.preprocess, "batch_size": 32, "what": "test split"}
    found = predict(network.run, dataset, dataset.of("test"), **options)
    peak_nc = np.exp(found.logits_nc - found.logits_nc.max(axis=1, keepdims=True))
    figures = evaluate(peak_nc / peak_nc.sum(axis=1, keepdims=True), found.truth_n, dataset.labels)
    return {
        "macro_f1": figures.macro_f1,
        "worst_recall": min(row.recall for row in figures.per_class.values()),
        "top1": figures.top1,
    }
