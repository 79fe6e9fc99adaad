"""Checks the TensorRT plans of an engine step: their GPUs, and whether their facts fit the configuration."""

import re
from pathlib import Path

from slipway.contract import EngineSettings, SpecError
from slipway.lint.finding import Findings
from slipway.lint.layout import leaves
from slipway.lint.models import AGAIN, Model, Repository


def check_plans(model: Model, repository: Repository) -> Findings:
    """Check `cc_model_filenames`, and in repositories of Slipway the `engine_<gpu>.json` beside each plan."""
    for capability, file in sorted(model.config.cc_model_filenames.items()):
        field = f"cc_model_filenames[{capability!r}]"
        if not re.fullmatch(r"[1-9]\d?\.\d", capability):
            reason = f"{capability!r} is not a compute capability such as 9.0, so Triton never uses the plan"
            yield model.finding("plan-capability", field, reason, "write major.minor, such as 9.0")
        elif not leaves(file) and not (model.files / file).is_file():
            where = f"{model.files.name}/{file}"
            yield model.finding("plan-missing", field, f"{file} is not there", AGAIN, file=where)
        elif not leaves(file) and repository.lane is not None:
            yield from _facts(model, capability, model.files / file)


def plan_facts(plan: Path) -> Path:
    """The facts of a plan: `engine_sm90.json` beside `model_sm90.plan`."""
    return plan.with_name(plan.name.replace("model", "engine", 1)).with_suffix(".json")


def _facts(model: Model, capability: str, plan: Path) -> Findings:
    facts = plan_facts(plan)
    where = f"{model.files.name}/{facts.name}"

    def wrong(field: str, reason: str) -> Findings:
        yield model.finding("plan-facts", field, reason, AGAIN, file=where)

    try:
        settings = EngineSettings.read(facts)
    except SpecError as error:
        yield from wrong("", str(error).removeprefix(f"{facts}: "))
        return
    if settings.target != "tensorrt" or settings.plan is None:
        yield from wrong("target", f"{settings.target}, but Triton only loads plans of TensorRT")
        return
    if settings.plan.compute_capability != capability:
        built = settings.plan.compute_capability
        yield from wrong("plan.compute_capability", f"built for {built}, but config.pbtxt uses it for {capability}")
    least, _, most = settings.plan.batch_sizes
    if not least <= 1 <= model.config.max_batch_size <= most:
        reason = f"batches of {least} to {most}, but config.pbtxt serves 1 to {model.config.max_batch_size}"
        yield from wrong("plan.batch_sizes", reason)
