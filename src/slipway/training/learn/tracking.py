"""Makes the spec's logger before any data is read, so that a missing package or a wrong option shows at once."""

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers

from slipway.contract import Spec, SpecError
from slipway.contract.recipe import Tracking

CLASSES = {
    "tensorboard": loggers.TensorBoardLogger,
    "csv": loggers.CSVLogger,
    "mlflow": loggers.MLFlowLogger,
    "wandb": loggers.WandbLogger,
    "comet": loggers.CometLogger,
    "lit": loggers.LitLogger,
}
PACKAGES = {"mlflow": "mlflow", "wandb": "wandb", "comet": "comet-ml", "lit": "litlogger"}


def logger_for(tracking: Tracking, out: Path) -> Any:
    """Make the logger of a run that writes the checkpoint `out`; False, Lightning's value, for `none`.

    Logs lie beside the checkpoint, in `<out>.logs/version_<n>`: the checkpoint itself is sealed, and failed runs have
    logs too. Nothing is written yet.

    Raises:
        SpecError: the logger's package is not installed, or the logger rejects the options.
    """
    name = tracking.logger
    if name == "none":
        return False
    options = dict(tracking.options)
    if name in ("tensorboard", "csv"):
        options = {"save_dir": out.parent, "name": f"{out.name}.logs"} | options
    elif name in ("mlflow", "wandb"):  # their files when no server is given
        options = {"save_dir": str(out.with_name(f"{out.name}.logs"))} | options
    try:
        return _forgiving(CLASSES[name](**options), name)
    except ModuleNotFoundError:
        raise SpecError(
            f"tracking.logger: {name} is not installed: pip install {PACKAGES.get(name, name)}; or write tensorboard, "
            "csv or none"
        ) from None
    except (TypeError, ValueError) as error:
        takes = CLASSES[name].__name__
        raise SpecError(f"tracking.options: {name} rejects them: {error}; give what {takes} takes") from None


def begin(logger: Any, spec: Spec) -> None:
    """Log the parameters of the run, before any epoch.

    Raises:
        SpecError: the logger cannot write.
    """
    try:
        logger.log_hyperparams(hyper_parameters(spec))
    except Exception as error:  # each logger raises its own
        raise SpecError(
            f"tracking.logger: {spec.tracking.logger} cannot write: {error}; fix that, or write none"
        ) from error


def _forgiving(logger: Any, name: str) -> Any:
    """Return the same logger, which stops logging after its first failure in an epoch while the run continues."""
    failed = False

    def until_it_fails(write: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(write)
        def written(*arguments: Any, **options: Any) -> Any:
            nonlocal failed
            if failed:
                return None
            try:
                return write(*arguments, **options)
            except Exception as error:  # each logger raises its own
                failed = True
                print(
                    f"\ntracking.logger: {name} failed; training continues without it: {error}",
                    file=sys.stderr,
                    flush=True,
                )

        return written

    for method in ("log_metrics", "log_graph", "save", "finalize", "after_save_checkpoint"):
        setattr(logger, method, until_it_fails(getattr(logger, method)))
    return logger


def hyper_parameters(spec: Spec) -> dict[str, Any]:
    """Return the parameters of the run by dotted name, for the logger's table of runs."""
    chosen = spec.model_dump(mode="json", include={"name", "task", "data", "preprocess", "backbone", "recipe"})
    return _flat(chosen, prefix="")


def _flat(values: Mapping[str, Any], *, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, prefix=f"{prefix}{name}.")
        else:
            found[prefix + name] = value if isinstance(value, (int, float, str, bool)) else str(value)
    return found
