"""Quantise a bundle's graph: INT8 from the bundle's own calibration sample, or FP16, with ModelOpt."""

import argparse
import json
from pathlib import Path
from typing import Any

from slipway.contract import Bundle
from slipway.system.json_line import add_json, print_json
from slipway.system.text import command

EPILOG = """example:
  slipway quantize runs/digits/bundle --out runs/digits/graphs/int8
  slipway quantize runs/digits/bundle --out runs/digits/graphs/fp16 --precision fp16

The calibration images pass through the preprocessing of serving. The spec sets their number (calibration.images), the
bundle holds them, and their hashes are part of its id; with fewer there is no INT8.

If INT8 loses too much on the validation split, a search keeps layers in FP16, the most sensitive first, for as many
steps as the spec allows (sensitive_layers.max_steps). search.json has every step. The test split is not used. Run this
where training ran, since it reads the validation images."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.engines import quantize  # not at the top: --help needs no library

    bundle = Bundle.open(arguments.bundle)
    measured = quantize(bundle, arguments.out, precision=arguments.precision).measured
    show_layers(arguments.out, measured)
    if arguments.precision == "int8":
        show_search(json.loads((arguments.out / "search.json").read_text(encoding="utf-8")))
    engines = arguments.bundle.parent / "engines"
    line = command("slipway compile", arguments.bundle, "--graphs", arguments.out.parent, "--out", engines)
    print(f"  next: {line}")
    print_json(arguments, {"graph": str(arguments.out), **measured})


def show_layers(out: Path, measured: dict[str, Any]) -> None:
    counts = {name: measured[f"{name}_layers"] for name in ("int8", "fp16")}
    counts["fp32"] = measured["layers"] - sum(counts.values())
    shares = [
        f"{count} in {name.upper()} ({count / measured['layers']:.0%})" for name, count in counts.items() if count
    ]
    print(
        f"{out}: {measured['layers']} convolutions and matrix products, {', '.join(shares)}; opset {measured['opset']}"
    )
    for layer, reason in measured.get("not_quantised", {}).items():
        print(f"  not INT8: {layer}: {reason}")
    if kept := measured["nodes_kept_fp32"]:
        print(f"  kept in FP32: {', '.join(kept)}")
    if "calibration_method" in measured:
        print(f"  {measured['calibration_method']} calibration on {measured['calibration_images']} images")


def show_search(search: dict[str, Any]) -> None:
    for step in search["steps"]:
        seen, kept = step["validation"], len(step["kept_fp16"])
        graph = f"{kept} node{'s' * (kept > 1)} in FP16" if kept else "plain INT8"
        print(
            f"  validation, {graph}: {seen['loss_points']:+.2f} points "
            f"({seen['lost']} lost, {seen['gained']} gained of {seen['images']}): "
            f"{'accepted' if step['accepted'] else 'too much'}"
        )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder that slipway export wrote")
    parser.add_argument("--out", type=Path, required=True, help="the graph folder, for example runs/digits/graphs/int8")
    parser.add_argument("--precision", choices=("int8", "fp16"), default="int8", help="default: int8")
    add_json(parser)
    return parser
