#!/usr/bin/env python3
"""Run the experiments of benchmarks/studies/training/ one after the other; write a result file and a table in docs/."""

import argparse
import importlib
import json
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from benchmarks.studies.study import RESULTS, ROOT, provenance, study_parser
from benchmarks.studies.training.result import Experiment, Found
from slipway.contract import SpecError
from slipway.system.process import run
from slipway.system.targets import file_option, write_file

PACKAGE = "benchmarks.studies.training"
RESULT = RESULTS / "experiments.json"
PAGE = ROOT / "docs/experiments.md"
NAMES = ("folds", "imbalance", "multilabel", "noise", "confidence", "loader", "fine_tune", "classes")
LIBRARIES = ("torch", "timm", "lightning", "nvidia-dali-cuda130", "cleanlab", "openvino", "scikit-learn")
EPILOG = """example:
  python -m benchmarks.studies.training                  all of them, at most half an hour on two cores
  python -m benchmarks.studies.training folds noise      these; the others keep their place in the result file
  python -m benchmarks.studies.training --list

Each experiment is a module of benchmarks/studies/training/ with `measure(scratch) -> result`. The result file is
written after each, so what was measured before Ctrl-C is kept.

exit status: 0; 1 where a target was missed or an experiment ended with an error"""


def main(arguments: argparse.Namespace) -> int:
    if arguments.list:
        print("\n".join(f"{name:12} {purpose(load(name))}" for name in NAMES))
        return 0
    if unknown := [name for name in arguments.names if name not in NAMES]:
        raise SpecError(f"{', '.join(unknown)}: no such experiment; there are {', '.join(NAMES)}")
    chosen = arguments.names or NAMES
    result = read(arguments.out) if arguments.out.is_file() else {}
    for number, name in enumerate(chosen, start=1):
        print(f"[{number}/{len(chosen)}] {name}: {purpose(load(name))}", flush=True)
        result[name] = measured(name)
        write(result, arguments.out, arguments.page)
        print("\n".join(f"  {line}" for line in lines(result[name])), flush=True)
    missed = [name for name in chosen if not all(t.met for t in result[name].targets) or result[name].error]
    if arguments.json:
        print(json.dumps({"out": str(arguments.out), "experiments": chosen, "missed": missed}))
    return 1 if missed else 0


def load(name: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{name}")


def purpose(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().splitlines()[0]


def read(path: Path) -> dict[str, Experiment]:
    entries = json.loads(path.read_text(encoding="utf-8"))
    return {name: Experiment.parse(entry, source=f"{path}: {name}") for name, entry in entries.items()}


def measured(name: str) -> Experiment:
    """Return the result of one experiment with its time and its provenance; an error is a result without targets."""
    module, started, origin = load(name), time.monotonic(), provenance(LIBRARIES)
    with tempfile.TemporaryDirectory(prefix=f"slipway-{name}-") as scratch:
        try:
            found: Found = module.measure(Path(scratch))
        except Exception as error:  # the others are worth running all the same
            traceback.print_exc()
            found = Found(targets=(), error=f"{type(error).__name__}: {error}")
    seconds = round(time.monotonic() - started, 1)
    return Experiment(purpose=purpose(module), duration_s=seconds, **found.fields(), **origin)


def lines(entry: Experiment) -> list[str]:
    told = [f"{'met   ' if t.met else 'MISSED'}  {t.what}: {t.measured} ({t.asked})" for t in entry.targets]
    return [*told, *([f"ERROR   {entry.error}"] if entry.error else []), f"{entry.duration_s:.0f} s"]


def write(result: Mapping[str, Experiment], out: Path, page: Path) -> None:
    ordered = {name: result[name] for name in (*NAMES, *sorted(result)) if name in result}
    out.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: entry.plain() for name, entry in ordered.items()}
    write_file(out, json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    write_file(page, render(ordered))


def render(result: Mapping[str, Experiment]) -> str:
    """Render the page in Markdown: a row a target, and the machine that measured it."""
    rows = [
        f"| {name} | {' | '.join(map(cell, (t.what, t.asked, t.measured)))} | {MET[t.met]} |"
        for name, entry in result.items()
        for t in entry.targets
    ]
    rows += [f"| {name} | {cell(entry.error)} | | | **error** |" for name, entry in result.items() if entry.error]
    where = [
        f"| [{name}](../benchmarks/studies/training/{name}.py) | {cell(entry.purpose)} "
        f"| {entry.duration_s / 60:.1f} "
        f"| {entry.machine.cpu}, {entry.machine.cores} cores | {(entry.commit or 'none')[:12]} "
        f"| {entry.created[:10]} |"
        for name, entry in result.items()
    ]
    return "\n".join([*HEAD, *rows, *BETWEEN, *where, ""])


MET = {True: "yes", False: "**no**"}
HEAD = (
    "# Experiments",
    "",
    "Written by `make study-training` from [experiments.json](../benchmarks/results/experiments.json), which has every "
    "number behind these, seeds and versions. All data are made on the spot; nothing is fetched.",
    "",
    "| experiment | what | asked | measured | met |",
    "| --- | --- | --- | --- | --- |",
)
BETWEEN = ("", "| experiment | purpose | minutes | machine | commit | date |", "| --- | --- | --- | --- | --- | --- |")


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, epilog=EPILOG, keys=NAMES, result=RESULT)
    parser.add_argument("names", nargs="*", metavar="NAME", help="studies to run; default: all")
    parser.add_argument("--list", action="store_true", help="say which there are, and run none")
    parser.add_argument(
        "--page",
        type=file_option("# Experiments", what="a page of experiments.py"),
        default=PAGE,
        help="page of the studies; default: docs/experiments.md",
    )
    return parser


if __name__ == "__main__":
    run(main, parser())
