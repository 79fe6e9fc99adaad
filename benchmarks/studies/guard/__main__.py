#!/usr/bin/env python3
"""Measure the cost of the guard for each image, and the damaged images that it passes and the decoder refuses.

The study encodes photographs in every accepted format, and damages them by a seeded draw (tests/support/mutations.py).
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from math import sqrt
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.studies.guard.result import Cost, Damaged, Escapes, Groups, GuardResult, Options
from benchmarks.studies.study import RESULTS, finish, load_photographs, provenance, scikit_image, study_parser
from slipway.system.process import run

RESULT = RESULTS / "guard.json"
LIBRARIES = ("nvidia-dali-cuda130", "nvidia-nvimgcodec-cu13", "pillow")
TIMED_FILES, TIMED_SIDES, ROUNDS = 315, (64, 1024), 20
JPEG_BYTES = 68_000
GOOD_FILES, SIDES = 2250, (64, 384)
INPUT = {"input_height": 64, "input_width": 64, "mean": (0, 0, 0), "std": (1, 1, 1)}
EPILOG = """example:
  python -m benchmarks.studies.guard                             (make study-guard; two minutes)
  python -m benchmarks.studies.guard --photographs my/photos --files 1000 --out /tmp/guard.json
  python -m benchmarks.studies.guard --good files/of/other/encoders

exit status: 0; 1 where a good file of ours is refused"""


def main(arguments: argparse.Namespace) -> int:
    from tests.support.mutations import good_files  # not at the top: --help needs no library

    origin = provenance(LIBRARIES)
    photographs = load_photographs(arguments.photographs or scikit_image())
    pictures, seed = list(photographs.values()), arguments.seed
    decoder = Decoder()
    files = good_files(pictures, GOOD_FILES, seed=seed, sides=SIDES)
    result = GuardResult(
        options=Options(files=arguments.files, seed=seed, photographs=tuple(sorted(photographs))),
        microseconds=speed(pictures, seed=seed),
        good=taken((file.data for file in files), decoder, what="good files"),
        good_of_other_encoders=taken(below(arguments.good), decoder, what="other encoders"),
        damaged=damage(files, decoder, count=arguments.files, seed=seed),
        **origin,
    )
    print(summary(result))
    finish(result, arguments)
    return 0 if result.good.get("ok") == GOOD_FILES else 1


class Decoder:
    """The whole preprocessing step on the CPU, one image at a time."""

    def __init__(self) -> None:
        from slipway.contract import Preprocess
        from slipway.steps.preprocess import Preprocessor

        config = Preprocess.parse(INPUT, source="this script").model_dump()
        self.preprocessor = Preprocessor(config, max_batch_size=1, threads=1)

    def takes(self, image: bytes) -> bool:
        return not self.preprocessor.run([image])[1][0]


def speed(pictures: Sequence[Any], *, seed: int) -> dict[str, Cost]:
    """Measure the median and P99 of single calls: of all files, of each format, and of 512-pixel JPEGs of a set
    size."""
    from tests.support.mutations import FORMATS, good_files

    files = good_files(pictures, TIMED_FILES, seed=seed, sides=TIMED_SIDES)
    named = {"all": [file.data for file in files]}
    named |= {name: [file.data for file in files if file.format == name] for name in FORMATS}
    named["JPEG of 512x512"] = [jpeg_of_size(picture, seed=seed) for picture in pictures]
    return {name: timed(images) for name, images in named.items()}


def timed(images: Sequence[bytes]) -> Cost:
    """Time calls by the processor time of this thread, so that other work on the machine counts little."""
    from slipway.steps.guard import inspect

    took_us = []
    for _ in range(ROUNDS):
        for image in images:
            started_ns = time.thread_time_ns()
            inspect(image)
            took_us.append((time.thread_time_ns() - started_ns) / 1000)
    percentiles = quantiles(took_us, n=100)
    return Cost(
        files=len(images),
        median_bytes=median(map(len, images)),
        median_us=round(percentiles[49], 1),
        p99_us=round(percentiles[98], 1),
    )


def jpeg_of_size(picture: Any, *, seed: int) -> bytes:
    """Encode 512x512 pixels at the quality that comes nearest to 68 kB, with noise if the picture is too smooth for
    that."""
    import numpy as np
    from PIL import Image

    from tests.support.image_files import encode

    rng = np.random.default_rng(seed)
    pixels = np.asarray(picture.resize((512, 512)), np.int16) + rng.integers(-8, 9, (512, 512, 3), np.int16)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    files = (encode(image, "JPEG", quality=quality) for quality in range(30, 98, 2))
    return min(files, key=lambda data: abs(len(data) - JPEG_BYTES))


def below(folder: Path | None) -> Iterable[bytes]:
    paths = sorted(folder.rglob("*")) if folder else ()
    return (path.read_bytes() for path in paths if path.is_file())


def taken(images: Iterable[bytes], decoder: Decoder, *, what: str) -> dict[str, int]:
    """Count the guard's statuses of good files, and the decoder's verdicts on those that it passes."""
    from tqdm import tqdm

    from slipway.steps.guard import OK, STATUS_NAMES, inspect

    found: Counter[str] = Counter()
    for image in tqdm(images, desc=what, unit=" files", mininterval=0.5, disable=None):
        status = inspect(image)
        found["refused by the decoder" if status == OK and not decoder.takes(image) else STATUS_NAMES[status]] += 1
    return {"files": found.total(), **found}


def damage(files: Sequence[Any], decoder: Decoder, *, count: int, seed: int) -> Damaged:
    """Count the damaged files that pass the guard and fail in the decoder, by format and by kind of damage."""
    from tqdm import tqdm

    from slipway.steps.guard import OK, inspect
    from tests.support.mutations import EDITS, FORMATS, KINDS, damaged

    found: Counter[tuple[str, str, str]] = Counter()
    stream = damaged(files, count, seed=seed)
    for file, kind, data in tqdm(stream, desc="damaged", total=count, unit=" files", mininterval=0.5, disable=None):
        outcome = "refused" if inspect(data) != OK else "decoded" if decoder.takes(data) else "escaped"
        found[file.format, kind, outcome] += 1

    def rate(formats: Iterable[str], kinds: Iterable[str]) -> Escapes:
        outcomes = ("refused", "decoded", "escaped")
        refused, decoded, escaped = (sum(found[f, k, outcome] for f in formats for k in kinds) for outcome in outcomes)
        share, low, high = wilson(escaped, refused + decoded + escaped)
        return Escapes(refused=refused, decoded=decoded, escaped=escaped, share=share, low=low, high=high)

    def groups(formats: Iterable[str]) -> Groups:
        accidents = [kind for kind in KINDS if kind not in EDITS]
        return {name: rate(formats, kinds) for name, kinds in (("accidents", accidents), ("edits", [*EDITS]))}

    return Damaged(
        by_kind={kind: {f: rate([f], [kind]) for f in FORMATS} for kind in KINDS},
        **{"all": groups(FORMATS), **{f: groups([f]) for f in FORMATS}},
    )


def wilson(hits: int, trials: int, *, z: float = 1.96) -> tuple[float, float, float]:
    """Return a share and its 95 % interval. Source: E. B. Wilson, JASA 22 (1927)."""
    if not trials:
        return 0.0, 0.0, 1.0
    share = hits / trials
    centre, spread = share + z * z / (2 * trials), z * sqrt(share * (1 - share) / trials + (z / trials) ** 2 / 4)
    low, high = ((centre + side * spread) / (1 + z * z / trials) for side in (-1, 1))
    return round(share, 5), round(max(low, 0.0), 5), round(high, 5)


def summary(result: GuardResult) -> str:
    lines = [f"{name:16} {t.median_us:7} µs, P99 {t.p99_us} µs" for name, t in result.microseconds.items()]
    lines += [f"good: {result.good}, of other encoders: {result.good_of_other_encoders}"]
    lines += ["passed the guard and failed in the decoder, by accident and by edit (95 %):"]
    for name, groups in result.damaged.groups.items():
        shares = (f"{g.share:.2%} ({g.low:.2%} to {g.high:.2%})" for g in groups.values())
        lines.append(f"{name:16} {'   '.join(shares)}")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, epilog=EPILOG, keys=("good_of_other_encoders",), result=RESULT)
    add = parser.add_argument
    add(
        "--photographs",
        type=Path,
        metavar="FOLDER",
        help="folder of pictures to damage; default: the pictures of scikit-image",
    )
    add("--good", type=Path, metavar="FOLDER", help="files of other encoders, which should all be let through")
    add("--files", type=int, default=36_000, metavar="N", help="damaged ones")
    add("--seed", type=int, default=0, help="seed of the files and of the damage")
    return parser


if __name__ == "__main__":
    run(main, parser())
