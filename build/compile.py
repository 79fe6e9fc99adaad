#!/usr/bin/env python3
"""Compile a bundle's graphs to engines, evaluate each on the whole test split, and gate it against FP32."""

import argparse
import json
from pathlib import Path

from slipway.contract import Bundle, GateError, Manifest, ManifestError
from slipway.contract.cli import run

EPILOG = """example:
  build/compile.py runs/digits/bundle --graphs runs/digits/graphs --out runs/digits/engines

FP32 is always built: it is what the others are compared with, image by image. The verdict is pass, fail, or too few
images to tell; only pass exits with 0. An engine that did not pass is written for inspection and never assembled."""
FLIPS_SHOWN = 20


def main(arguments: argparse.Namespace) -> None:
    from slipway.engines import PASS, build_engine  # not at the top: --help needs no library

    bundle = Bundle.open(arguments.bundle)
    reference, _ = build_engine(
        bundle, bundle.path / "model.onnx", arguments.out / "openvino-fp32", precision="fp32", reference=None
    )
    print(f"{reference.path}: top-1 {reference.manifest.measured['top1']:.2%} (the reference)")
    gates = {}
    for precision in bundle.spec.precisions:
        if precision == "fp32":
            continue
        graph = open_graph(arguments.graphs / precision, bundle)
        engine, gate = build_engine(
            bundle, graph, arguments.out / f"openvino-{precision}", precision=precision, reference=reference
        )
        assert gate is not None
        gates[precision] = gate
        print(f"{engine.path}: top-1 {engine.manifest.measured['top1']:.2%}\n  gate: {gate}")
        for flip in json.loads((engine.path / "evaluation.json").read_text())["flips"][:FLIPS_SHOWN]:
            print(f"  flipped: {flip['image']} (truth {flip['truth']}): {flip['fp32']} → {flip[precision]}")
    if arguments.json:
        print(json.dumps({name: vars(gate) for name, gate in gates.items()}))
    failed = {name: gate.verdict for name, gate in gates.items() if gate.verdict != PASS}
    if failed:
        raise GateError(
            f"accuracy gate: {failed}; train or calibrate better, test on more images, or raise the spec's "
            "accuracy.max_loss_points"
        )
    served = arguments.out / f"openvino-{bundle.spec.precisions[0]}"
    print(f"  next: build/assemble.py {arguments.bundle} --engine {served} --out model_repository/cpu")


def open_graph(folder: Path, bundle: Bundle) -> Path:
    """The ONNX file of a graph folder of this bundle."""
    manifest = Manifest.open(folder, kind="graph")
    if manifest.bundle != bundle.id:
        raise ManifestError(f"{folder}: quantised from bundle {manifest.bundle}, not {bundle.id}; quantise again")
    return folder / "model.onnx"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder that training/export.py wrote")
    parser.add_argument("--graphs", type=Path, required=True, help="of graph folders, for example runs/digits/graphs")
    parser.add_argument("--out", type=Path, required=True, help="of engine folders, for example runs/digits/engines")
    parser.add_argument("--json", action="store_true", help="one JSON line last")
    return parser


if __name__ == "__main__":
    run(main, parser())
