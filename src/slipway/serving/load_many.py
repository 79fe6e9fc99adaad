"""Loads any number of ensembles in one call of tritonserver.

Its API loads one model a call, and each call copies what the server knows of all models: 2,000 ensembles took 160 s.
But it loads an ensemble with all of its steps, which may be ensembles too. So a model that has them all as its steps is
loaded, and then unloaded; they stay.

Whenever a step has been loaded, the server checks whether the model above it has all of its steps, and if so, it checks
each of them. For that to happen once, and not 2,000 times, the model has one more step, which is loaded after the
others: an ensemble around one of them.
"""

from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format

from slipway.lint.models import CONFIG, Model, proto

NAME, LAST = "slipway-together", "slipway-last"
"""Names of the two helper models. They have a hyphen, so no classifier can have them."""
NAMES = (NAME, LAST)
MANY = 16
"""Number of ensembles above which this is quicker than one call each."""


def write_models(repository: Path, ensembles: Sequence[Model]) -> None:
    """Write the model that has `ensembles` as its steps, and its last step. Each takes an IMAGE and gives a STATUS."""
    status = {model.name: next(name for name in model.outputs if name.endswith("STATUS")) for model in ensembles}
    _write(repository / LAST, dict([next(iter(status.items()))]))
    _write(repository / NAME, {LAST: "STATUS0", **status})


def _write(folder: Path, steps: dict[str, str]) -> None:
    config = proto.ModelConfig(name=folder.name, platform="ensemble", max_batch_size=1)
    config.input.add(name="IMAGE", data_type=proto.TYPE_STRING, dims=[1])
    for number, (name, status) in enumerate(steps.items()):
        config.output.add(name=f"STATUS{number}", data_type=proto.TYPE_INT32, dims=[1])
        step = config.ensemble_scheduling.step.add(model_name=name, model_version=-1)
        step.input_map["IMAGE"], step.output_map[status] = "IMAGE", f"STATUS{number}"
    (folder / "1").mkdir(parents=True)
    (folder / CONFIG).write_text(text_format.MessageToString(config), encoding="utf-8")
