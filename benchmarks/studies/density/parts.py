"""The parts of the density study: each starts servers, asks them, and says what it saw."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from tqdm import tqdm

from benchmarks.studies.climbing import Bench, offered
from benchmarks.studies.density.made import Shape, write_random_head
from benchmarks.studies.effort import Effort
from benchmarks.studies.robustness.launcher import Launcher, launched
from benchmarks.studies.robustness.load import run_load
from benchmarks.studies.robustness.parts import meanwhile, proportional_mib
from slipway.benchmark.load import poisson_schedule
from slipway.benchmark.server import HttpServer
from slipway.benchmark.tuning_climb import rate_at
from slipway.contract import Fleet
from slipway.repository import assemble, open_fleet

SPREAD, CHANGES, LOAD_PER_S = 100, 100, 40.0


def fleet_of(base: Path, heads: Mapping[str, Path]) -> Fleet:
    given = {"base": str(base), "heads": {name: str(run) for name, run in heads.items()}}
    return Fleet.parse({"bases": {base.name: given}}, source="the study")


def assembled(base: Path, heads: Mapping[str, Path], repository: Path) -> float:
    """Write the repository of a fleet file with these heads, as `slipway assemble` does; returns the seconds."""
    started_s = time.monotonic()
    assemble(open_fleet(fleet_of(base, heads), root=Path()), repository)
    return time.monotonic() - started_s


class Spread:
    """Asks many classifiers of one server, each in turn. Use as an async context manager."""

    def __init__(self, connects: Sequence[Callable[[], HttpServer]]) -> None:
        self._servers = [connect() for connect in connects]
        self._asked = 0

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        for server in self._servers:
            await self._stack.enter_async_context(server)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def ask(self, image: int, *, deadline_s: float) -> str | None:
        self._asked += 1
        return await self._servers[self._asked % len(self._servers)].ask(image, deadline_s=deadline_s)


def latency(base: Path, runs: Sequence[Path], images: Sequence[bytes], work: Path, effort: Effort) -> dict[str, Any]:
    """Start-up and memory of one head and of all; and P99 of one alone, of the same among all, and over 100 of them."""
    found: dict[str, Any] = {"heads": len(runs)}
    with ExitStack() as stack:
        servers: dict[str, Launcher] = {}
        for what, some in {"alone": runs[:1], "among": runs}.items():
            folder = work / what
            folder.mkdir()
            assemble_s = assembled(base, {run.name: run for run in some}, folder / "repository")
            servers[what] = server = stack.enter_context(launched(folder / "repository", folder, timeout_s=300))
            found[what] = {
                "assemble_s": assemble_s,
                "ready_s": server.events("ready")[0]["seconds"],
                "memory_mib": proportional_mib(server.server_pid()),
            }
            print(f"{what}: {found[what]}", flush=True)
        each = found["among"]["memory_mib"] - found["alone"]["memory_mib"]
        found["memory_mib_of_each_additional"] = each / (len(runs) - 1)

        def connect(server: Launcher, model: str) -> Callable[[], HttpServer]:
            url = f"127.0.0.1:{server.ports.http}"
            return partial(HttpServer, server.grpc_url, http_url=url, model=model, images=images)

        among = [connect(servers["among"], run.name) for run in runs]
        sides: dict[str, Callable[[], Any]] = {
            "alone": connect(servers["alone"], runs[0].name),
            "among": among[0],
            "spread": lambda: Spread([among[i] for i in range(0, len(among), max(1, len(among) // SPREAD))]),
        }
        bench = Bench(len(images), effort)
        _, rung = bench.best({"alone": sides["alone"]})
        return found | {"rate_per_s": rate_at(rung), **_in_turns(sides, rate_at(rung), len(images), effort)}


def _in_turns(sides: Mapping[str, Callable[[], Any]], rate_per_s: float, images: int, effort: Effort) -> dict[str, Any]:
    """P99 of each side at one rate, the same arrivals for all in a round; and the ratios to `alone`."""
    p99_ms: dict[str, list[float]] = {side: [] for side in sides}
    seen: dict[str, list[Any]] = {side: [] for side in sides}
    failed: Counter[str] = Counter()
    warm_up = effort.requests // 10
    for number in tqdm(range(effort.rounds), "rounds", disable=None):
        rng = np.random.default_rng([effort.seed, number])
        schedule_s = poisson_schedule(effort.requests + warm_up, rate_per_s=rate_per_s, rng=rng)
        order = rng.integers(images, size=schedule_s.size).tolist()
        names = list(sides)
        for side in names[number % len(names) :] + names[: number % len(names)]:
            block, _ = offered(sides[side], schedule_s, order, warm_up=warm_up)
            failed.update(block.failures)
            seen[side].append(block.latencies_ms)
            p99_ms[side].append(float(np.percentile(block.latencies_ms, 99)))
    whole = {side: float(np.percentile(np.concatenate(blocks), 99)) for side, blocks in seen.items()}
    ratios = {
        f"{side}_to_alone": {
            "of_all": whole[side] / whole["alone"],
            "by_round": [a / b for a, b in zip(p99_ms[side], p99_ms["alone"], strict=True)],
        }
        for side in sides
        if side != "alone"
    }
    return {"p99_ms": whole, "p99_ms_by_round": p99_ms, "failed": dict(failed), **ratios}


def changes(base: Path, runs: Sequence[Path], images: Sequence[bytes], work: Path, *, seed: int) -> dict[str, Any]:
    """A head is added, changed and removed under 40 requests/s to another of its group; then one changes 100 times."""
    from slipway.repository.fleet import open_base

    served, repository = open_base(base), work / "repository"
    heads = {run.name: run for run in runs}
    versions = [
        write_random_head(
            work / f"version{n}", served, name="changing", shape=Shape(10, 0, "multiclass"), seed=seed + n
        )
        for n in range(2)
    ]
    assembled(base, heads, repository)
    took_s: dict[str, float] = {}
    with launched(repository, work, timeout_s=300) as server:

        def change(what: str, now: Mapping[str, Path]) -> None:
            started_s = time.monotonic()
            assembled(base, now, repository)
            server.reload()
            took_s[what] = time.monotonic() - started_s
            print(f"{what}: {took_s[what]:.1f} s", flush=True)

        def all_three() -> None:
            change("add", heads | {"changing": versions[0]})
            change("change", heads | {"changing": versions[1]})
            change("remove", heads)

        with meanwhile(all_three):
            load = run_load(server, runs[0].name, images, LOAD_PER_S, 40.0, seed=seed)
        before_mib, many_s = proportional_mib(server.server_pid()), []
        for number in tqdm(range(CHANGES), "changes", disable=None):
            change("again", heads | {"changing": versions[number % 2]})
            many_s.append(took_s.pop("again"))
        after_mib = proportional_mib(server.server_pid())
    return {
        "heads": len(runs),
        "seconds": took_s,
        "requests": int(load.block.latencies_ms.size),
        "failed": dict(load.block.failures),
        "mixed": load.mixed,
        "changes": CHANGES,
        "change_s_median": float(np.median(many_s)),
        "change_s_max": max(many_s),
        "memory_mib_before": before_mib,
        "memory_mib_after": after_mib,
    }
