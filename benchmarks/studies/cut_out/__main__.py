#!/usr/bin/env python3
"""Measure the preprocess step with JPEGs decoded in part, over decoding all of each, and compare the pixels."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from benchmarks.studies.study import RESULTS, finish, provenance, study_parser
from slipway.contract.evidence.studies import Part, StudyResult
from slipway.system.process import run

if TYPE_CHECKING:
    from slipway.steps.preprocess import Preprocessor

SIZES_WH = ((512, 512), (512, 384), (640, 480), (480, 640), (800, 600), (850, 480))
CROP_FRACTIONS = (0.875, 1.0)
SIDE_PX = 224
LIBRARIES = ("cykooz-resizer", "nvidia-nvimgcodec-cu13", "pillow", "simplejpeg")
EPILOG = "A line for each shape: the median ratio of processor time over the rounds, its 10th and 90th percentile."


class Shape(Part):
    """JPEGs of one size, cut out by one share."""

    size_wh: tuple[int, int]
    crop_fraction: float
    whole_ms: float
    """Processor time of an image if all of it is decoded."""
    ratio: float
    """Processor time with a part decoded, relative to that: the median of the rounds."""
    ratio_low: float
    ratio_high: float
    """The 10th and 90th percentile of the rounds."""
    most_grey_levels: int
    """Largest difference of the pixels."""


class CutOutResult(StudyResult):
    rounds: int
    photographs: int
    shapes: tuple[Shape, ...]


def main(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from benchmarks.studies.resize.photographs import jpeg, pictures

    origin, shapes, photographs = provenance(LIBRARIES), [], 0
    for size_wh in tqdm(SIZES_WH, unit=" sizes", leave=False, disable=None):
        images = [jpeg(picture) for picture in pictures(size_wh, seed=arguments.seed)]
        photographs = len(images)
        shapes += [shape(images, size_wh, fraction, rounds=arguments.rounds) for fraction in CROP_FRACTIONS]
    result = CutOutResult(
        **origin, seed=arguments.seed, rounds=arguments.rounds, photographs=photographs, shapes=tuple(shapes)
    )
    for one in result.shapes:
        print(
            f"{one.size_wh[0]}x{one.size_wh[1]}, crop_fraction {one.crop_fraction}: {one.whole_ms:.2f} ms, in part "
            f"{one.ratio:.2f} of it ({one.ratio_low:.2f} to {one.ratio_high:.2f}); pixels differ by "
            f"{one.most_grey_levels} grey levels at most"
        )
    finish(result, arguments)


def shape(images: list[bytes], size_wh: tuple[int, int], crop_fraction: float, *, rounds: int) -> Shape:
    import numpy as np

    from benchmarks.studies.resize.timing import interleaved, ratio
    from slipway.contract import Preprocess
    from slipway.steps.preprocess import Preprocessor

    config = Preprocess(input_height=SIDE_PX, input_width=SIDE_PX, crop_fraction=crop_fraction)
    step = Preprocessor(config.model_dump(), max_batch_size=1, threads=1)
    calls = {
        name: [partial(ask, step, image) for image in images] for name, ask in (("part", _in_part), ("whole", _whole))
    }
    times = interleaved(calls, rounds=rounds)
    middle, low, high = ratio(times["part"], times["whole"])
    apart = max(int(np.abs(_pixels(_in_part, step, image) - _pixels(_whole, step, image)).max()) for image in images)
    return Shape(
        size_wh=size_wh,
        crop_fraction=crop_fraction,
        whole_ms=float(np.median(times["whole"])),
        ratio=middle,
        ratio_low=low,
        ratio_high=high,
        most_grey_levels=apart,
    )


def _in_part(step: "Preprocessor", image: bytes) -> Any:
    return step.run([image])


def _whole(step: "Preprocessor", image: bytes) -> Any:
    with patch("slipway.steps.preprocess.MOST_CUT_OUT", 0.0):
        return step.run([image])


def _pixels(ask: Callable[["Preprocessor", bytes], Any], step: "Preprocessor", image: bytes) -> Any:
    return ask(step, image)[0].astype(int)


def parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, epilog=EPILOG, keys=("shapes",), result=RESULTS / "cut_out.json")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="interleaved rounds")
    parser.add_argument("--seed", type=int, default=0, help="seed of the photographs' noise")
    return parser


if __name__ == "__main__":
    run(main, parser())
