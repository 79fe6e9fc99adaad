#!/usr/bin/env python3
"""Put every backbone of the matrix through export, INT8, FP16, TensorRT-RTX and OpenVINO, and write the table in docs/.

Two tables. *Compiled*: full-size backbones with random weights, which show what compiles, how large it gets and how
fast it is. *Trained*: small ones, trained on the demo's digits by the ordinary scripts, which show what a precision
costs in accuracy. A cell without a value gives the reason.
"""

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.studies.backbones.result import (
    BackbonesResult,
    CompiledRow,
    EngineFound,
    Processor,
    Row,
    Searched,
    TrainedRow,
)
from benchmarks.studies.study import ROOT, study_parser
from slipway.contract import SlipwayError
from slipway.system.process import child, run
from slipway.system.targets import file_option, write_file

RESULT, PAGE = ROOT / "benchmarks/results/backbones.json", ROOT / "docs/backbones.md"
COMPILED = {  # timm's name: input side in pixels
    "mobilenetv3_large_100": 224,
    "efficientnet_b0": 224,
    "resnet50": 224,
    "efficientnet_b4": 380,
    "convnext_tiny": 224,
    "convnext_base": 224,
    "vit_small_patch16_224": 224,
    "vit_base_patch16_224": 224,
    "swin_tiny_patch4_window7_224": 224,
}
TRAINED: dict[str, dict[str, dict[str, Any]]] = {  # row: changes to training/configs/digits.yaml
    "resnet10t": {},
    "mobilenetv3_small_050": {"recipe": {"epochs": 12}},
    # With ranges up to the largest value, plain INT8 loses too much on these backbones, so that the search has work.
    "mobilenetv3_small_050-max": {"recipe": {"epochs": 12}, "calibration": {"method": "max"}},
    "efficientnet_lite0-max": {"recipe": {"epochs": 12}, "calibration": {"method": "max"}},
}
Cells = TypeVar("Cells", bound=Row)
FAST = 3  # of the compiled backbones, for tests
EPILOG = """example:
  python -m benchmarks.studies.backbones               everything; about 40 minutes on two cores (make study-backbones)
  python -m benchmarks.studies.backbones --fast        the first third, in a few minutes
  python -m benchmarks.studies.backbones --only resnet50 --out /tmp/one.json"""


def main(arguments: argparse.Namespace) -> None:
    from benchmarks.studies.backbones.compiled import (
        compiled_row,  # beside this file; not at the top: --help needs no library
    )
    from benchmarks.studies.backbones.page import render

    names = [name for name in COMPILED if not arguments.only or name in arguments.only]
    trained = [name for name in TRAINED if not arguments.only or name in arguments.only]
    if arguments.fast:
        names, trained = names[:FAST], []
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    from slipway.contract.evidence.origin import now

    result = BackbonesResult(created=now(), compiled={}, trained={})
    rounds, images = (3, 8) if arguments.fast else (11, 32)
    for name in names:
        say(f"compiled {name}, {COMPILED[name]} px")
        make = partial(compiled_row, name, COMPILED[name], work / "compiled" / name, rounds=rounds, images=images)
        result.compiled[name] = row(CompiledRow(), make)
        write(arguments.out, result)
    for name in trained:
        say(f"trained {name}")
        result.trained[name] = row(TrainedRow(), partial(trained_row, name, work / "trained" / name))
        write(arguments.out, result)
    add_machine(result)
    write(arguments.out, result)
    if arguments.page:
        write_file(arguments.page, render(result.plain(), source=arguments.out.name))
        print(f"{arguments.page} from {arguments.out}")
    if arguments.json:
        print(json.dumps(result.plain()))


def row(cells: Cells, make: Callable[[Cells], None]) -> Cells:
    """Return the cells that `make` filled in, and the reason if it ended early."""
    started = time.monotonic()
    try:
        make(cells)
    except SlipwayError as error:
        cells.ended = str(error)
    except Exception as error:  # one backbone that breaks a library must not cost the others
        traceback.print_exc()
        cells.ended = f"{type(error).__name__}: {error}"
    cells.seconds = round(time.monotonic() - started, 1)
    return cells


def trained_row(name: str, folder: Path, cells: TrainedRow) -> None:
    """Train, export, quantise, compile and choose with the ordinary scripts, on the digits."""
    from slipway.contract import Choice, Manifest
    from slipway.contract.evidence.build import SensitivitySearch
    from slipway.contract.evidence.evaluation import EVALUATION, EngineEvaluation
    from slipway.system.yaml_json import dump_yaml, read_plain

    data = folder.parent / "data"
    if not data.is_dir():
        script("training/make_digits.py", "--out", data)
    spec = read_plain(ROOT / "training/configs/digits.yaml")
    spec["data"]["root"], spec["backbone"]["name"] = str(data), name.partition("-")[0]
    for section, changes in TRAINED[name].items():
        spec[section] = spec.get(section, {}) | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(dump_yaml(spec), encoding="utf-8")
    if not (folder / "checkpoint").is_dir():
        script("training/train.py", folder / "spec.yaml", "--out", folder / "checkpoint")
    script("training/export.py", folder / "checkpoint", "--out", folder / "bundle")
    for precision in ("fp16", "int8"):
        try:
            script(
                "build/quantize.py", folder / "bundle", "--precision", precision, "--out", folder / "graphs" / precision
            )
        except SlipwayError as error:
            setattr(cells, f"{precision}_ended", str(error))
    search = folder / "graphs/int8/search.json"
    if search.is_file():
        cells.search = Searched.parse(SensitivitySearch.read(search).plain(), source=str(search))
    options = (folder / "bundle", "--graphs", folder / "graphs", "--out", folder / "engines")
    script("build/compile.py", *options)
    script("build/choose.py", folder / "bundle", "--engines", folder / "engines")
    cells.choice = Choice.read(folder / "engines/choice.json")
    for engine in sorted((folder / "engines").glob("openvino-*")):
        flips = EngineEvaluation.read(engine / EVALUATION).flips
        found = Manifest.read(engine / "manifest.json").measured | {"flips": len(flips)}
        setattr(cells, engine.name, EngineFound.parse(found, source=engine.name))


def script(name: str, *arguments: str | Path) -> None:
    """Run a script. Raises SlipwayError with its last lines if its exit code is not 0."""
    command = [sys.executable, str(ROOT / name), *map(str, arguments)]
    with child(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        _, said = process.communicate()
    if process.returncode != 0:
        words = said.strip().splitlines()
        raise SlipwayError(words[-1] if words else f"{name} ended with {process.returncode}")


def add_machine(result: BackbonesResult) -> None:
    import os

    from slipway.contract.evidence.origin import Machine, commit, versions

    libraries = (
        "torch",
        "timm",
        "onnx",
        "nvidia-modelopt",
        "openvino",
        "tensorrt-rtx-cu13-libs",
        "nvidia-dali-cuda130",
    )
    result.machine = Processor(processor=Machine.this().cpu, cores=os.cpu_count() or 1)
    result.versions, result.commit = versions(libraries), commit()


def write(path: Path, result: BackbonesResult) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, result.to_json())


def say(text: str) -> None:
    print(f"── {text}", flush=True)


def parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, epilog=EPILOG, keys=("compiled", "trained"), result=RESULT)
    add = parser.add_argument
    add("--fast", action="store_true", help="the first third of the compiled ones, with fewer images and rounds")
    add("--only", nargs="+", metavar="NAME", help=f"networks, of {', '.join({**COMPILED, **TRAINED})}")
    add("--work", type=Path, default=Path("runs/backbones"), help="folder for graphs")
    add(
        "--page",
        type=file_option("# Backbones", what="a page of the study backbones"),
        help="write the tables there; make study-backbones writes docs/backbones.md",
    )
    return parser


if __name__ == "__main__":
    run(main, parser())
