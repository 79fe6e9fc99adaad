#!/usr/bin/env python3
"""Measure the cost of resizing by several libraries, their difference to DALI's pixels, and the gain of shrinking."""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.studies.study import finish, provenance, study_parser
from slipway.system.process import run

if TYPE_CHECKING:
    from benchmarks.studies.resize.result import Case, ResizeResult
    from slipway.steps.engine_openvino import Engine

BACKBONE = "mobilenetv3_large_100"
CASES = {
    "JPEG of 512x512": ((512, 512), True),
    "JPEG of 640x480": ((640, 480), True),
    "JPEG of 4000x3000, decoded at a quarter": ((1000, 750), False),
    "PNG of 2000x1500": ((2000, 1500), False),
}
"""Size of the resized images, width and height, and whether JPEGs of it are decoded in full."""
WAYS, SHRINK_ROUNDS = 30, 3
LIBRARIES = ("cykooz-resizer", "nvidia-dali-cuda130", "openvino", "pillow", "simplejpeg", "torch")
OTHERS = ("opencv-python-headless", "pyvips", "pyvips-binary")
"""Libraries that the lock file does not have."""
EPILOG = """examples:
  PYTHONPATH=/tmp/resizers python -m benchmarks.studies.resize --out benchmarks/results/resize.json    4 minutes
  python -m benchmarks.studies.resize --rounds 5 --shrink-rounds 1"""


def main(arguments: argparse.Namespace) -> None:
    from benchmarks.studies.density.weights import lite0
    from benchmarks.studies.efficiency.classifier import random_classifier
    from benchmarks.studies.resize.result import ResizeResult
    from slipway.engines.child import run_in_child
    from slipway.steps.engine_openvino import Engine

    origin = provenance(LIBRARIES)
    with tempfile.TemporaryDirectory(prefix="slipway-resize-") as folder:
        work = Path(folder)
        print(f"{BACKBONE}: network and INT8; about a minute", flush=True)
        made = run_in_child(random_classifier, what=BACKBONE, backbone=BACKBONE, folder=work / "classifier", images=1)
        engine = Engine(made / "engine/model.onnx", arithmetic="f32", threads=1)
        cases, left_out = resized(engine, arguments)
        weights = lite0(work)
        from benchmarks.studies.resize.shrinking import shrinking

        shrink = shrinking(weights, rounds=arguments.shrink_rounds, least_px=arguments.shrink_px, seed=arguments.seed)
    result = ResizeResult(
        **origin,
        seed=arguments.seed,
        backbone=BACKBONE,
        rounds=arguments.rounds,
        left_out=left_out,
        cases=cases,
        shrink_px=arguments.shrink_px,
        shrink=shrink,
    )
    print("\n".join(summary(result)), flush=True)
    finish(result, arguments)


def resized(engine: "Engine", arguments: argparse.Namespace) -> "tuple[dict[str, Case], dict[str, str]]":
    """Measure the cases by name; returns them and the libraries that are left out."""
    from benchmarks.studies.resize.timing import case
    from benchmarks.studies.resize.ways import ways
    from slipway.contract import Preprocess

    preprocess = Preprocess(input_height=224, input_width=224, crop_fraction=0.875)
    found, left_out = ways(preprocess)
    cases = {}
    for name, (size_wh, is_jpeg) in CASES.items():
        cases[name] = case(
            found,
            preprocess,
            size_wh,
            engine=engine if is_jpeg else None,
            rounds=arguments.rounds,
            seed=arguments.seed,
        )
        print(f"{name}: done", flush=True)
    return cases, left_out


def summary(result: "ResizeResult") -> Iterator[str]:
    for name, case in result.cases.items():
        whole = "" if case.whole_ms is None else f"; whole image {case.whole_ms:.2f} ms"
        yield f"{name} to {case.resized_hw[1]}x{case.resized_hw[0]}{whole}"
        for key, way in case.ways.items():
            spread = f"{way.to_dali:.2f} of DALI's ({way.to_dali_low:.2f} to {way.to_dali_high:.2f})"
            gain = f", {case.gain[key]:+.1%} of the image" if case.gain and key in case.gain else ""
            apart = f"{way.mean_grey_levels:.2f} grey levels on average, {way.most_grey_levels} at most"
            yield f"  {key:46} {way.ms:6.2f} ms, {spread}{gain}; {apart}"
    for name, found in result.shrink.items():
        sent, took = found.sent_bytes, found.preprocess_ms
        yield (
            f"{name}, 12 million pixels: {sent['whole'] / 1e6:.2f} MB sent, shrunk {sent['shrunk'] / 1e3:.0f} kB in "
            f"{found.client_ms:.0f} ms; preprocess step {took['whole']:.1f} and {took['shrunk']:.1f} ms, "
            f"{found.preprocess_ratio:.2f} ({found.preprocess_ratio_low:.2f} to {found.preprocess_ratio_high:.2f})"
        )
        for side, seen in found.apart.items():
            yield (
                f"  {side} against decoded in full: {seen.mean_grey_levels:.2f} grey levels, {seen.flips} of "
                f"{found.photographs} best classes differ (ahead by {seen.flips_margin:.3f} at most), probability by "
                f"{seen.probability_mean:.3f}, {seen.probability_most:.3f} at most"
            )


def parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, epilog=EPILOG, keys=("cases",))
    add = parser.add_argument
    add("--rounds", type=int, default=WAYS, metavar="N", help="interleaved rounds of the ways to resize")
    add("--shrink-rounds", type=int, default=SHRINK_ROUNDS, metavar="N", help="rounds of shrinking")
    add("--shrink-px", type=int, default=512, metavar="N", help="pixels that the shorter side keeps")
    add("--seed", type=int, default=0, help="seed of the noise")
    return parser


if __name__ == "__main__":
    run(main, parser())
