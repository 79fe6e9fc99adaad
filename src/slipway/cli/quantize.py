"""Quantise a bundle's graph: INT8 or FP8 from the bundle's own calibration sample, or FP16, with ModelOpt."""

import argparse
from pathlib import Path

from slipway.contract.base_bundle import Base, open_network
from slipway.contract.evidence.build import SEARCH, GraphMeasured, SensitivitySearch
from slipway.system.json_line import print_json, verb_parser
from slipway.system.targets import check_folder
from slipway.system.text import command

EPILOG = """example:
  slipway quantize runs/digits/bundle --out runs/digits/graphs/int8
  slipway quantize runs/digits/bundle --out runs/digits/graphs/fp16 --precision fp16
  slipway quantize runs/digits/bundle --out runs/digits/graphs/fp8 --precision fp8
  slipway quantize runs/digits/bundle --out runs/digits/tuned/int8 --autotune

The calibration images pass through the preprocessing of serving. The spec sets their number (calibration.images), the
bundle holds them, and their hashes are part of its id; INT8 and FP8 refuse to run with fewer.

If INT8 loses too much on the validation split, a search keeps layers in FP16, the most sensitive first, for as many
steps as the spec allows (sensitive_layers.max_steps). search.json has every step. The test split is not used. Run this
where training ran, since it reads the validation images.

FP8 is for TensorRT on GPUs of compute capability 8.9 and later. Nothing is searched for it: its accuracy gate runs
where its plan is compiled.

With --autotune, ModelOpt times many plans by TensorRT's trtexec on this machine's GPU, for minutes or hours, and leaves
a layer in FP16 where it is not faster in INT8. The graph is compiled, gated and compared like any other."""


def main(arguments: argparse.Namespace) -> None:
    check_folder(arguments.out, kind="graph")

    from slipway.engines import quantize  # after the check: it takes seconds

    bundle = open_network(arguments.bundle)
    manifest = quantize(bundle, arguments.out, precision=arguments.precision, autotune=arguments.autotune)
    show_layers(arguments.out, manifest.read_measured(GraphMeasured))
    if arguments.precision == "int8" and not isinstance(bundle, Base):
        show_search(SensitivitySearch.read(arguments.out / SEARCH))
    print(f"  next: {next_command(arguments)}")
    print_json(arguments, {"graph": str(arguments.out), **manifest.measured})


def next_command(arguments: argparse.Namespace) -> str:
    engines = arguments.bundle.parent / "engines"
    line = command("slipway compile", arguments.bundle, "--graphs", arguments.out.parent, "--out", engines)
    if arguments.out.name == arguments.precision:
        return line
    wanted = arguments.out.parent / arguments.precision  # where compile looks for it
    return f"{command('mv', arguments.out, wanted)} && {line}"


def show_layers(out: Path, measured: GraphMeasured) -> None:
    layers = measured.layers or 0
    shares = [f"{count} in {name} ({count / layers:.0%})" for name, count in measured.by_precision.items() if count]
    print(f"{out}: {layers} convolutions and matrix products, {', '.join(shares)}; opset {measured.opset}")
    for layer, reason in measured.not_quantised.items():
        print(f"  not {str(measured.precision).upper()}: {layer}: {reason}")
    if measured.nodes_kept_fp32:
        print(f"  kept in FP32: {', '.join(measured.nodes_kept_fp32)}")
    if found := measured.autotune:
        placed, plain = (
            "a time that no log tells" if t is None else f"{t:g} ms" for t in (found.with_ms, found.without_ms)
        )
        print(
            f"  autotune: {placed} with Q/DQ nodes, {plain} without, at batch {found.batch_size} on "
            f"{found.card.name} by {found.version or 'a TensorRT of unknown version'}; {found.plans} plans timed"
        )
    if measured.calibration_method:
        print(f"  {measured.calibration_method} calibration on {measured.calibration_images} images")


def show_search(search: SensitivitySearch) -> None:
    for step in search.steps:
        seen, kept = step.validation, len(step.kept_fp16)
        graph = f"{kept} node{'s' * (kept > 1)} in FP16" if kept else "plain INT8"
        print(
            f"  validation, {graph}: {seen.loss_points:+.2f} points "
            f"({seen.lost} lost, {seen.gained} gained of {seen.images}): "
            f"{'accepted' if step.accepted else 'too much'}"
        )


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("bundle", type=Path, help="folder that slipway export wrote, or the base of slipway base")
    parser.add_argument("--out", type=Path, required=True, help="the graph folder, for example runs/digits/graphs/int8")
    parser.add_argument("--precision", choices=("int8", "fp8", "fp16"), default="int8", help="precision of the graph")
    parser.add_argument("--autotune", action="store_true", help="INT8 or FP8 only where TensorRT is faster on this GPU")
    return parser
