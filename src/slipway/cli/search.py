"""Search values for fields of a spec that give the best validation metric, with Optuna; bad trials are cut short."""

import argparse
from pathlib import Path

from slipway.contract import Spec
from slipway.contract.search_space import SearchSpace
from slipway.system.json_line import print_json, verb_parser
from slipway.system.targets import check_folder
from slipway.system.text import command

EPILOG = """example:
  slipway search training/configs/digits.yaml --space training/configs/digits_search.yaml \\
      --out runs/digits/search --trials 20
  # it ends with the line that exports the best trial

The space is a YAML file that names fields of the spec by their path:

  metric: val_macro_f1           # or val_loss, val_top1
  parameters:
    recipe.learning_rate: {low: 0.0005, high: 0.01, log: true}
    recipe.warmup_epochs: {low: 0, high: 4}             # whole numbers, since both ends are
    recipe.label_smoothing: {low: 0.0, high: 0.2, step: 0.05}
    recipe.batch_size: {choices: [16, 32, 64]}
  pruning_trials: 5              # trials that are never cut short; later ones are, if worse than the median
  pruning_epochs: 3

A search that was killed and started again continues to the requested number of trials, with the values that an unbroken
search would have tried. OUT gets best.yaml, trials.csv, search.png, study.db (Optuna's own), and the checkpoint and
logs of each trial. Only the validation split is used; export the best trial to measure it on the test split, once."""


def main(arguments: argparse.Namespace) -> None:
    check_folder(arguments.out, kind="search")

    from slipway.training.search.hyperparameters import (
        BEST,
        PLOT,
        TRIALS,
        best_number,
        checkpoint_of,
        search,
    )  # after the check: it takes seconds

    spec, space = Spec.read(arguments.spec), SearchSpace.read(arguments.space)
    study = search(spec, space, arguments.out, trials=arguments.trials, seed=arguments.seed)
    print(f"{arguments.out / BEST}: {space.metric} {study.best_value:.4f} on the validation split")
    print(f"  all trials: {arguments.out / TRIALS} and {arguments.out / PLOT}")
    best = checkpoint_of(arguments.out, best_number(study))
    print(f"  next: {command('slipway export', best, '--out', arguments.out.parent / 'bundle')}")
    values = {
        "metric": space.metric,
        "value": study.best_value,
        "parameters": study.best_trial.user_attrs["values"],
    }
    print_json(arguments, {"best": str(arguments.out / BEST), **values})


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("spec", type=Path, help="YAML file, see training/configs/")
    parser.add_argument("--space", type=Path, required=True, help="YAML file of the fields to search")
    parser.add_argument("--out", type=Path, required=True, help="folder of the search, for example runs/digits/search")
    parser.add_argument("--trials", type=int, default=20, help="finished trials, including those of earlier runs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the values")
    return parser
