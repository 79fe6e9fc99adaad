"""Fit a head to the embeddings of a base: a classifier of kilobytes, in seconds."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.contract import Bundle, BundleEngine, GateError
from slipway.contract.base_bundle import Base
from slipway.contract.bundle import HEAD
from slipway.contract.choice import Choice
from slipway.contract.dataset import SPLITS, Dataset
from slipway.contract.evidence.build import BundleMeasured, EngineMeasured, HeadFit
from slipway.contract.evidence.evaluation import read_engine_evaluation
from slipway.contract.shared_rules import fallback_engine
from slipway.system.json_line import print_json, verb_parser
from slipway.system.text import command

if TYPE_CHECKING:
    from slipway.cli.head_fit import HeadRun

EPILOG = """example:
  slipway base lite0.yaml
  slipway head pets.yaml --base runs/lite0

pets.yaml, whole:
  name: pets
  data: {root: photographs/pets}      # class folders, or a CSV file, as in any spec

A head is a linear layer, or a small network (recipe.head: {kind: mlp, units: 512}), on the embedding of the base. The
spec is an ordinary one without backbone, preprocess, calibration, precisions and serving, which are the base's.

SPEC may also be the run of a classifier whose backbone is that of the base. Then its last layers become the head, and
the answers to its test split are proven to be the same.

Writes RUN/bundle and, for each engine of the base that may be served, RUN/engines/ENGINE: weights and decision that
were fitted to the embeddings of that engine, and the verdict of the accuracy gate. Embeddings are kept in the base's
run, so that an image is decoded once. Without the GPU of a plan, the typed graph on a CPU stands in for it, and the
form says so. What is current stays. The exit code is 1 if the form for an engine that serves the base did not pass its
gate (docs/heads.md)."""


def main(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    from slipway.cli.head_fit import HeadRun  # not at the top: --help needs no library

    loading = time.monotonic() - started
    run = HeadRun.open(arguments.given, arguments.base, arguments.out)
    why = run.changed()
    if why is not None:
        print(f"{run.out}: {why}", flush=True)
        run.fit()
    bundle, forms = run.opened()
    show(bundle, forms, run.dataset)
    for folder in run.left_over():
        print(f"{folder}: of an earlier head, for an engine that the base does not serve now; remove it")
    print(f"  {'current' if why is None else 'time'}: loading {loading:.1f} s, {run.times}")
    served = served_forms(run.base, forms)
    failed = {form.path.name: form.verdict for form in served if not form.may_be_served}
    if not failed:
        print_next(run, arguments.base)
    print_json(
        arguments,
        {
            "bundle": str(bundle.path),
            "id": bundle.id,
            "current": why is None,
            "served": [form.path.name for form in served],
            "engines": {form.path.name: form.manifest.measured for form in forms},
            "seconds": run.times.seconds,
        },
    )
    for name, verdict in failed.items():
        from slipway.evaluation.gate import flawless, unproven  # not at the top: --help needs no library

        best = flawless([image.class_ids for image in run.dataset.of("test")], run.dataset.labels, bundle.spec)
        few = "".join(f"\n  {line}" for line in unproven(best))
        raise GateError(
            f"accuracy gate: {name} serves the base, and the form for it says {verdict!r}; test on "
            "more images, or raise the spec's limits: accuracy.max_loss_points, accuracy.max_class_loss_points, "
            f"accuracy.max_flip_points, accuracy.prove_classes: false{few}"
        )


def show(bundle: Bundle, forms: list[BundleEngine], dataset: Dataset) -> None:
    """Say what the head is, and how accurate each form of it is."""
    base, measured = bundle.base, bundle.manifest.read_measured(BundleMeasured)
    assert base is not None
    images = ", ".join(f"{split} {len(dataset.of(split))}" for split in SPLITS)
    kilobytes = (bundle.path / HEAD).stat().st_size / 1e3
    print(
        f"{bundle.path}: {len(bundle.labels)} classes, {len(dataset.images)} images ({images}), weights of "
        f"{kilobytes:.0f} kB, on base {base.name} ({base.id:.12})"
    )
    temperature = f", temperature {measured.temperature}" if bundle.decision.task == "multiclass" else ""
    print(f"  {bundle.spec.recipe.head.kind}, {strength(measured.head)}{temperature}")
    if measured.max_logit_difference is not None:
        print(f"  against the whole classifier: same labels, max |Δlogit| {measured.max_logit_difference:.2g}")
    if unknown := measured.unknown:
        print(f"  unknown by {unknown.score}: {unknown.unknown_rate:.2%} of the test split")
    for form in forms:
        found = read_engine_evaluation(form.path, task=form.decision.task)
        print(f"{form.path}: {found.primary_metrics}, macro-F1 {found.macro_f1:.4f}, ECE {found.ece:.4f}")
        print(f"  gate: {found.gate or 'the reference'}")
        if carried := form.manifest.read_measured(EngineMeasured).carried_over:
            print(f"  with FP32's weights instead of its own: {carried.primary_metrics}")


def strength(fitted: HeadFit | None) -> str:
    """Return a phrase on how the regularisation was chosen."""
    assert fitted is not None
    if not fitted.folds:
        return f"strength {fitted.strength:g} without a cross-validation, since a class has a single training image"
    return (
        f"strength {fitted.strength:g} of {', '.join(fitted.log_loss)} by {fitted.folds}-fold cross-validation on "
        f"{fitted.images} images"
    )


def served_forms(base: Base, forms: list[BundleEngine]) -> list[BundleEngine]:
    """The forms for the engines that serve the base on either lane, as far as they have been chosen."""
    engines = base.path.parent / "engines"
    chosen = {Choice.read(path).chosen for path in engines.glob("choice*.json")}
    if base.spec.serving.gpu.fallback == "onnxruntime" and not any(name.startswith("tensorrt-") for name in chosen):
        fallback = fallback_engine(base, engines)
        chosen |= {fallback.path.name} if fallback is not None else set()
    return [form for form in forms if form.path.name in chosen]


def print_next(run: "HeadRun", base_run: Path) -> None:
    print(
        f"  next: write these lines into a fleet file, then {command('slipway assemble', 'fleet.yaml')}\n"
        f"    bases:\n"
        f"      {run.base.spec.name}:\n"
        f"        base: {base_run}\n"
        f"        heads: {{{run.spec.name}: {run.out}}}"
    )


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument(
        "given", type=Path, metavar="SPEC", help="YAML file of the head, or the run of a whole classifier"
    )
    parser.add_argument("--base", type=Path, required=True, metavar="RUN", help="the run of its base")
    parser.add_argument("--out", type=Path, metavar="RUN", help="folder of the head's run; default: runs/<name>")
    return parser
