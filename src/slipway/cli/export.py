"""Export a checkpoint to a bundle: ONNX graph, preprocessing, labels, decision, calibration sample, evaluation."""

import argparse
from pathlib import Path

from slipway.contract import Spec
from slipway.contract.evidence.build import BundleMeasured
from slipway.system.json_line import print_json, verb_parser
from slipway.system.targets import check_folder
from slipway.system.text import command

EPILOG = """example:
  slipway export runs/digits/checkpoint --out runs/digits/bundle
  slipway export runs/digits/checkpoint --spec digits.yaml --out runs/digits/bundle

The graph is compared with torch on the whole test split. Exporting the same checkpoint again, even in another clone,
gives the same bundle id. --spec takes changes since the training in fields that do not affect the weights, such as
precisions, accuracy, latency and serving."""


def main(arguments: argparse.Namespace) -> None:
    check_folder(arguments.out, kind="bundle")

    from slipway.training import export  # after the check: it takes seconds

    spec = Spec.read(arguments.spec) if arguments.spec else None
    manifest = export(arguments.checkpoint, arguments.out, spec=spec)
    measured = manifest.read_measured(BundleMeasured)
    low, high = measured.ece_interval
    print(f"{arguments.out}: bundle {str(manifest.bundle)[:12]}")
    print(
        f"  ONNX against torch, {measured.images} test images: same labels, "
        f"max |Δlogit| {measured.max_logit_difference or 0:.2g}"
    )
    print(
        f"  test split, FP32: {measured.primary_metrics}, macro-F1 {measured.macro_f1:.4f}, "
        f"ECE {measured.ece:.4f} ({low:.4f} to {high:.4f}; before calibration {measured.ece_uncalibrated:.4f}"
        + (f", temperature {measured.temperature})" if measured.top1 is not None else ")")
    )
    if unknown := measured.unknown:
        print(f"  unknown by {unknown.score}: {unknown.unknown_rate:.2%} of the test split")
    print(f"  next: {command('slipway evaluate', arguments.out)}, the page of this evaluation")
    graph = arguments.out.parent / "graphs" / "int8"
    print(f"  next: {command('slipway quantize', arguments.out, '--out', graph)}")
    print_json(arguments, {"bundle": str(arguments.out), "id": manifest.bundle, **manifest.measured})


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("checkpoint", type=Path, help="folder that slipway train wrote")
    parser.add_argument("--out", type=Path, required=True, help="the bundle folder, for example runs/digits/bundle")
    parser.add_argument("--spec", type=Path, help="present spec; default: the spec of the training")
    return parser
