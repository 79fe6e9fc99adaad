#!/usr/bin/env python3
"""Measure the cost of reloads under load, killed processes, 3 and 10 times the capacity, and fifty classifiers in one
repository."""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.studies.study import finish, provenance, study_parser

EPILOG = """example:
  python -m benchmarks.studies.robustness runs/digits --images data/digits/test \
      --out benchmarks/results/robustness.json
  python -m benchmarks.studies.robustness runs/digits --images data/digits/test --only overload

RUN has bundle/ and engines/ with a choice, as make demo leaves them. Every part starts a launcher of its own and
ends it. About 15 minutes in all, on two otherwise idle cores."""

PARTS = ("reload", "kills", "overload", "fifty")


def main(arguments: argparse.Namespace) -> None:
    from benchmarks.studies.robustness.parts import PART_FUNCTIONS
    from slipway.benchmark.gate import load_images
    from slipway.contract.evidence.studies import RobustnessResult

    images = load_images(arguments.images, seed=arguments.seed)
    result = RobustnessResult(
        **provenance(("tritonclient", "nvidia-pytriton", "openvino", "cykooz-resizer", "psutil")),
        seed=arguments.seed,
        distinct_images=len(set(images)),
        client_shares_the_cores=True,
    )
    with tempfile.TemporaryDirectory(prefix="slipway-robustness-") as folder:
        for part in arguments.only or PARTS:
            print(f"\n{part}", flush=True)
            work = Path(folder) / part
            work.mkdir()
            found = PART_FUNCTIONS[part](arguments.run, images, work, seed=arguments.seed)
            result = result.model_copy(update={part: found})
            print(json.dumps(result.plain()[part], indent=2), flush=True)
    finish(result, arguments)


def parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, epilog=EPILOG, keys=("reload", "kills", "overload", "fifty"))
    parser.add_argument("run", type=Path, metavar="RUN", help="folder with bundle/ and engines/")
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="image files below it are sent")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to run; default: all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the schedules and the order of the images")
    return parser


if __name__ == "__main__":
    from slipway.system.process import run

    run(main, parser())
