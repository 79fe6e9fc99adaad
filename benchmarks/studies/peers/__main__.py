#!/usr/bin/env python3
"""Measure Slipway against the ways in which others serve the same classifier: capacity within P99, and latency."""

import argparse
import asyncio
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.studies.study import finish, study_parser

if TYPE_CHECKING:
    from benchmarks.studies.climbing import Bench
    from benchmarks.studies.peers.result import FullLightLoad, FullPeersResult
    from benchmarks.studies.peers.stacks import Setting, Side
    from slipway.contract.evidence.origin import Origin
    from slipway.contract.evidence.studies import Share, Times
    from slipway.repository import Classifier


BACKBONE, IMAGES, BATCHES = "mobilenetv3_large_100", 256, (1, 2)
US = "slipway_fused"
WORKERS = 2
CHECKED_IMAGES, SAME_SCORE = 32, 1e-5
LIGHT_PER_S = 20.0
LIBRARIES = ("cykooz-resizer", "hdrhistogram", "nvidia-nvimgcodec-cu13", "nvidia-pytriton", "openvino", "tritonclient")
EPILOG = """examples:
  python -m benchmarks.studies.peers --out benchmarks/results/peers.json      50 minutes on two cores
  python -m benchmarks.studies.peers --peers fastapi litserve --quick            two of them, fewer and shorter rounds

Every stack has the same cores, workers, images and, but for `tutorial`, the same work: our step files, OpenVINO
on the INT8 graph; 32 answers must be those that Triton gives. Each `<peer>_skilled` is the same server around what a
skilled team writes: OpenCV and OpenVINO, no guard. `tutorial` has PIL and ONNX Runtime on the FP32 network.
`slipway_default` is what `layout: auto` chooses, without a search.

`pool` is not a server: two worker processes that have the images already, which is what the work alone allows.

1. Each stack searches its best batch (--batches, of waiting images), with each worker kept to a core of its own and
   without: the same budget for each, ours too.
2. In every round each climbs the same grid of rates in turns on the same arrivals, as the efficiency study does: its
   capacity is the highest rate with P99 within the limit. Reported is the ratio, round by round.
3. In every round each is asked 20 images/s on the same arrivals: P50 and P99 of a light load.

A stack that is not measured is frozen (SIGSTOP). The client shares the cores and goes first. Each peer has an
environment of its own below .venv/peers, from requirements/<peer>.lock: the first run installs them, some minutes."""


def main(arguments: argparse.Namespace) -> None:
    from benchmarks.studies.climbing import Bench
    from benchmarks.studies.efficiency.classifier import open_classifier, random_classifier
    from benchmarks.studies.effort import effort_of
    from slipway.benchmark.gate import load_images
    from slipway.contract import SpecError
    from slipway.contract.evidence.origin import Origin
    from slipway.engines.child import run_in_child

    effort = effort_of(arguments)
    if effort.rounds < 2:
        raise SpecError(f"--rounds {effort.rounds}: one round shows no spread; give 2 or more")
    bench, origin = Bench(IMAGES, effort), Origin.here(LIBRARIES)
    with tempfile.TemporaryDirectory(prefix="slipway-peers-") as temporary:
        folder = Path(temporary)
        print(f"{BACKBONE}: network, INT8 and images; about a minute", flush=True)
        made = run_in_child(
            random_classifier, what=BACKBONE, backbone=BACKBONE, folder=folder / BACKBONE, images=IMAGES
        )
        stacks = Stacks(open_classifier(made), load_images(made / "images", seed=effort.seed), folder)
        result = compared(stacks, bench, arguments.peers, batches=arguments.batches, origin=origin)
    print("\n".join(summary(result)))
    finish(result, arguments)


class Stacks:
    """Starts each stack with the classifier, in a folder of its own."""

    def __init__(self, classifier: "Classifier", images: Sequence[bytes], folder: Path) -> None:
        self.images, self.labels = images, classifier.bundle.labels
        self._classifier, self._folder, self._started = classifier, folder, 0
        files = self._files = folder / "files"
        files.mkdir()
        bundle, engine = classifier.bundle.path, classifier.engine.path
        for source in (engine / "model.onnx", engine / "decision.json", bundle / "preprocess.json"):
            shutil.copy(source, files)
        shutil.copy(bundle / "labels.txt", files)
        shutil.copy(bundle / "model.onnx", files / "fp32.onnx")
        (files / "arithmetic.txt").write_text(classifier.engine.settings.arithmetic)

    def settings_of(self, name: str, batches: Sequence[int]) -> "list[Setting]":
        from benchmarks.studies.peers.stacks import settings_of

        return settings_of(name, self._classifier, batches=batches, workers=WORKERS)

    def start(self, name: str, setting: "Setting") -> "AbstractContextManager[Side]":
        from benchmarks.studies.peers.stacks import OURS, POOL, ours, peer, pool

        self._started += 1
        work = self._folder / f"{name}-{self._started}"
        if name == POOL:
            return pool(self._classifier, self.images, setting, workers=WORKERS)
        if name in OURS:
            return ours(name, self._classifier, self.images, setting, workers=WORKERS, work=work)
        return peer(name, self.images, self._files, setting, workers=WORKERS, log=work.with_suffix(".log"))


def compared(
    stacks: Stacks, bench: "Bench", peers: Sequence[str], *, batches: Sequence[int], origin: "Origin"
) -> "FullPeersResult":
    """Measure the capacity and latency of each stack, and ours relative to them; a missing stack has its reason."""
    from benchmarks.studies.peers.environments import versions_of
    from benchmarks.studies.peers.result import FullPeersResult
    from benchmarks.studies.peers.stacks import OURS, PEERS, POOL
    from slipway.contract.evidence.latency import rate_at

    best: dict[str, Setting] = {}
    starts: dict[str, int] = {}
    failed: dict[str, str] = {}
    for name in (*OURS, POOL, *peers):
        try:
            best[name], starts[name] = best_setting(stacks, bench, name, batches)
        except Exception as error:  # a peer that does not run must not stop the others
            if name in OURS:
                raise
            failed[name] = f"{type(error).__name__}: {error}"
            print(f"{name} is left out: {failed[name]}", flush=True)
    with ExitStack() as stack:
        sides = {name: stack.enter_context(stacks.start(name, setting)) for name, setting in best.items()}
        for side in sides.values():
            side.freeze()
        agreement = asyncio.run(same_answers(sides, stacks.labels))
        connects = {name: side.connect for name, side in sides.items()}
        light = light_load(bench, sides)
        rungs = bench.rounds(connects, starts)
    return FullPeersResult(
        **origin.fields(),
        **vars(bench.effort),
        backbone=BACKBONE,
        client_shares_the_cores=True,
        distinct_images=IMAGES,
        environments={name: versions_of(name) for name in sorted({PEERS[peer].environment for peer in peers})},
        batches_tried=tuple(batches),
        settings={name: str(setting) for name, setting in best.items()},
        left_out=failed,
        same_answers=agreement,
        capacity_per_s={name: tuple(map(rate_at, rows)) for name, rows in rungs.items()},
        times_the_capacity={name: times(rungs[US], rungs[name]) for name in rungs if name != US},
        light_load=light,
        blocks=tuple(bench.blocks),
    )


def best_setting(stacks: Stacks, bench: "Bench", name: str, batches: Sequence[int]) -> "tuple[Setting, int]":
    """Find the batch, and pinned or not, with which the stack holds the highest rate, and the rung to begin with."""
    from slipway.contract.evidence.latency import rate_at

    settings = {f"{name}, {setting}": setting for setting in stacks.settings_of(name, batches)}
    with ExitStack() as stack:
        sides = {key: stack.enter_context(stacks.start(name, setting)) for key, setting in settings.items()}
        for side in sides.values():
            side.freeze()
        chosen, rung = bench.best({key: side.connect for key, side in sides.items()})
    print(f"{chosen}: about {rate_at(rung):.0f}/s", flush=True)
    return settings[chosen], rung


async def same_answers(sides: "dict[str, Side]", labels: Sequence[str]) -> dict[str, float]:
    """Return the share of 32 images that each stack answers as Triton does.

    Raises:
        GateError: a stack that is said to do the same work answers otherwise.
    """
    from benchmarks.studies.climbing import SETTLE_S
    from benchmarks.studies.peers.stacks import PEERS
    from slipway.benchmark import pool
    from slipway.contract import GateError

    found: dict[str, list[tuple[str, float]]] = {name: [] for name in sides}
    for name, side in sides.items():
        async with side.connect() as connection:
            for image in range(CHECKED_IMAGES):
                answer = await connection.answer(image, deadline_s=SETTLE_S)
                if isinstance(answer, str):
                    raise GateError(f"{name}, image {image}: {answer}")
                label = labels[answer.class_id] if isinstance(answer, pool.WorkerAnswer) else answer.label.decode()
                found[name].append((label, answer.score))
    shares = {}
    for name, answers in found.items():
        pairs = zip(answers, found[US], strict=True)
        same = [one[0] == other[0] and abs(one[1] - other[1]) < SAME_SCORE for one, other in pairs]
        shares[name] = sum(same) / len(same)
        if shares[name] < 1 and (name not in PEERS or PEERS[name].same_work):
            raise GateError(f"{name} answers {len(same) - sum(same)} of {len(same)} images unlike Triton")
    return shares


def light_load(bench: "Bench", sides: "dict[str, Side]") -> "FullLightLoad":
    """Measure P50 and P99 of each stack at 20 images/s, and as a multiple of ours, round by round."""
    import numpy as np
    from tqdm import tqdm

    from benchmarks.studies.climbing import offered
    from benchmarks.studies.peers.result import FullLightLoad
    from slipway.benchmark.load import poisson_schedule

    requests = bench.effort.requests // 2
    seen: dict[str, dict[str, list[float]]] = {name: {"p50_ms": [], "p99_ms": []} for name in sides}
    for number in tqdm(range(bench.effort.rounds), desc="light load", leave=False, disable=None):
        for name, side in sides.items():
            rng = np.random.default_rng([bench.effort.seed, number])
            schedule_s = poisson_schedule(requests + 20, rate_per_s=LIGHT_PER_S, rng=rng)
            order = rng.integers(bench.images, size=schedule_s.size).tolist()
            block, _ = offered(side.connect, schedule_s, order, warm_up=20)
            for key, share in (("p50_ms", 0.5), ("p99_ms", 0.99)):
                seen[name][key].append(float(np.quantile(block.latencies_ms, share)))
    ratios = {
        name: {key: spread(np.divide(rows[key], seen[US][key]).tolist()) for key in rows} for name, rows in seen.items()
    }
    rounds = {name: {key: tuple(rows) for key, rows in of_side.items()} for name, of_side in seen.items()}
    return FullLightLoad(rate_per_s=LIGHT_PER_S, requests=requests, rounds=rounds, over_slipway_fused=ratios)


def spread(ratios: Sequence[float]) -> "Share":
    """Return the geometric mean, least and most."""
    from slipway.contract.evidence.studies import Share

    mean = math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
    return Share(mean=mean, least=min(ratios), most=max(ratios))


def times(ours: Sequence[int], theirs: Sequence[int]) -> "Times":
    """Return our capacity over theirs, in the same rounds; `low` and `high` are two standard errors of the mean
    away. There are two rounds or more: one shows no error."""
    from slipway.benchmark.tuning import ratio
    from slipway.contract.evidence.latency import STEP
    from slipway.contract.evidence.studies import Times

    found = ratio(ours, to=theirs)
    assert found.standard_error is not None, "main has refused a single round"
    error = STEP ** (2 * found.standard_error)
    return Times(**found.fields(), low=found.mean / error, high=found.mean * error)


def summary(result: "FullPeersResult") -> Iterator[str]:
    yield f"\ncapacity, P99 within {result.limit_ms:g} ms; and at {LIGHT_PER_S:g}/s, times the latency of {US}"
    for name, rates in sorted(result.capacity_per_s.items(), key=lambda item: -sum(item[1])):
        light = result.light_load.over_slipway_fused[name]
        line = f"  {name:16} {min(rates):4.0f} to {max(rates):3.0f}/s, {result.settings[name]}; "
        line += f"P50 {light['p50_ms'].mean:.2f}, P99 {light['p99_ms'].mean:.2f}"
        if share := result.times_the_capacity.get(name):
            line += f"; {US} holds {share.mean:.2f} times its rate ({share.low:.2f} to {share.high:.2f})"
        yield line
    yield from (f"  {name:16} was left out: {reason}" for name, reason in result.left_out.items())


def parser() -> argparse.ArgumentParser:
    from benchmarks.studies.effort import add_effort
    from benchmarks.studies.peers.stacks import PEERS

    parser = study_parser(__doc__, epilog=EPILOG, keys=("times_the_capacity",))
    add = parser.add_argument
    add(
        "--peers",
        nargs="+",
        choices=PEERS,
        default=tuple(PEERS),
        metavar="NAME",
        help=f"peers to measure, of {', '.join(PEERS)}; default: all",
    )
    add("--batches", type=int, nargs="+", default=BATCHES, metavar="N", help="searched, pinned and not; default: 1 2")
    add_effort(parser, rounds=6, search_rounds=2)
    return parser


if __name__ == "__main__":
    from slipway.system.process import run

    run(main, parser())
