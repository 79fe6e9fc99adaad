"""Make a base: a backbone without a head, with its engines, for many heads to share."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.cli.compile import show_base_engine
from slipway.contract.base_bundle import Base, BaseEngine, BaseSpec
from slipway.contract.choice import Choice
from slipway.contract.engine import engine_name
from slipway.contract.evidence.build import BaseEngineMeasured, BaseMeasured
from slipway.contract.manifest import FILE_NAME as MANIFEST
from slipway.contract.manifest import Manifest
from slipway.contract.shared_rules import NOT_EVERYWHERE, SERVED
from slipway.errors import CompileError, ManifestError, RepositoryError, SpecError
from slipway.system.files import sha256_file
from slipway.system.json_line import print_json, verb_parser
from slipway.system.targets import check_folder
from slipway.system.text import command

if TYPE_CHECKING:
    from slipway.contract.spec import Precision
    from slipway.engines.quantize import Typed

TYPED: "tuple[Typed, ...]" = ("int8", "fp16", "fp8")
"""Precisions with a graph of their own."""
NOT_ON_CPU = "the spec lists no precision of the cpu lane, and FP32 is there to compare with"
ROUNDS, IMAGES_PER_ROUND = 20, 8
EPILOG = """example:
  slipway base lite0.yaml
  slipway head pets.yaml --base runs/lite0

lite0.yaml, whole:
  name: lite0
  backbone: {name: tf_efficientnet_lite0, weights: lite0.safetensors}
  images: photographs                 # any images like those that the heads will see; no label is needed
  calibration: {images: 200}

Writes RUN/base, RUN/graphs and RUN/engines: the graph of each precision that the spec lists, the engines of the cpu
lane, and a measurement of which is the fastest. The images set the ranges of INT8, and others of them judge how far
each engine's embeddings are from FP32's. What is current stays, so the command may be repeated. For the gpu lane,
slipway container compile makes plans of the graphs, on the GPU that serves."""


def main(arguments: argparse.Namespace) -> None:
    spec = BaseSpec.read(arguments.spec)
    run: Path = arguments.out or Path("runs") / spec.name
    check_folder(run / "base", kind="base")
    base = _base(spec, run)
    for precision in (precision for precision in TYPED if precision in spec.precisions):
        _graph(base, run / "graphs" / precision, precision)
    on_cpu = [precision for precision in SERVED["cpu"] if precision in spec.precisions]
    precisions: list[Precision] = ["fp32", *(precision for precision in on_cpu if precision != "fp32")]
    engines = {precision: _engine(base, run, precision) for precision in precisions}
    choice = _choice(base, run) if on_cpu else None
    print(f"{run / 'engines'}: {NOT_ON_CPU if choice is None else choice.reason}")
    if any(precision in SERVED["gpu"] for precision in spec.precisions):
        given = (base.path, "--graphs", run / "graphs", "--out", run / "engines", "--run")
        print(f"  for the gpu lane, on its GPU: {command('slipway container compile', *given)}")
    print(f"  next: {command('slipway head', 'SPEC', '--base', run)}")
    made = {precision: engine.manifest for precision, engine in engines.items() if engine is not None}
    gates = {precision: manifest.read_measured(BaseEngineMeasured).gate.plain() for precision, manifest in made.items()}
    chosen = None if choice is None else choice.chosen
    print_json(arguments, {"base": str(run / "base"), "id": base.id, "engines": gates, "chosen": chosen})


def _base(spec: BaseSpec, run: Path) -> Base:
    """The base of the run, made anew unless it is of this spec and these weights."""
    folder = run / "base"
    try:
        base = Base.open(folder)
        weights = spec.backbone.weights
        if base.spec == spec and base.manifest.inputs == ({"weights": sha256_file(Path(weights))} if weights else {}):
            print(f"{folder}: base {base.id:.12}, current")
            return base
    except (ManifestError, SpecError):
        pass  # missing, damaged, or of another release
    from slipway.training.bundle.base import write_base  # it imports torch

    print(f"{folder}: loading the backbone, and embedding {spec.embedding.images} images", flush=True)
    measured = write_base(spec, folder).read_measured(BaseMeasured)
    base = Base.open(folder)
    print(
        f"{folder}: base {base.id:.12}, embedding of {measured.embedding_size} numbers, weights {measured.origin}\n"
        f"  ONNX against torch: embeddings differ by up to {measured.max_embedding_difference:.2g}"
    )
    return base


def _graph(base: Base, folder: Path, precision: "Typed") -> None:
    """Make the typed graph of a precision anew unless it is of this base."""
    from slipway.engines.quantize import quantize

    try:
        if Manifest.open(folder, kind="graph").inputs["bundle"] == sha256_file(base.path / MANIFEST):
            return
    except ManifestError:
        pass  # missing, or damaged
    calibrating = f"calibrating {precision.upper()} on {base.spec.calibration.images} images"
    print(f"{folder}: {'converting to FP16' if precision == 'fp16' else calibrating}", flush=True)
    quantize(base, folder, precision=precision)


def _engine(base: Base, run: Path, precision: "Precision") -> BaseEngine | None:
    """An engine of the run, made anew unless it is of this base; None where this processor cannot run it."""
    from slipway.engines.compile import build_engine

    engines = run / "engines"
    folder = engines / engine_name("openvino", precision)
    try:
        engine = BaseEngine.open(folder, base=base)
        if engine.manifest.inputs["bundle"] != sha256_file(base.path / MANIFEST):
            raise ManifestError(f"{folder}: of an earlier base")
    except ManifestError:
        reference = None if precision == "fp32" else BaseEngine.open(engines / "openvino-fp32", base=base)
        try:
            engine = build_engine(
                base, run / "graphs", engines, target="openvino", precision=precision, reference=reference
            )
        except CompileError as error:
            if precision not in NOT_EVERYWHERE:
                raise
            print(f"{folder}: not built: {error}")
            return None
    show_base_engine(engine)
    return engine


def _choice(base: Base, run: Path) -> Choice:
    from slipway.engines.choose import choose
    from slipway.repository.fleet import open_base

    try:
        return open_base(run).choices[0]
    except (ManifestError, RepositoryError):
        return choose(base, run / "engines", rounds=ROUNDS, images_per_round=IMAGES_PER_ROUND)


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("spec", type=Path, metavar="SPEC", help="YAML file of the base")
    parser.add_argument("--out", type=Path, metavar="RUN", help="folder of its run; default: runs/<name>")
    return parser
