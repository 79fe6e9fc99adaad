"""The sides of the study: a pool of workers, and Triton in several ways, all asked alike and on equal terms."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.climbing import SETTLE_S
from benchmarks.studies.former import FormerServer, assemble_formerly, served_formerly
from slipway.benchmark.figures import step_time
from slipway.benchmark.pool import Pool, PoolConnection, Work, WorkerAnswer
from slipway.benchmark.processes import give_way, snapshot
from slipway.benchmark.server import HttpConnection, TritonConnection
from slipway.contract import GateError
from slipway.contract.serving import CpuServing, Serving
from slipway.repository import Classifier
from slipway.repository.contents import contents
from slipway.repository.plan import plan
from slipway.serving import Ports, Server, serve

POOL, AUTO, PLAIN, FORMER = "pool", "fused", "steps_default", "former_default"
"""`AUTO` is what `serving.layout: auto` chooses for one classifier, `PLAIN` what `layout: steps` alone means, and
`FORMER` the default of an earlier revision, by its own code."""
HALVED = ("steps", "shared_decode")
"""Layouts in which half of the processes decode, and half run the engine."""
PLAIN_SERVING = {"layout": "steps", "threads": 1, "instances": 2, "pinned": False, "preferred_batch_size": 0}
Parts = dict[str, float]
"""Milliseconds of one image: `client` is the whole as the client sees it, the others are parts of it."""
Spent = dict[str, float]
"""Milliseconds of processor time of one image: in all processes of the `server`, and in the `client`."""


@dataclass(frozen=True)
class Side:
    """A classifier of images that lets the client go first."""

    connect: Callable[[], PoolConnection | TritonConnection]
    pid: int
    """Process id of its first process; the others descend from it."""

    async def parts(self, images: Sequence[int]) -> tuple[Parts, Spent]:
        """Return the mean of each part over `images`, asked one by one."""
        async with self.connect() as connection:
            await connection.ask(0, deadline_s=SETTLE_S)
            if isinstance(connection, PoolConnection):
                return await pool_parts(connection, images, self.pid)
            return await served_parts(connection, images, self.pid)


@contextmanager
def all_sides(
    classifier: Classifier,
    images: Sequence[bytes],
    serving: Serving,
    work: Path,
    *,
    batches: Sequence[int],
    former: Path | None,
) -> Iterator[dict[str, dict[str, Side]]]:
    """Start and warm up the pool and each side of Triton, one for each size of batch. The pool has `instances` as
    workers.

    The servers are not supervised, since a supervisor's probe, an image a second, would disturb every side.
    """
    workers = CpuServing.of(serving).instances
    with ExitStack() as stack:
        sides: dict[str, dict[str, Side]] = {kind: {} for kind in (POOL, *HALVED, AUTO, PLAIN)}

        def add(kind: str, name: str, settings: dict[str, Any]) -> None:
            served = replace(classifier, settings=serving.model_copy(update=settings))
            sides[kind][name] = serve_alone(stack, served, images, work / f"{kind}-{name.replace(' ', '-')}")

        for size in batches:
            name, batched = f"batches up to {size}", {"preferred_batch_size": size}
            pool = Pool(work_of(classifier, images, serving.model_copy(update=batched)), workers=workers)
            stack.enter_context(pool)
            give_way(pool.pid)
            sides[POOL][name] = Side(pool.connect, pool.pid)
            half = max(1, workers // 2)
            for kind in HALVED:
                add(kind, name, {**batched, "layout": kind, "instances": half, "preprocess_instances": half})
            add(AUTO, name, {**batched, "layout": AUTO})
        largest = f"batches up to {serving.max_batch_size}"
        add(PLAIN, largest, {**PLAIN_SERVING, "preprocess_instances": 2})
        if former:
            repository = assemble_formerly(former, classifier.name, work)
            server = stack.enter_context(served_formerly(former, repository, log=work / "former.log"))
            sides[FORMER] = {largest: side_of(server, server.pid, classifier.name, images)}
        yield sides


def serve_alone(stack: ExitStack, classifier: Classifier, images: Sequence[bytes], folder: Path) -> Side:
    """Start a server of `classifier` alone, from a repository in `folder`."""
    # Not by `assemble`, which takes only what passed an accuracy gate: random weights have no accuracy.
    plan(contents([classifier], lane="cpu", multi={}), folder).write()
    server = stack.enter_context(serve(folder, ports=Ports.free(), log=folder.with_suffix(".log")))
    return side_of(server, server.process.pid, classifier.name, images)


def side_of(server: Server | FormerServer, pid: int, model: str, images: Sequence[bytes]) -> Side:
    give_way(pid)
    connect = partial(HttpConnection, server.grpc_url, http_url=server.http_url, model=model, images=images)
    return Side(connect, pid)


def work_of(classifier: Classifier, images: Sequence[bytes], serving: Serving) -> Work:
    """Return the work of a pool's process, which runs the steps with the threads and the batch of a settled
    `serving`."""
    cpu = CpuServing.of(serving)
    return Work(
        images=images,
        preprocess=classifier.bundle.preprocess.model_dump(),
        graph=classifier.engine.path / "model.onnx",
        arithmetic=classifier.engine.settings.arithmetic,
        decision=classifier.engine.decision.model_dump(),
        labels=classifier.bundle.labels,
        threads=cpu.threads,
        pinned=cpu.pinned,
        max_batch=cpu.preferred_batch_size or serving.max_batch_size,
    )


@contextmanager
def processor_time(pid: int, *, images: int) -> Iterator[Spent]:
    """Measure the processor time for each of `images` in the block, of the processes from `pid` down and of this
    one."""
    spent: Spent = {}
    before, client_s = snapshot(pid), time.process_time()
    yield spent
    spent["client"] = 1000 * (time.process_time() - client_s) / images  # before the snapshot, which takes time too
    spent["server"] = 1000 * (sum(snapshot(pid).cpu_s.values()) - sum(before.cpu_s.values())) / images


async def pool_parts(connection: PoolConnection, images: Sequence[int], pid: int) -> tuple[Parts, Spent]:
    answers, client_ms = [], []
    with processor_time(pid, images=len(images)) as spent:
        for image in images:
            started_s = time.perf_counter()
            answer = await connection.answer(image, deadline_s=SETTLE_S)
            client_ms.append((time.perf_counter() - started_s) * 1000)
            if not isinstance(answer, WorkerAnswer):
                raise GateError(f"the pool, image {image}: {answer}")
            answers.append((answer.preprocess_ms, answer.engine_ms, answer.post_ms))
    steps = zip(("preprocess", "engine", "post"), np.mean(answers, axis=0).tolist(), strict=True)
    return {"client": float(np.mean(client_ms)), **{f"{step} infer": step_ms for step, step_ms in steps}}, spent


async def served_parts(server: TritonConnection, images: Sequence[int], pid: int) -> tuple[Parts, Spent]:
    models, before = await server.steps(), await server.counters()
    with processor_time(pid, images=len(images)) as spent:
        started_s = time.perf_counter()
        for image in images:
            problem = await server.ask(image, deadline_s=SETTLE_S)
            if problem:
                raise GateError(f"{server.model} at {server.url}, image {image}: {problem}")
        parts = {"client": (time.perf_counter() - started_s) * 1000 / len(images)}
    after = await server.counters()
    for model in models:
        step, kind = step_time(model, before[model], after[model]), model.split("_")[0]
        times_us = (step.queue_us, step.compute_input_us, step.compute_infer_us, step.compute_output_us)
        names = ("queue", "input", "infer", "output")
        parts |= {f"{kind} {name}": time_us / 1000 for name, time_us in zip(names, times_us, strict=True)}
    return parts, spent
