"""The parts of robustness.py: each starts a launcher, does something to it under load, and says what it saw."""

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from robustness_launcher import Launcher, launched
from tqdm import tqdm

from slipway.benchmark.load import Block, offer, poisson_schedule, precise_loop, rate_per_s
from slipway.benchmark.server import Server
from slipway.contract import Bundle, Engine, Manifest, bundle_id
from slipway.repository import Classifier, assemble, pick_engines
from slipway.serving.process import stubs

LIMIT_MS = 50.0
RELOAD_RATE_PER_S, RELOADS, RELOAD_MINUTE_S = 40.0, 10, 60.0
LADDER = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CAPACITY_S, OVERLOAD_S = 12.0, 30.0
FIFTY = 50


def reload_part(run: Path, images: Sequence[bytes], work: Path, *, seed: int) -> dict[str, Any]:
    """Two bundles of one classifier in turn, 10 times in 60 s at 40 requests/s, against the same time without."""
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

            thread = threading.Thread(target=switch)
            thread.start()
            busy.append(run_load(server, name, images, RELOAD_RATE_PER_S, RELOAD_MINUTE_S / 2, seed=seed + half))
            thread.join()
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
    """SIGKILL to one process of each step and to the server, under 40 requests/s."""
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

            thread = threading.Thread(target=kill)
            thread.start()
            load = run_load(server, classifier.name, images, RELOAD_RATE_PER_S, 20.0, seed=seed)
            thread.join()
        good_s = [done for sent, done in load.good if sent >= killed[0]]
        results[what] = {
            "seconds_to_first_right_answer": min(good_s) - killed[0],
            "seconds_until_the_last_error": max((done for done in load.bad if done >= killed[0]), default=killed[0])
            - killed[0],
            "requests": int(load.block.latencies_ms.size),
            "lost": dict(load.block.failures),
            "longest_wait_s": max(load.waits),
        }
    return results


def overload_part(run: Path, images: Sequence[bytes], work: Path, *, seed: int) -> dict[str, Any]:
    """The highest rate with P99 under 50 ms, then 3 and 10 times that for 30 s each, then an easy load again."""
    classifier = pick_engines(Bundle.open(run / "bundle"), run / "engines", lane="cpu")
    serving = classifier.bundle.spec.serving
    assemble([classifier], work / "repository")
    name, rungs = classifier.name, []
    with launched(work / "repository", work) as server:
        saturation_per_s = asyncio.run(saturation(server.grpc_url, name, images))
        for share in LADDER:
            rate = share * saturation_per_s
            load = run_load(server, name, images, rate, CAPACITY_S, seed=seed)
            p99_ms = float(np.percentile(load.block.latencies_ms, 99))
            rungs.append({"rate_per_s": rate, "p99_ms": p99_ms, "failed": dict(load.block.failures)})
        within = [rung["rate_per_s"] for rung in rungs if rung["p99_ms"] < LIMIT_MS]
        capacity_per_s = max(within, default=rungs[0]["rate_per_s"])
        results: dict[str, Any] = {
            "serving": serving.model_dump(mode="json"),
            "saturation_per_s": saturation_per_s,
            "ladder": rungs,
            "capacity_per_s": capacity_per_s,
        }
        for times in (3, 10):
            load = run_load(server, name, images, times * capacity_per_s, OVERLOAD_S, seed=seed, deadline_ms=2000)
            accepted_ms = load.block.latencies_ms[load.block.right]
            over = time.monotonic()
            after = run_load(server, name, images, 0.3 * capacity_per_s, 5.0, seed=seed + 1, warm_up_s=0)
            late = [sent for sent, _ in load.good if sent > over]
            results[f"{times}x"] = {
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
                    "seconds_to_normal": seconds_to_normal(after, since=over),
                    "late_answers": len(late),
                },
            }
    return results


def fifty_part(run: Path, images: Sequence[bytes], work: Path, *, seed: int) -> dict[str, Any]:
    """Fifty classifiers with their own engines and decisions in one repository, one instance of each step."""
    serving = {"instances": 1}
    classifiers = []
    for number in tqdm(range(FIFTY), desc="bundles", disable=None):
        name = f"digits{number:02d}"
        change = {"name": name, "temperature": 1 + number / 100, "serving": serving, "engine_mark": str(number)}
        classifiers.append(variant(run, work / name, **change))
    results: dict[str, Any] = {"classifiers": FIFTY}
    loads, memory = {}, {}
    for count in (1, FIFTY):
        repository = work / f"repository{count}"
        assemble(classifiers[:count], repository)
        with launched(repository, work, timeout_s=300) as server:
            memory[count] = proportional_mib(server.server_pid())
            loads[count] = run_load(server, "digits00", images, 20.0, 30.0, seed=seed)
            results[f"{count}"] = {
                "seconds_to_ready": server.seconds_to_ready(),
                "memory_mib": memory[count],
                "p50_ms": float(np.percentile(loads[count].block.latencies_ms, 50)),
                "p99_ms": float(np.percentile(loads[count].block.latencies_ms, 99)),
                "failed": dict(loads[count].block.failures),
            }
            if count == FIFTY:
                results["by_step_mib"] = by_step_mib(server.server_pid())
                started = time.monotonic()
                os.kill(server.server_pid(), signal.SIGKILL)
                server.wait_until_all_answer(after=1)
                results["seconds_from_kill_to_all_answering"] = time.monotonic() - started
    results["memory_mib_of_each_additional"] = (memory[FIFTY] - memory[1]) / (FIFTY - 1)
    results["p99_ratio_to_alone"] = results[str(FIFTY)]["p99_ms"] / results["1"]["p99_ms"]
    return results


PART_FUNCTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "reload": reload_part,
    "kills": kills_part,
    "overload": overload_part,
    "fifty": fifty_part,
}


class Load:
    """What one load run saw."""

    block: Block
    client_cpu_cores: float

    def __init__(self) -> None:
        self.good: list[tuple[float, float]] = []
        """Sent and answered, `time.monotonic()`."""
        self.bad: list[float] = []
        self.waits: list[float] = []
        self.bundles: list[str] = []
        self.mixed = 0


def run_load(
    launcher: Launcher,
    model: str,
    images: Sequence[bytes],
    per_s: float,
    seconds: float,
    *,
    seed: int,
    deadline_ms: float = 5000.0,
    warm_up_s: float = 1.0,
) -> Load:
    """Poisson arrivals of one image each; the first second is not counted."""
    load = Load()
    rng = np.random.default_rng(seed)
    count, warm_up = int(per_s * (seconds + warm_up_s)), int(per_s * warm_up_s)
    order = rng.integers(len(images), size=count)

    async def offered() -> Block:
        async with Server(launcher.grpc_url, model=model, images=images) as server:
            scores: dict[tuple[int, str], tuple[bytes, float]] = {}

            async def ask(index: int) -> str | None:
                sent, image = time.monotonic(), int(order[index])
                answer = await server.answer(image, deadline_s=deadline_ms / 1000)
                load.waits.append(time.monotonic() - sent)
                if isinstance(answer, str):
                    load.bad.append(time.monotonic())
                    return answer
                load.good.append((sent, time.monotonic()))
                bundle = answer.bundle.decode()
                load.bundles.append(bundle)
                # The same image from the same bundle has the same answer, whatever else was being loaded.
                said = (answer.label, round(answer.score, 4))
                load.mixed += scores.setdefault((image, bundle), said) != said
                return None

            return await offer(
                poisson_schedule(count, rate_per_s=per_s, rng=rng), ask, warm_up=warm_up, deadline_ms=deadline_ms
            )

    started, cpu = time.perf_counter(), time.process_time()
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        load.block = runner.run(offered())
    load.client_cpu_cores = (time.process_time() - cpu) / (time.perf_counter() - started)
    return load


async def saturation(url: str, model: str, images: Sequence[bytes], *, clients: int = 16, seconds: float = 8) -> float:
    """Right answers a second of a closed loop that keeps every queue filled."""
    answered = 0
    async with Server(url, model=model, images=images) as server:
        over = time.monotonic() + seconds

        async def client(offset: int) -> None:
            nonlocal answered
            index = offset
            while time.monotonic() < over:
                right = await server.ask(index % len(images), deadline_s=5) is None
                answered += right
                index += clients

        await asyncio.gather(*(client(offset) for offset in range(clients)))
    return answered / seconds


def seconds_to_normal(load: Load, *, since: float) -> float:
    """Until the last failure, or the last answer over the limit, of an easy load."""
    slow = [done for sent, done in load.good if (done - sent) * 1000 > LIMIT_MS]
    return max([done - since for done in [*slow, *load.bad]], default=0.0)


def variant(
    run: Path,
    folder: Path,
    *,
    temperature: float,
    name: str | None = None,
    serving: dict[str, Any] | None = None,
    engine_mark: str = "",
) -> Classifier:
    """A sealed copy of the run's bundle and chosen engine with another decision, and a graph whose hash is another."""
    chosen = pick_engines(Bundle.open(run / "bundle"), run / "engines", lane="cpu")
    shutil.copytree(run / "bundle", folder / "bundle", ignore=shutil.ignore_patterns("manifest.json"))
    shutil.copytree(chosen.engine.path, folder / "engine", ignore=shutil.ignore_patterns("manifest.json"))
    for part in ("bundle", "engine"):
        path = folder / part / "decision.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"temperature": temperature}), encoding="utf-8")
    spec_path = folder / "bundle" / "spec.json"
    spec = json.loads(spec_path.read_text())
    spec |= {"name": name or spec["name"], "serving": spec["serving"] | (serving or {})}
    spec_path.write_text(json.dumps(spec), encoding="utf-8")
    if engine_mark:
        mark_graph(folder / "engine", engine_mark)
    identity = bundle_id(folder / "bundle")
    Manifest.seal(folder / "bundle", kind="bundle", name=spec["name"], bundle=identity)
    measured = chosen.engine.manifest.measured
    Manifest.seal(folder / "engine", kind="engine", name=spec["name"], bundle=identity, measured=measured)
    bundle = Bundle.open(folder / "bundle")
    return Classifier(bundle, Engine.open(folder / "engine", bundle=bundle))


def mark_graph(engine: Path, mark: str) -> None:
    """The same network as another file, as another training would have made it."""
    import onnx

    from slipway.contract.files import sha256_file

    model = onnx.load(engine / "model.onnx")
    model.doc_string = mark
    onnx.save(model, engine / "model.onnx")
    settings = json.loads((engine / "engine.json").read_text())
    settings["graph_sha256"] = sha256_file(engine / "model.onnx")
    (engine / "engine.json").write_text(json.dumps(settings), encoding="utf-8")


def proportional_mib(server: int) -> float:
    """Memory of the server and its stubs, pages that several share counted once in all (PSS)."""
    root = psutil.Process(server)
    return sum(process.memory_full_info().pss for process in [root, *root.children(recursive=True)]) / 2**20


def by_step_mib(server: int) -> dict[str, float]:
    """Mean PSS of a stub, by the kind of its step."""
    sizes: dict[str, list[float]] = {}
    for pid, step in stubs(server).items():
        sizes.setdefault(step.split("_")[0], []).append(psutil.Process(pid).memory_full_info().pss / 2**20)
    return {kind: float(np.mean(values)) for kind, values in sizes.items()}
