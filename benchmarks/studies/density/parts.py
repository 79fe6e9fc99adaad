"""The parts of the density study: each starts servers, asks them, and returns its measurements."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from tqdm import tqdm

from benchmarks.studies.climbing import P99, Bench, blocks_in_turns
from benchmarks.studies.density.made import Shape, write_random_head, write_whole
from benchmarks.studies.density.result import DensityChanges, DensityEqual, DensityWhole
from benchmarks.studies.effort import Effort
from benchmarks.studies.memory.measure import proportional_mib
from benchmarks.studies.robustness.launcher import Launcher, launched
from benchmarks.studies.robustness.load import run_load
from benchmarks.studies.robustness.parts import meanwhile
from slipway.benchmark.processes import give_way
from slipway.benchmark.server import HttpConnection
from slipway.client import Client
from slipway.contract import Bundle, Fleet
from slipway.contract.bundle import HEAD
from slipway.contract.evidence.latency import rate_at
from slipway.contract.evidence.studies import DensityLatency, Started
from slipway.engines.base_engines import run_of
from slipway.repository.fleet import open_base
from slipway.steps.head import Head
from slipway.steps.postprocess import Answers, Postprocessor
from slipway.steps.preprocess import Preprocessor

SPREAD, WHOLE, CHANGES, CHANGED_AMONG, LOAD_PER_S, LOAD_S = 100, 50, 100, 200, 40.0, 60.0
EQUAL_WITHIN = 1e-5
"""Difference of probabilities up to which answers with the same label and bundle count as equal."""


def fleet_of(base: Path, heads: Mapping[str, Path]) -> Fleet:
    given = {"base": str(base), "heads": {name: str(run) for name, run in heads.items()}}
    return Fleet.parse({"bases": {base.name: given}}, source="the study")


def assembled(fleet: Fleet, repository: Path) -> float:
    """Write the repository of a fleet file by `slipway assemble`; returns the seconds."""
    path = repository.with_name("fleet.yaml")
    fleet.write(path)  # JSON is YAML
    started_s = time.monotonic()
    command = [sys.executable, "-m", "slipway", "assemble", str(path), "--out", str(repository)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started_s


@contextmanager
def serving(fleet: Fleet, folder: Path) -> Iterator[tuple[Launcher, Started]]:
    """Start the server of a fleet, and measure its start. It gives way to the load generator, which shares its
    cores."""
    folder.mkdir()
    assemble_s = assembled(fleet, folder / "repository")
    with launched(folder / "repository", folder, timeout_s=300) as server:
        ready_s, memory_mib = server.events("ready")[0]["seconds"], proportional_mib(server.server_pid())
        give_way(server.server_pid())
        yield server, Started(assemble_s=assemble_s, ready_s=ready_s, memory_mib=memory_mib)


class Spread:
    """Asks many classifiers of one server, each in turn. Use as an async context manager."""

    def __init__(self, connects: Sequence[Callable[[], HttpConnection]]) -> None:
        self._servers = [connect() for connect in connects]
        self._asked = 0

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        for server in self._servers:
            await self._stack.enter_async_context(server)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def ask(self, image: int, *, deadline_s: float) -> str | None:
        self._asked += 1
        return await self._servers[self._asked % len(self._servers)].ask(image, deadline_s=deadline_s)


def latency(base: Path, runs: Sequence[Path], images: Sequence[bytes], work: Path, effort: Effort) -> DensityLatency:
    """Measure start and memory of one head and of all, and P99 of one alone, of the same among all, and over 100 of
    them."""
    found: dict[str, Started] = {}
    with ExitStack() as stack:
        servers: dict[str, Launcher] = {}
        for what, some in {"alone": runs[:1], "among": runs}.items():
            fleet = fleet_of(base, {run.name: run for run in some})
            servers[what], found[what] = stack.enter_context(serving(fleet, work / what))
            print(f"{what}: {found[what]}", flush=True)
        further_mib = found["among"].memory_mib - found["alone"].memory_mib

        def connect(server: Launcher, model: str) -> Callable[[], HttpConnection]:
            url = f"127.0.0.1:{server.ports.http}"
            return partial(HttpConnection, server.grpc_url, http_url=url, model=model, images=images)

        among = [connect(servers["among"], run.name) for run in runs]
        sides: dict[str, Callable[[], Any]] = {
            "alone": connect(servers["alone"], runs[0].name),
            "among": among[0],
            "spread": lambda: Spread([among[i] for i in range(0, len(among), max(1, len(among) // SPREAD))]),
        }
        bench = Bench(len(images), effort)
        _, rung = bench.best({"alone": sides["alone"]})
        seen = P99.of(blocks_in_turns(sides, rate_at(rung), len(images), effort))
        return DensityLatency(
            heads=len(runs),
            alone=found["alone"],
            among=found["among"],
            memory_mib_of_each_additional=further_mib / (len(runs) - 1),
            rate_per_s=rate_at(rung),
            **seen.fields(),
            among_to_alone=seen.ratio("among", to="alone"),
            spread_to_alone=seen.ratio("spread", to="alone"),
        )


def equal(base: Path, runs: Sequence[Path], images: Sequence[bytes], folder: Path) -> DensityEqual:
    """Compare the answers of every head, an image a request, with those computed without a server."""
    expected, differences = _offline(base, runs, images), list[float]()
    with serving(fleet_of(base, {run.name: run for run in runs}), folder) as (server, _):
        for run, (bundle, answers) in tqdm(expected.items(), "equal", disable=None):
            with Client(f"grpc://{server.grpc_url}", model=run.name) as client:
                given = [client.classify(image, full=True) for image in images]
            for row, answer in enumerate(given):
                same = (answer.bundle, (answer.label or "").encode()) == (bundle.id, answers.label_nk[row, 0])
                if answer.probability is None or not same:
                    print(f"{run.name}, image {row}: {answer}, not {answers.label_nk[row, 0]}", flush=True)
                    differences.append(1.0)
                else:
                    differences.append(float(np.abs(answer.probability - answers.probability_nc[row]).max()))
    return DensityEqual(
        heads=len(runs),
        images=len(images),
        engine=open_base(base).engine.path.name,
        answers=len(differences),
        equal=sum(difference <= EQUAL_WITHIN for difference in differences),
        max_probability_difference=max(differences),
    )


def _offline(base: Path, runs: Sequence[Path], images: Sequence[bytes]) -> dict[Path, tuple[Bundle, Answers]]:
    """Compute the answers of the base's engine, each head and its decision, image by image."""
    served = open_base(base)
    preprocessor = Preprocessor(served.base.preprocess.model_dump(), max_batch_size=1, threads=1)
    network = run_of(served.engine, threads=1)
    prepared = [preprocessor.run([image]) for image in images]
    embedding_nd = np.concatenate([network(pixels_nhwc_u8)[1].copy() for pixels_nhwc_u8, _ in prepared])
    status_n = np.concatenate([status_n for _, status_n in prepared])
    found = {}
    for run in runs:
        bundle, head = Bundle.open(run / "bundle"), Head.read(run / "engines" / served.engine.path.name / HEAD)
        answers = Postprocessor(bundle.decision.model_dump(), bundle.labels)
        found[run] = bundle, answers.run(head.run(embedding_nd), status_n, embedding_nd)
    return found


def whole(base: Path, work: Path, *, seed: int) -> DensityWhole:
    """Measure start and memory of one and of 50 whole classifiers of the base's network, each with its own last
    layer."""
    served, found = open_base(base), {}
    named = [f"whole{number:02}" for number in range(WHOLE)]
    runs = [write_whole(work / name, served, name=name, classes=10, seed=seed + n) for n, name in enumerate(named)]
    for what, some in {"alone": runs[:1], "among": runs}.items():
        engine = served.engine.path.name
        given = {
            run.name: {"active": {"bundle": f"{run}/bundle", "engine": [f"{run}/engines/{engine}"]}} for run in some
        }
        with serving(Fleet.parse({"classifiers": given}, source="the study"), work / what) as (_, found[what]):
            print(f"{what}: {found[what]}", flush=True)
    further_mib = found["among"].memory_mib - found["alone"].memory_mib
    return DensityWhole(classifiers=len(runs), **found, memory_mib_of_each_additional=further_mib / (len(runs) - 1))


def changes(base: Path, runs: Sequence[Path], images: Sequence[bytes], work: Path, *, seed: int) -> DensityChanges:
    """Add, change and remove a head among all heads, under 40 requests/s to another of its group. Then change one of
    200 heads 100 times, and watch the memory of the server."""
    served = open_base(base)
    shape = Shape(10, 0, "multiclass")
    versions = [
        write_random_head(work / f"version{n}", served, name="changing", shape=shape, seed=seed + n) for n in range(2)
    ]
    heads = {run.name: run for run in runs}
    with changeable(base, heads, work / "all") as changing:
        took: dict[str, dict[str, float]] = {}

        def all_three() -> None:
            after = {"add": {"changing": versions[0]}, "change": {"changing": versions[1]}, "remove": {}}
            for what, more in after.items():
                took[what] = changing.to(heads | more)
                print(f"{what}: {took[what]}", flush=True)

        with meanwhile(all_three):
            load = run_load(changing.server, runs[0].name, images, LOAD_PER_S, LOAD_S, seed=seed)
        print(
            f"{load.block.latencies_ms.size} requests, failed {dict(load.block.failures)}, mixed {load.mixed}",
            flush=True,
        )
    some = {run.name: run for run in runs[:CHANGED_AMONG]}
    with changeable(base, some, work / "some") as changing:
        memory_mib = [proportional_mib(changing.server.server_pid())]
        for number in tqdm(range(CHANGES), "changes", disable=None):
            changing.to(some | {"changing": versions[number % 2]})
            if number in (0, CHANGES // 2 - 1, CHANGES - 1):
                memory_mib.append(proportional_mib(changing.server.server_pid()))
    return DensityChanges(
        heads=len(runs),
        seconds=took,
        requests=int(load.block.latencies_ms.size),
        failed=dict(load.block.failures),
        mixed=load.mixed,
        changes=CHANGES,
        changed_among=len(some),
        memory_mib_at_start_and_after_1_50_100=tuple(memory_mib),
    )


@dataclass(frozen=True)
class Changing:
    """A server and the repository that it serves."""

    base: Path
    repository: Path
    server: Launcher

    def to(self, heads: Mapping[str, Path]) -> dict[str, float]:
        """Serve these heads instead; returns the seconds of `assemble` and of `reload`."""
        assemble_s, started_s = assembled(fleet_of(self.base, heads), self.repository), time.monotonic()
        self.server.reload()
        return {"assemble_s": assemble_s, "reload_s": time.monotonic() - started_s}


@contextmanager
def changeable(base: Path, heads: Mapping[str, Path], folder: Path) -> Iterator[Changing]:
    with serving(fleet_of(base, heads), folder) as (server, started):
        print(f"{len(heads):,} heads: {started}", flush=True)
        yield Changing(base, folder / "repository", server)
