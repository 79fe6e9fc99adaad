"""Compile the graphs of a bundle or a base to engines of one target, evaluate each, and gate it."""

import argparse
from pathlib import Path
from typing import get_args

from slipway.cli.choose import show as show_choice
from slipway.contract import BundleEngine, CompileError, GateError
from slipway.contract.base_bundle import Base, BaseEngine, Owner, open_network
from slipway.contract.engine import Target
from slipway.contract.evidence.build import BaseEngineMeasured, EmbeddingLoss, EngineMeasured, PlanMeasured
from slipway.contract.evidence.evaluation import read_engine_evaluation
from slipway.contract.evidence.gate import PASS, PROOF, REFERENCE
from slipway.contract.shared_rules import NOT_EVERYWHERE
from slipway.system.json_line import print_json, verb_parser
from slipway.system.targets import check_folder
from slipway.system.text import command, shown

EPILOG = """example:
  slipway compile runs/digits/bundle --graphs runs/digits/graphs --out runs/digits/engines
  slipway compile runs/digits/bundle --graphs runs/digits/graphs --out runs/digits/engines --target tensorrt_rtx
  slipway compile runs/lite0/base --graphs runs/lite0/graphs --out runs/lite0/engines --target tensorrt

targets:
  openvino      the cpu lane, on this machine
  tensorrt      the gpu lane; needs the GPU that serves: slipway container compile prints the command. Ends with
                slipway choose, since the fastest precision is measured there
  tensorrt_rtx  shows without a GPU that a graph compiles, and the size of the plan; never served
  onnxruntime   the gpu lane of a classifier without a plan, where its spec says serving.gpu.fallback: onnxruntime;
                gated on this machine's CPU, which computes every node in the type that the graph gives it

OpenVINO FP32 is always built first: the others are compared with it image by image. The verdict is pass, fail, or too
few images to tell. An engine that did not pass is written for inspection and never assembled. The exit code is 0 when
at least one precision that the spec lists passed. Of a base, embeddings are compared, and slipway base builds the
engines of openvino."""
FLIPS_SHOWN = 20
ROUNDS, CALLS = 15, 40


def main(arguments: argparse.Namespace) -> None:
    check_folder(arguments.out / "openvino-fp32", kind="engine")

    from slipway.engines import build_engine, choose_plan, wanted  # after the check: it takes seconds
    from slipway.engines.compile import require_listed
    from slipway.engines.current import installed
    from slipway.engines.tensorrt_library import import_library

    bundle: Owner[BundleEngine | BaseEngine] = open_network(arguments.bundle)
    options = {"target": arguments.target, "timing_cache": arguments.timing_cache}
    require_listed(bundle.spec, arguments.target)
    if arguments.target in ("tensorrt", "tensorrt_rtx"):
        import_library(arguments.target)  # both before minutes go into the reference
        installed(arguments.target)
    reference = reference_engine(bundle, arguments)
    passed = [reference] if arguments.target == "openvino" else []
    hindered: dict[str, str] = {}
    built = "fp32" if arguments.target == "openvino" else None
    for precision in wanted(bundle.spec, arguments.target):
        if precision == built:
            continue
        try:
            engine = build_engine(
                bundle, arguments.graphs, arguments.out, precision=precision, reference=reference, **options
            )
        except CompileError as error:
            if precision not in NOT_EVERYWHERE:
                raise
            hindered[precision] = str(error)
            continue
        show(engine)
        if engine.verdict in (PASS, REFERENCE, PROOF):
            passed.append(engine)
        else:
            hindered[precision] = engine.verdict
    result = {engine.path.name: engine.manifest.measured for engine in passed}
    served = [engine for engine in passed if engine.settings.precision in bundle.spec.precisions]
    if not served:
        print_json(arguments, result)
        raise GateError(
            f"accuracy gate: nothing of {', '.join(bundle.spec.precisions)} passed on {arguments.target}: {hindered}; "
            "train or calibrate better, test on more images, raise the spec's accuracy limits, or list another"
        )
    for name, reason in hindered.items():
        print(f"  {name} is left out ({reason}); the spec lists {', '.join(bundle.spec.precisions)}")
    if arguments.target == "tensorrt":  # the GPU is at hand now, and where the lane is assembled there may be none
        show_choice(choose_plan(bundle, arguments.out, rounds=ROUNDS, calls_per_round=CALLS))
    print(f"  next: {next_command(arguments, is_base=isinstance(bundle, Base))}")
    print_json(arguments, result)


def reference_engine(
    bundle: Owner[BundleEngine | BaseEngine], arguments: argparse.Namespace
) -> BundleEngine | BaseEngine:
    """The engine `openvino-fp32`: the openvino target builds it, and the others reuse it."""
    from slipway.engines import build_engine

    folder = arguments.out / "openvino-fp32"
    if arguments.target != "openvino" and folder.is_dir():
        return bundle.open_engine(folder)
    reference = build_engine(
        bundle, arguments.graphs, arguments.out, target="openvino", precision="fp32", reference=None
    )
    show(reference)
    return reference


def show(engine: BundleEngine | BaseEngine) -> None:
    if engine.verdict == PROOF:
        kind: type[PlanMeasured] = EngineMeasured if isinstance(engine, BundleEngine) else BaseEngineMeasured
        measured = engine.manifest.read_measured(kind)
        size_mb = (measured.plan_bytes or 0) / 1e6
        print(f"{engine.path}: compiles in {measured.build_s:.1f} s, {size_mb:.1f} MB (proof only, never served)")
        return
    if isinstance(engine, BaseEngine):
        show_base_engine(engine)
        return
    found, temperature = read_engine_evaluation(engine.path, task=engine.decision.task), engine.decision.temperature
    one_label = (
        f", unknown {found.unknown_rate:.2%}, temperature {temperature}" if found.unknown_rate is not None else ""
    )
    print(f"{engine.path}: {found.primary_metrics}, macro-F1 {found.macro_f1:.4f}, ECE {found.ece:.4f}{one_label}")
    run = f" ({found.profile})" if found.profile else ""
    print(f"  gate{run}: {found.gate or 'the reference'}")
    for flip in found.flips[:FLIPS_SHOWN]:
        print(f"  flipped: {shown(flip.image)} (truth {flip.truth}): {flip.fp32} → {flip.label}")
    if len(found.flips) > FLIPS_SHOWN:
        print(f"  … and {len(found.flips) - FLIPS_SHOWN} more in {engine.path / 'evaluation.json'}")


def show_base_engine(engine: BaseEngine) -> None:
    """Print what the gate on embeddings found."""
    gate = engine.manifest.read_measured(BaseEngineMeasured).gate
    print(f"{engine.path}: {gate if isinstance(gate, EmbeddingLoss) else 'the reference'}")


def next_command(arguments: argparse.Namespace, *, is_base: bool) -> str:
    if is_base and arguments.target == "tensorrt_rtx":
        given = (arguments.bundle, "--graphs", arguments.graphs, "--out", arguments.out, "--run")
        return command("slipway container compile", *given)
    if is_base:
        return command("slipway head", "SPEC", "--base", arguments.bundle.parent)
    if arguments.target == "openvino":
        return command("slipway choose", arguments.bundle, "--engines", arguments.out)
    if arguments.target in ("tensorrt", "onnxruntime"):
        return command("slipway assemble", arguments.bundle, "--engines", arguments.out, "--lane", "gpu")
    return command("slipway report", arguments.bundle, "--engines", arguments.out)


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("bundle", type=Path, help="folder that slipway export wrote, or the base of slipway base")
    parser.add_argument("--graphs", type=Path, required=True, help="folder of graphs, for example runs/digits/graphs")
    parser.add_argument("--out", type=Path, required=True, help="folder for engines, for example runs/digits/engines")
    parser.add_argument("--target", choices=get_args(Target), default="openvino", help="engine to build")
    parser.add_argument(
        "--timing-cache",
        type=Path,
        help="file of TensorRT's timings, read and written, for faster builds; default: beside the engines",
    )
    return parser
