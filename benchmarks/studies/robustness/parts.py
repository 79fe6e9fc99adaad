"""The parts of the study: each starts a launcher, disturbs it under load, and returns its measurements."""

import asyncio
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from tqdm import tqdm

from benchmarks.studies.memory.measure import proportional_mib
from benchmarks.studies.robustness.launcher import Launcher, launched
from benchmarks.studies.robustness.load import LIMIT_MS, run_load, saturation, seconds_to_normal
from benchmarks.studies.robustness.variants import variant
from slipway.benchmark.load import rate_per_s
from slipway.benchmark.processes import give_way
from slipway.contract import Bundle, GateError
from slipway.repository import Classifier, assemble, pick_engines
from slipway.serving.process import stubs

RELOAD_RATE_PER_S, RELOADS, RELOAD_MINUTE_S = 40.0, 10, 60.0
LADDER = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CAPACITY_S, OVERLOAD_S = 12.0, 30.0
OVERLOAD = {"queue_timeout_ms": 20, "preferred_batch_size": 4}
FIFTY = 50


def reload_part(run: Path, images: Sequence[bytes], work: Path, *, seed: int) -> dict[str, Any]:
    """Reload two bundles of one classifier in turn, 10 times in 60 s at 40 requests/s; compare with 60 s without
    reloads."""
    versions = [variant(run, work / f"version{number}", temperature=1 + number / 10) for number in range(2)]
    ids = {classifier.bundle.id for classifier in versions}
    name, repository = versions[0].name, work / "repository"
    assemble([versions[0]], repository)
    quiet, busy, took_s = [], [], []
    with launched(repository, work) as server:
        for half in range(2):
            quiet.append(run_load(server, name, images, RELOAD_RATE_PER_S, RELOAD_MINUTE_S / 2, seed=seed + half))

            def switch(half: int = half) -> None:
                for number in range(RELOADS // 2):
                    started = time.monotonic()
                    assemble([versions[(half * (RELOADS // 2) + number + 1) % 2]], repository)
                    server.reload()
                    took_s.append(time.monotonic() - started)
                    time.sleep(max(0.0, RELOAD_MINUTE_S / RELOADS - (time.monotonic() - started)))

            with meanwhile(switch):
                busy.append(run_load(server, name, images, RELOAD_RATE_PER_S, RELOAD_MINUTE_S / 2, seed=seed + half))
    plain_ms, reload_ms = (np.concatenate([load.block.latencies_ms for load in loads]) for loads in (quiet, busy))
    p99 = [float(np.percentile(latencies_ms, 99)) for latencies_ms in (plain_ms, reload_ms)]
    bundles = Counter(bundle for load in busy for bundle in load.bundles)
    return {
        "rate_per_s": RELOAD_RATE_PER_S,
        "reloads": len(took_s),
        "reload_seconds_max": max(took_s),
        "requests": int(reload_ms.size),
        "failed": dict(sum((Counter(load.block.failures) for load in busy), Counter())),
        "failed_without_reloads": dict(sum((Counter(load.block.failures) for load in quiet), Counter())),
        "answers_by_bundle": {bundle[:12]: count for bundle, count in bundles.items()},
        "answers_of_no_version": sum(count for bundle, count in bundles.items() if bundle not in ids),
        "mixed": sum(load.mixed for load in busy),
        "p99_ms_without_reloads": p99[0],
        "p99_ms": p99[1],
        "p99_ratio": p99[1] / p99[0],
    }


def kills_part(run: Path, images: Sequence[bytes], work: Path, *, seed: int) -> dict[str, Any]:
    """Send SIGKILL to one process of each step and to the server, under 40 requests/s."""
    classifier = pick_engines(Bundle.open(run / "bundle"), run / "engines", lane="cpu")
    assemble([classifier], work / "repository")
    results = {}
    for what in ("preprocess", "engine", "post", "server"):
        with launched(work / "repository", work) as server:
            killed: list[float] = []

            def kill(what: str = what, killed: list[float] = killed) -> None:
                time.sleep(4)
                victims = [pid for pid, step in stubs(server.server_pid()).items() if step.startswith(what)]
                killed.append(time.monotonic())
                os.kill(victims[0] if what != "server" else server.server_pid(), signal.SIGKILL)

            with meanwhile(kill):
                load = run_load(server, classifier.name, images, RELOAD_RATE_PER_S, 20.0, seed=seed)
        good_s = [done - killed[0] for sent, done in load.good if sent >= killed[0]]
        bad_s = [done - killed[0] for _, done in load.bad if done >= killed[0]]
        results[what] = {
            "seconds_to_first_right_answer": min(good_s, default=None),
            "seconds_until_the_last_error": max(bad_s, default=0.0),
            "requests": int(load.block.latencies_ms.size),
            "lost": dict(load.block.failures),
            "longest_wait_s": load.longest_wait_s,
        }
    return results


def overload_part(run: Path, images: Sequence[bytes], work: Path, *, seed: int) -> dict[str, Any]:
    """Measure each layout: the highest rate with P99 under 50 ms, 3 and 10 times that for 30 s each, and an easy load.

    A request that waited for `queue_timeout_ms` is refused, and is over every limit.
    """
    chosen = pick_engines(Bundle.open(run / "bundle"), run / "engines", lane="cpu")
    results = {}
    for layout in ("steps", "fused"):
        serving = chosen.serving.model_copy(update={"layout": layout, **OVERLOAD})
        repository = work / layout
        assemble([replace(chosen, settings=serving)], repository)
        with launched(repository, work) as server:
            give_way(server.server_pid(), nice=19)  # as if the load generator had its own cores
            results[layout] = capacity(server, chosen.name, images, seed=seed) | {
                "serving": serving.model_dump(mode="json")
            }
            for times in (3, 10):
                results[layout][f"{times}x"] = overloaded(
                    server, chosen.name, images, times, results[layout]["capacity_per_s"], seed=seed
                )
    return results


def capacity(server: Launcher, name: str, images: Sequence[bytes], *, seed: int) -> dict[str, Any]:
    """Find the rate at which a closed loop saturates, and the highest share of it that holds P99 under the limit."""
    saturation_per_s = asyncio.run(saturation(server.grpc_url, name, images))
    rungs: list[dict[str, Any]] = []
    for share in LADDER:
        load = run_load(server, name, images, share * saturation_per_s, CAPACITY_S, seed=seed)
        p99_ms = float(np.percentile(load.block.latencies_ms, 99))
        rungs.append({"rate_per_s": share * saturation_per_s, "p99_ms": p99_ms, "failed": dict(load.block.failures)})
    within = [rung["rate_per_s"] for rung in rungs if rung["p99_ms"] < LIMIT_MS]
    if not within:
        lowest = rungs[0]
        raise GateError(
            f"{name}: P99 {lowest['p99_ms']:.0f} ms at {lowest['rate_per_s']:.0f} requests/s, over {LIMIT_MS:g} ms: "
            "there is no capacity to overload; end what else runs on this machine"
        )
    return {"saturation_per_s": saturation_per_s, "ladder": rungs, "capacity_per_s": max(within)}


def overloaded(
    server: Launcher, name: str, images: Sequence[bytes], times: int, capacity_per_s: float, *, seed: int
) -> dict[str, Any]:
    """Offer so many times the capacity, and an easy load after its last answer."""
    load = run_load(server, name, images, times * capacity_per_s, OVERLOAD_S, seed=seed, deadline_ms=2000)
    accepted_ms = load.block.latencies_ms[load.block.right]
    over_s = load.last_sent_s
    after = run_load(server, name, images, 0.3 * capacity_per_s, 5.0, seed=seed + 1, warm_up_s=0)
    return {
        "offered_per_s": rate_per_s([load.block.due]),
        "goodput_per_s": accepted_ms.size / OVERLOAD_S,
        "goodput_share_of_capacity": accepted_ms.size / OVERLOAD_S / capacity_per_s,
        "accepted_p50_ms": float(np.percentile(accepted_ms, 50)) if accepted_ms.size else None,
        "accepted_p99_ms": float(np.percentile(accepted_ms, 99)) if accepted_ms.size else None,
        "failures": dict(load.block.failures),
        "generator_late_p99_ms": float(np.percentile(load.block.schedule_errors_ms, 99)),
        "client_cpu_cores": load.client_cpu_cores,
        "afterwards": {
            "failed": dict(after.block.failures),
            "p99_ms": float(np.percentile(after.block.latencies_ms, 99)),
            "seconds_to_normal": seconds_to_normal(after, since_s=over_s),
            "late_answers": sum(done > over_s for _, done in load.good),
        },
    }


def fifty_part(run: Path, images: Sequence[bytes], work: Path, *, seed: int) -> dict[str, Any]:
    """Serve fifty classifiers with their own engines and decisions in one repository, one instance of each step, in the
    two layouts in which they share their decode.
    """
    results: dict[str, Any] = {"classifiers": FIFTY}
    for layout in ("steps", "shared_decode"):
        classifiers = []
        for number in tqdm(range(FIFTY), desc=f"bundles, {layout}", disable=None):
            change = {"name": f"digits{number:02d}", "temperature": 1 + number / 100, "engine_mark": str(number)}
            serving = {"instances": 1, "layout": layout}
            classifiers.append(variant(run, work / layout / change["name"], serving=serving, **change))
        alone = together(classifiers[:1], images, work, seed=seed)
        all_ = together(classifiers, images, work, seed=seed)
        results[layout] = {
            "1": alone,
            f"{FIFTY}": all_,
            "memory_mib_of_each_additional": (all_["memory_mib"] - alone["memory_mib"]) / (FIFTY - 1),
            "p99_ratio_to_alone": all_["p99_ms"] / alone["p99_ms"],
        }
        shutil.rmtree(work / layout)
    return results


def together(classifiers: Sequence[Classifier], images: Sequence[bytes], work: Path, *, seed: int) -> dict[str, Any]:
    """Measure the cost of so many classifiers in one repository, with an easy load on the first, and a killed
    server."""
    repository = work / "repository"
    assemble(classifiers, repository)
    with launched(repository, work, timeout_s=300) as server:
        memory_mib, by_step = proportional_mib(server.server_pid()), by_step_mib(server.server_pid())
        load = run_load(server, classifiers[0].name, images, 20.0, 30.0, seed=seed)
        killed_s = time.monotonic()
        os.kill(server.server_pid(), signal.SIGKILL)
        server.wait_until_all_answer(after=1)
        return {
            "seconds_to_ready": server.events("ready")[0]["seconds"],
            "seconds_from_kill_to_all_answering": time.monotonic() - killed_s,
            "memory_mib": memory_mib,
            "memory_mib_by_step": by_step,
            "p50_ms": float(np.percentile(load.block.latencies_ms, 50)),
            "p99_ms": float(np.percentile(load.block.latencies_ms, 99)),
            "failed": dict(load.block.failures),
        }


PART_FUNCTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "reload": reload_part,
    "kills": kills_part,
    "overload": overload_part,
    "fifty": fifty_part,
}


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do `work` beside the block; its exception is raised after the block."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
        done.result()


def by_step_mib(server: int) -> dict[str, float]:
    """Return the mean PSS of a stub, by the kind of its step."""
    sizes: dict[str, list[float]] = {}
    for pid, step in stubs(server).items():
        sizes.setdefault(step.split("_")[0], []).append(psutil.Process(pid).memory_full_info().pss / 2**20)
    return {kind: float(np.mean(values)) for kind, values in sizes.items()}
