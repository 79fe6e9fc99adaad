#!/usr/bin/env python3
"""Measure the cost of photographs of 12 million pixels beside small images, and the time of one alone."""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.studies.effort import add_effort, effort_of
from benchmarks.studies.study import finish, study_parser

if TYPE_CHECKING:
    from benchmarks.studies.efficiency.sides import Side
    from benchmarks.studies.photographs.result import Alone, PhotographsResult
    from slipway.contract.evidence.origin import Origin
    from slipway.repository import Classifier

BACKBONE = "mobilenetv3_large_100"
SMALL, MIXED, SHRUNK = "small", "mixed", "mixed, shrunk"
IMAGES, EVERY, PHOTOGRAPHS = 120, 10, 6
SHRINK_PX = 512
TARGET = 0.6
LIBRARIES = (
    "hdrhistogram",
    "cykooz-resizer",
    "nvidia-nvimgcodec-cu13",
    "nvidia-pytriton",
    "openvino",
    "simplejpeg",
    "tritonclient",
)
EPILOG = """example:
  python -m benchmarks.studies.photographs --out benchmarks/results/photographs.json    7 minutes on two idle cores

Targets: with 10 % photographs P99 stays within 50 ms at 0.6 of the rate of small images or more; a photograph alone
takes under 50 ms at P99 on one core."""


def main(arguments: argparse.Namespace) -> None:
    from benchmarks.studies.efficiency.classifier import open_classifier, random_classifier
    from slipway.contract.evidence.origin import Origin
    from slipway.engines.child import run_in_child

    origin = Origin.here(LIBRARIES)
    with tempfile.TemporaryDirectory(prefix="slipway-photographs-") as folder:
        work = Path(folder)
        print(f"{BACKBONE}: network and INT8; about a minute", flush=True)
        made = work / "classifier"
        run_in_child(random_classifier, what=BACKBONE, backbone=BACKBONE, folder=made, images=IMAGES)
        sent = traffic([path.read_bytes() for path in sorted((made / "images").glob("*"))], seed=arguments.seed)
        result = measure(open_classifier(made), sent, arguments, work, origin=origin)
    print("\n".join(summary(result)), flush=True)
    finish(result, arguments)


def traffic(small: Sequence[bytes], *, seed: int) -> dict[str, list[bytes]]:
    """Return the images of each kind of traffic; every tenth may be a photograph."""
    from benchmarks.studies.resize.photographs import jpeg, pictures
    from slipway.client.shrink import shrunk

    photographs = [jpeg(shown) for shown, _ in zip(pictures((4000, 3000), seed=seed), range(PHOTOGRAPHS), strict=False)]
    smaller = [shrunk(photograph, least_px=SHRINK_PX) for photograph in photographs]

    def mixed(given: Sequence[bytes]) -> list[bytes]:
        return [given[row // EVERY % len(given)] if row % EVERY == 0 else image for row, image in enumerate(small)]

    return {SMALL: list(small), MIXED: mixed(photographs), SHRUNK: mixed(smaller)}


def measure(
    classifier: "Classifier",
    sent: dict[str, list[bytes]],
    arguments: argparse.Namespace,
    work: Path,
    *,
    origin: "Origin",
) -> "PhotographsResult":
    from benchmarks.studies.climbing import Bench, share
    from benchmarks.studies.photographs.result import PhotographsResult
    from slipway.benchmark.tuning import NONE, rung_at
    from slipway.contract import GateError
    from slipway.contract.evidence.latency import rate_at

    effort = effort_of(arguments)
    cores = sorted(os.sched_getaffinity(0))
    bench = Bench(IMAGES, effort)
    with running(classifier, sent, work / "all", cores=len(cores)) as (sides, serving):
        start = rung_at(effort.start_per_s)
        rungs = bench.rounds({kind: side.connect for kind, side in sides.items()}, dict.fromkeys(sides, start))
        if none := [kind for kind, of_kind in rungs.items() if NONE in of_kind]:
            lowest = f"{rate_at(0):g} requests/s"
            raise GateError(f"{', '.join(none)}: P99 over {effort.limit_ms:g} ms at {lowest} too; end what else runs")
        tails = bench.tails({SMALL: sides[SMALL].connect}, rungs)
    with running(classifier, sent, work / "one", cores=1, kept_to=cores[0]) as (sides, _):
        alone = {kind: asyncio.run(one_by_one(sides[kind], arguments.alone)) for kind in (MIXED, SHRUNK)}
    return PhotographsResult(
        **origin.fields(),
        **vars(effort),
        client_shares_the_cores=True,
        backbone=BACKBONE,
        serving=serving,
        photograph_bytes={kind: sum(map(len, sent[kind][::EVERY])) / (IMAGES // EVERY) for kind in sent},
        capacity_per_s={kind: tuple(map(rate_at, of_kind)) for kind, of_kind in rungs.items()},
        share_of_small={kind: share(rungs, kind, of=SMALL) for kind in (MIXED, SHRUNK)},
        target=TARGET,
        alone=alone,
        tail=tails,
        blocks=tuple(bench.blocks),
    )


@contextmanager
def running(
    classifier: "Classifier", sent: dict[str, list[bytes]], folder: Path, *, cores: int, kept_to: int | None = None
) -> "Iterator[tuple[dict[str, Side], str]]":
    """Start one server, to be asked with each kind of traffic; `kept_to` is the core on which all of it runs."""
    from benchmarks.studies.efficiency.sides import Side, serve_alone
    from slipway.contract.serving import CpuServing, settle

    serving = settle(classifier.serving, cores=cores, classifiers=1)
    everywhere = os.sched_getaffinity(0)
    with ExitStack() as stack:
        try:
            if kept_to is not None:
                os.sched_setaffinity(0, {kept_to})
            first = serve_alone(stack, replace(classifier, settings=serving), sent[SMALL], folder)
        finally:
            os.sched_setaffinity(0, everywhere)
        sides = {kind: Side(_asking(first, images), first.pid) for kind, images in sent.items()}
        yield sides, str(CpuServing.of(serving))


def _asking(side: "Side", images: list[bytes]) -> Any:
    from functools import partial

    assert isinstance(side.connect, partial)
    return partial(side.connect.func, *side.connect.args, **{**side.connect.keywords, "images": images})


async def one_by_one(side: "Side", requests: int) -> "Alone":
    """Send only the photographs, one after the other."""
    import numpy as np

    from benchmarks.studies.climbing import SETTLE_S
    from benchmarks.studies.photographs.result import Alone
    from slipway.contract import GateError

    taken_ms = []
    async with side.connect() as connection:
        for number in range(-10, requests):
            started_s = time.perf_counter()
            problem = await connection.ask(number % (IMAGES // EVERY) * EVERY, deadline_s=SETTLE_S)
            if problem:
                raise GateError(f"a photograph was not answered: {problem}")
            if number >= 0:
                taken_ms.append(1000 * (time.perf_counter() - started_s))
    p50, p99, most = np.percentile(taken_ms, [50, 99, 100]).tolist()
    return Alone(requests=requests, p50_ms=p50, p99_ms=p99, most_ms=most)


def summary(result: "PhotographsResult") -> Iterator[str]:
    from benchmarks.studies.climbing import tail_line

    yield f"{result.backbone}, {result.serving}: P99 within {result.limit_ms:g} ms is held up to"
    for kind, rates in result.capacity_per_s.items():
        line = f"  {kind:14} {min(rates):4.0f} to {max(rates):.0f} requests/s"
        if share := result.share_of_small.get(kind):
            target = f"; target {result.target:.2f}" if kind == MIXED else ""
            line += f": {share.mean:.2f} of small images alone ({share.least:.2f} to {share.most:.2f}{target})"
        yield line
    for kind, tail in result.tail.items():
        yield f"  {kind:14} {tail_line(tail, result.machine.cores)}"
    for kind, found in result.alone.items():
        size = result.photograph_bytes[kind] / 1e6
        yield (
            f"a photograph alone on one core ({kind}, {size:.2f} MB): P50 {found.p50_ms:.1f}, P99 {found.p99_ms:.1f}, "
            f"max {found.most_ms:.1f} ms of {found.requests}"
        )


def parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, epilog=EPILOG, keys=("share_of_small",))
    add = parser.add_argument
    add_effort(parser, rounds=6, search_rounds=1)
    add("--alone", type=int, default=500, metavar="N", help="photographs sent one after the other")
    return parser


if __name__ == "__main__":
    from slipway.system.process import run

    run(main, parser())
