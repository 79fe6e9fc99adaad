"""Searches a space for the best spec with Optuna: resumable, seeded, and bad trials are pruned.

A trial's values depend only on the seed and on the trials finished before it: a search that was killed and restarted
tries the same values as an uninterrupted one. Only the validation split is used.
"""

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import optuna
from matplotlib import rc_context
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from slipway.contract import Spec, SpecError, StorageError
from slipway.contract.search_space import Range, SearchSpace, changed
from slipway.pages.charts import PLAIN_TEXT
from slipway.system.files import locked, sha256_bytes
from slipway.system.targets import MARKERS, check_folder
from slipway.system.text import to_cell
from slipway.system.yaml_json import dump_yaml
from slipway.training.data.sources import read_from
from slipway.training.learn.train import train

BEST, TRIALS, PLOT, STUDY = "best.yaml", "trials.csv", "search.png", MARKERS["search"]
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class PruningCallback(lightning.Callback):  # type: ignore[misc]
    """Reports every epoch's metric to Optuna, and ends the trial when the median pruner decides so."""

    def __init__(self, trial: optuna.Trial, metric: str, *, minimize: bool) -> None:
        self.trial, self.metric = trial, metric
        self.values: list[float] = []
        self._best = min if minimize else max

    def on_validation_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        found = trainer.callback_metrics
        if self.metric not in found:
            there = ", ".join(sorted(name for name in found if name.startswith("val_")))
            raise SpecError(f"metric: {self.metric!r} is not measured in training; the metrics are {there}")
        self.values.append(float(found[self.metric]))
        self.trial.report(self.best, step=len(self.values))
        if self.trial.should_prune():
            raise optuna.TrialPruned

    @property
    def best(self) -> float:
        return self._best(self.values)


def search(spec: Spec, space: SearchSpace, out: Path, *, trials: int, seed: int) -> optuna.Study:
    """Run until `trials` are finished, and write BEST, TRIALS and PLOT to the folder `out`, beside STUDY.

    Raises:
        SpecError: the space does not fit the spec, `out` holds another search, or another process is searching there.
        DataError: the images cannot be used.
    """
    if trials < 1:
        raise SpecError(f"trials: {trials} given; at least one is needed")
    space.check(spec, source="search space")
    check_folder(out, kind="search", inputs=read_from(spec.data, out=out))
    out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _alone(out), _told(out):
        study = _open(spec, space, out, seed=seed)
        while (finished := len(study.get_trials(deepcopy=False, states=FINISHED))) < trials:
            own_seed = int(sha256_bytes(f"{seed} {finished}".encode())[:8], 16)
            study.sampler = optuna.samplers.TPESampler(seed=own_seed, n_startup_trials=space.pruning_trials)
            trial = study.ask()
            values = {path: _suggest(trial, path, values) for path, values in space.parameters.items()}
            trial.set_user_attr("values", values)
            print(f"trial {finished + 1} of {trials}: {told(values)}", flush=True)
            _try(study, trial, changed(spec, values, source="search space"), space, checkpoint_of(out, finished))
            _write(study, spec, out)
        _plot(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)), out / PLOT)
    return study


def checkpoint_of(out: Path, trial: int) -> Path:
    """Return the checkpoint folder of the finished trial of this number, counted from 0."""
    return out / "trials" / f"{trial:04d}" / "checkpoint"


def told(values: Mapping[str, Any]) -> str:
    """Format the values of a trial in one line."""
    return ", ".join(f"{path} {v:.4g}" if isinstance(v, float) else f"{path} {v}" for path, v in values.items())


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold a lock for the block; it ends with the process, however that ends."""
    try:
        with locked(out):
            yield
    except BlockingIOError:
        raise SpecError(
            f"{out}: another process is searching there; wait until it ends, or give another folder"
        ) from None


@contextmanager
def _told(out: Path) -> Iterator[None]:
    """Turn SQLite's write errors into one sentence."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise StorageError(
            f"{out / STUDY}: cannot be written: {cause}; fix that, and repeat the command to continue where it stopped"
        ) from None


def _open(spec: Spec, space: SearchSpace, out: Path, *, seed: int) -> optuna.Study:
    """Open the study of `out`, new or as it was left; a trial that was running at a kill counts as failed."""
    study = optuna.create_study(
        storage=f"sqlite:///{(out / STUDY).resolve()}",
        study_name="search",
        load_if_exists=True,
        direction="minimize" if space.minimize else "maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=space.pruning_trials, n_warmup_steps=space.pruning_epochs),
    )
    unit = sha256_bytes(f"{spec.to_json()}{space.to_json()}{seed}".encode())
    if study.user_attrs.setdefault("of", unit) != unit:
        raise SpecError(f"{out}: holds a search of another spec, space or seed; give another folder, or remove it")
    study.set_user_attr("of", unit)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _suggest(trial: optuna.Trial, path: str, values: Range) -> Any:
    if values.choices is not None:
        # Optuna stores only scalars; a list (crop_scale) is chosen by its index.
        place = trial.suggest_categorical(path, list(range(len(values.choices))))
        return values.choices[place]
    assert values.low is not None
    assert values.high is not None
    if values.whole:
        return trial.suggest_int(path, int(values.low), int(values.high), log=values.log, step=int(values.step or 1))
    return trial.suggest_float(path, float(values.low), float(values.high), log=values.log, step=values.step)


def _try(study: optuna.Study, trial: optuna.Trial, spec: Spec, space: SearchSpace, checkpoint: Path) -> None:
    pruning = PruningCallback(trial, space.metric, minimize=space.minimize)
    try:
        train(spec, checkpoint, callbacks=[pruning])
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        print(f"  pruned after {len(pruning.values)} epochs at {space.metric} {pruning.best:.4f}", flush=True)
        return
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    study.tell(trial, pruning.best)
    print(f"  {space.metric} {pruning.best:.4f} after {len(pruning.values)} epochs", flush=True)


def _write(study: optuna.Study, spec: Spec, out: Path) -> None:
    """Write the best spec so far, and one row per trial."""
    finished = study.get_trials(deepcopy=False, states=FINISHED)
    if all(trial.state is TrialState.PRUNED for trial in finished):
        return
    best = changed(spec, study.best_trial.user_attrs["values"], source=BEST)
    text = dump_yaml(best.model_dump(mode="json", exclude_defaults=True))
    number = best_number(study)
    head = f"# {spec.name}: trial {number} of a search, {study.best_value:.6f} on the validation split.\n"
    (out / BEST).write_text(head + text, encoding="utf-8")
    _write_table(finished, out / TRIALS)


def best_number(study: optuna.Study) -> int:
    """Return the number of the best trial, counted among the finished ones."""
    numbers = [trial.number for trial in study.get_trials(deepcopy=False, states=FINISHED)]
    return numbers.index(study.best_trial.number)


def _write_table(finished: list[FrozenTrial], path: Path) -> None:
    names = list(finished[0].params)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", "state", "value", "epochs", *names])
        for number, trial in enumerate(finished):
            value = trial.value if trial.value is not None else trial.intermediate_values.get(trial.last_step or 0)
            values = [trial.user_attrs["values"][name] for name in names]
            row = [to_cell(value) if isinstance(value, str) else value for value in values]
            writer.writerow([number, trial.state.name.lower(), value, len(trial.intermediate_values), *row])


@rc_context(PLAIN_TEXT)
def _plot(complete: list[FrozenTrial], path: Path) -> None:
    """Plot the value of each complete trial, by trial and by each parameter."""
    names = list(complete[0].params)
    figure = Figure(figsize=(3.2 * (1 + len(names)), 3.2), layout="constrained")
    axes = figure.subplots(1, 1 + len(names), sharey=True, squeeze=False)[0]
    values = [trial.value for trial in complete]
    axes[0].plot(range(len(values)), values, "o-", markersize=4)
    axes[0].set(xlabel="complete trial", ylabel="value on the validation split")
    for place, name in zip(axes[1:], names, strict=True):
        at = [trial.user_attrs["values"][name] for trial in complete]
        numbers = all(isinstance(value, (int, float)) for value in at)
        place.plot(at if numbers else [str(value) for value in at], values, "o", markersize=4)
        distribution = complete[0].distributions[name]
        if getattr(distribution, "log", False):
            place.set_xscale("log")
        place.set(xlabel=name)
    figure.savefig(path, dpi=110, metadata={"Software": None})
