#!/usr/bin/env python3
"""Measure a thousand classifiers on one box: heads on one base, their start, memory, latency, changes and accuracy."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.studies.effort import add_effort, effort_of
from benchmarks.studies.study import ROOT, finish, provenance, study_parser

if TYPE_CHECKING:
    from benchmarks.studies.density.result import DensityFirstAnswer, MadeHead

LIBRARIES = (
    "cykooz-resizer",
    "nvidia-nvimgcodec-cu13",
    "nvidia-pytriton",
    "openvino",
    "scikit-learn",
    "timm",
    "tritonclient",
)
CROPS_EACH, SMALL_EACH, LOSS_CROPS_EACH, EQUAL_IMAGES = 60, 14, 200, 4
PARTS = ("accuracy", "first_answer", "loss", "latency", "equal", "changes", "whole")
LIMITS = {"prove_classes": False, "max_loss_points": 20, "max_class_loss_points": 100, "max_flip_points": 30}
"""Limits of the accuracy gate that the small test splits of these tasks can prove."""
EPILOG = """example:
  python -m benchmarks.studies.density --out benchmarks/results/density.json        40 minutes on two cores
  python -m benchmarks.studies.density --heads 100 --quick --parts latency changes
  python -m benchmarks.studies.density --parts first_answer equal                      some minutes

The base is EfficientNet-Lite0 with its ImageNet weights, in INT8, at 224 pixels. Heads are trained on it for three
tasks; the others have random weights, 2 to 200 classes, one or several labels, and cost what trained ones cost."""


def main(arguments: argparse.Namespace) -> None:
    from benchmarks.studies.density.loss import head_loss
    from benchmarks.studies.density.made import write_crops, write_random_heads
    from benchmarks.studies.density.parts import changes, equal, latency, whole
    from benchmarks.studies.density.result import FullDensityResult
    from benchmarks.studies.density.weights import BACKBONE, lite0
    from slipway.benchmark.gate import load_images
    from slipway.repository.fleet import open_base

    effort = effort_of(arguments)
    result = FullDensityResult(**provenance(LIBRARIES), **vars(effort), backbone=BACKBONE, client_shares_the_cores=True)
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="slipway-density-") as folder:
        work = Path(folder)
        crops = write_crops(work / "crops", each=CROPS_EACH)
        base = make_base(work, lite0(work), crops)
        slipway("make-digits", "--out", work / "digits", cwd=work)
        if "accuracy" in arguments.parts:
            found["accuracy"] = accuracy(work, base)
        if "first_answer" in arguments.parts:
            found["first_answer"] = first_answer(work, base)
        if "loss" in arguments.parts:
            more = write_crops(work / "more", each=LOSS_CROPS_EACH, seed=5)
            (work / "loss").mkdir()
            found["loss"] = {
                name: head_loss(base, name, data, work / "loss", seed=effort.seed)
                for name, data in {"digits": work / "digits", "photographs": more}.items()
            }
        images = load_images(crops, seed=effort.seed)
        runs = write_random_heads(work / "heads", open_base(base), arguments.heads, seed=effort.seed)
        if "latency" in arguments.parts:
            (work / "latency").mkdir()
            found["latency"] = latency(base, runs, images, work / "latency", effort)
        if "equal" in arguments.parts:
            found["equal"] = equal(base, runs, images[:EQUAL_IMAGES], work / "equal")
        if "changes" in arguments.parts:
            (work / "changes").mkdir()
            found["changes"] = changes(base, runs, images, work / "changes", seed=effort.seed)
        if "whole" in arguments.parts:
            (work / "whole").mkdir()
            found["whole"] = whole(base, work / "whole", seed=effort.seed)
    result = result.model_copy(update=found)
    print(result.to_json())
    finish(result, arguments)


def slipway(*words: object, cwd: Path) -> str:
    """Run a verb as a user does; returns its JSON line."""
    print("slipway", *words, flush=True)
    command = [sys.executable, "-m", "slipway", *map(str, words), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=cwd, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    return done.stdout.splitlines()[-1]


def make_base(work: Path, weights: Path, crops: Path) -> Path:
    """Make the run of the base by `slipway base`."""
    from benchmarks.studies.density.weights import BACKBONE

    spec = {
        "name": "lite0",
        "backbone": {"name": BACKBONE, "weights": str(weights)},
        "images": str(crops),
        "calibration": {"images": 300},
        "embedding": {"images": 200},
    }
    (work / "lite0.json").write_text(json.dumps(spec))
    slipway("base", work / "lite0.json", "--out", work / "lite0", cwd=work)
    return work / "lite0"


def accuracy(work: Path, base: Path) -> "dict[str, MadeHead]":
    """Make heads of two tasks by `slipway head`; returns what each loses on INT8, and the seconds that a small task
    takes."""
    from benchmarks.studies.density.made import write_crops

    small = write_crops(work / "small", each=SMALL_EACH, seed=1)
    tasks = {"photographs": work / "crops", "digits": work / "digits", "small": small}
    return {name: make_head(work, base, name, data) for name, data in tasks.items()}


def make_head(work: Path, base: Path, name: str, data: Path) -> "MadeHead":
    """Make the run `heads_of/<name>` of a head of class folders."""
    from benchmarks.studies.density.result import MadeHead

    spec = {"name": name, "data": {"root": str(data)}, "accuracy": LIMITS}
    (work / f"{name}.json").write_text(json.dumps(spec))
    out = work / "heads_of" / name
    started_s = time.monotonic()
    line = slipway("head", work / f"{name}.json", "--base", base, "--out", out, cwd=work)
    made = MadeHead.parse(json.loads(line), source="slipway head")
    return made.model_copy(update={"seconds": time.monotonic() - started_s})


def first_answer(work: Path, base: Path) -> "DensityFirstAnswer":
    """Time the way from the images of a new task, none of them embedded before, to a server's first answer with its
    head."""
    from benchmarks.studies.density.made import write_crops
    from benchmarks.studies.density.parts import fleet_of, serving
    from benchmarks.studies.density.result import DensityFirstAnswer
    from slipway.client import Client

    name = "first"
    images = sorted(write_crops(work / name, each=SMALL_EACH, seed=2).rglob("*.jpg"))
    started_s = time.monotonic()
    made = make_head(work, base, name, work / name)
    with serving(fleet_of(base, {name: work / "heads_of" / name}), work / "first_served") as (server, started):
        with Client(f"grpc://{server.grpc_url}", model=name) as client:
            answer = client.classify(images[0])
        seconds = time.monotonic() - started_s
    if not answer.ok or answer.bundle != made.id:
        raise SystemExit(f"no answer of the new head: {answer}")
    return DensityFirstAnswer(
        images=len(images),
        seconds=seconds,
        head_s=made.seconds,
        assemble_s=started.assemble_s,
        ready_s=started.ready_s,
    )


def parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, epilog=EPILOG, keys=("backbone",))
    add = parser.add_argument
    add("--heads", type=int, default=1000, metavar="N", help="heads on the base")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="parts to measure; default: all")
    add_effort(parser, rounds=6, search_rounds=1)
    return parser


if __name__ == "__main__":
    from slipway.system.process import run

    run(main, parser())
