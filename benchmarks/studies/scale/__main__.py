#!/usr/bin/env python3
"""Find the rate that each layout would hold on 1 to 64 cores, by a queueing simulation with measured service times."""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.scale.queue import LIMIT_MS, Layout, Times, split
from benchmarks.studies.scale.result import Checked, Held, Measured, ScaleResult
from benchmarks.studies.study import RESULTS, finish, provenance, study_parser
from slipway.contract.evidence.studies import EfficiencyResult
from slipway.contract.serving import MERGED
from slipway.system.process import run

BACKBONE = "mobilenetv3_large_100"
RESULT, EFFICIENCY = RESULTS / "scale.json", RESULTS / "efficiency.json"
CORES = (1, 2, 4, 8, 16, 32, 64)
REQUESTS = 20_000
PHOTOGRAPHS = (0.0, 0.1)
POOL, FUSED, TWO = "pool", "fused", "shared_decode"
ASSUMED = 0.01
BANDWIDTHS = ("as measured on two cores", "1 % slower with each further busy core")
"""Memory bandwidth either grows with the cores, so that all others slow a core as much as one did, or is short."""
EPILOG = """Rates are the highest of a grid, 10 % apart, at which P99 is within 50 ms. `auto` is fused with a process
for each core and batches of up to 2. shared_decode has its cores divided by the steps' work."""


def main(arguments: argparse.Namespace) -> None:
    measured = measure() if arguments.measure else ScaleResult.read(arguments.measured).measured
    origin = provenance(("cykooz-resizer", "nvidia-dali-cuda130", "openvino"))
    rng = np.random.default_rng(arguments.seed)
    overhead, checked = compared(rng)
    result = ScaleResult(
        **origin,
        seed=arguments.seed,
        limit_ms=LIMIT_MS,
        requests=REQUESTS,
        measured=measured,
        overhead=overhead,
        checked=tuple(checked),
        held=tuple(simulated(measured, overhead, rng)),
    )
    print("\n".join(summary(result)), flush=True)
    finish(result, arguments)


def measure() -> Measured:
    from benchmarks.studies.efficiency.classifier import random_classifier
    from benchmarks.studies.resize.photographs import jpeg, pictures
    from benchmarks.studies.scale.measure import PHOTOGRAPHS as COUNT
    from benchmarks.studies.scale.measure import measured
    from slipway.engines.child import run_in_child

    with tempfile.TemporaryDirectory(prefix="slipway-scale-") as folder:
        print(f"{BACKBONE}: network and INT8; about a minute", flush=True)
        made = Path(folder) / "classifier"
        run_in_child(random_classifier, what=BACKBONE, backbone=BACKBONE, folder=made, images=64)
        images = [path.read_bytes() for path in sorted((made / "images").glob("*"))]
        photographs = [jpeg(picture) for picture, _ in zip(pictures((4000, 3000), seed=0), range(COUNT), strict=False)]
        return measured(BACKBONE, made, images, photographs)


def compared(rng: np.random.Generator) -> tuple[dict[str, float], list[Checked]]:
    """Compute the layouts' overhead, and simulate the sides of `efficiency` on two cores, with their own work."""
    found = EfficiencyResult.read(EFFICIENCY).classifiers[BACKBONE]
    spent_ms = {side: sum(spent.values()) for side, spent in found.processor_ms.items()}
    parts = found.one_by_one_ms[POOL]
    share = parts["preprocess infer"] / sum(parts[f"{step} infer"] for step in ("preprocess", "engine", "post"))
    checked = []
    for side, processes in ((POOL, (2,)), (FUSED, (2,)), (TWO, (1, 1))):
        held = found.capacity_per_s[side]
        shares = (1.0,) if len(processes) == 1 else (share, 1 - share)
        work = tuple(np.full(REQUESTS, spent_ms[side] * part) for part in shares)
        rate = Layout(processes, work, _batch(found.batches[side]), 1.0, 0.0).capacity_per_s(arrivals(rng))
        mean = float(np.exp(np.mean(np.log(held))))
        checked.append(
            Checked(
                side=side,
                cores=2,
                simulated_per_s=rate,
                measured_per_s=held,
                measured_mean_per_s=mean,
                ratio=rate / mean,
            )
        )
    return {side: spent_ms[side] / spent_ms[POOL] for side in (FUSED, TWO)}, checked


def _batch(name: str) -> int:
    return int(name.rpartition(" ")[2])


def arrivals(rng: np.random.Generator) -> Times:
    return rng.exponential(1.0, REQUESTS).cumsum()


def simulated(measured: Measured, overhead: dict[str, float], rng: np.random.Generator) -> Iterator[Held]:
    from tqdm import tqdm

    arriving = arrivals(rng)
    rows = rng.integers(len(measured.preprocess_ms), size=REQUESTS)
    engine = np.array(measured.engine_ms)[rows]
    drawn, photograph = rng.random(REQUESTS), rng.choice(measured.photograph_ms, REQUESTS)
    for cores in tqdm(CORES, unit=" machines", leave=False, disable=None):
        for share in PHOTOGRAPHS:
            decode = np.where(drawn < share, photograph, np.array(measured.preprocess_ms)[rows])
            for bandwidth, slowing in zip(BANDWIDTHS, slowings(measured.slowing, cores), strict=True):
                auto = 0.0
                for layout, processes, works, batch in layouts(cores, decode, engine, overhead):
                    made = Layout(processes, works, batch, measured.batch_share, slowing)
                    rate = made.capacity_per_s(arriving)
                    auto = auto or rate  # the first is the layout that auto chooses
                    yield Held(
                        cores=cores,
                        layout=layout,
                        processes=processes,
                        batch=batch,
                        photographs=share,
                        bandwidth=bandwidth,
                        per_s=rate,
                        per_core_per_s=rate / cores,
                        of_auto=rate / auto if auto else 0.0,
                    )


def slowings(measured: float, cores: int) -> tuple[float, float]:
    """Return how much each further busy core slows the others, for each of `BANDWIDTHS`."""
    return max(0.0, measured) / max(1, cores - 1), ASSUMED


def layouts(
    cores: int, decode: Times, engine: Times, overhead: dict[str, float]
) -> Iterator[tuple[str, tuple[int, ...], tuple[Times, ...], int]]:
    whole = (decode + engine) * overhead[FUSED]
    yield FUSED, (cores,), (whole,), MERGED
    yield FUSED, (cores,), (whole,), 1
    if cores > 1:
        yield f"{FUSED}, a process for every two cores", (cores // 2,), (whole,), MERGED
        parts = (decode * overhead[TWO], engine * overhead[TWO])
        yield TWO, split(cores, parts), parts, MERGED


def summary(result: ScaleResult) -> Iterator[str]:
    m = result.measured
    work = np.mean(m.preprocess_ms), np.mean(m.engine_ms), np.mean(m.photograph_ms)
    yield f"{m.backbone}: preprocess {work[0]:.2f} ms, engine {work[1]:.2f} ms, a photograph {work[2]:.1f} ms"
    copied = ", ".join(f"{rate:.1f} GB/s with {number}" for number, rate in m.copied_gb_per_s.items())
    yield f"another busy core: {m.slowing:+.1%}; a batch of two {m.batch_share:.2f} of two images; copies {copied}"
    for found in result.checked:
        yield (
            f"{found.side} on {found.cores} cores: simulated {found.simulated_per_s:.0f}/s, measured "
            f"{found.measured_mean_per_s:.0f}/s ({min(found.measured_per_s):.0f} to {max(found.measured_per_s):.0f})"
        )
    for held in result.held:
        processes = " + ".join(map(str, held.processes))
        yield (
            f"{held.cores:3} cores, {held.photographs:.0%} photographs, {held.bandwidth:38} {held.layout:38} "
            f"{processes:8} batch {held.batch}: {held.per_s:7.0f}/s, {held.of_auto:.2f} of auto's"
        )


def parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, epilog=EPILOG, keys=("held",))
    add: Any = parser.add_argument
    add("--measure", action="store_true", help="measure the times first, in 2 minutes on an idle machine")
    add("--measured", type=Path, default=RESULT, metavar="JSON", help="otherwise: the result with the times to take")
    add("--seed", type=int, default=0, help="seed of arrivals and images")
    return parser


if __name__ == "__main__":
    run(main, parser())
