#!/usr/bin/env python3
"""Measure the memory that the server of a classifier takes by default, relative to `layout: steps`."""

import argparse
import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.studies.study import finish, provenance, study_parser

if TYPE_CHECKING:
    from benchmarks.studies.memory.result import Memory, MemoryResult
    from slipway.contract.evidence.studies import Share

AUTO, STEPS, FORMER = "auto", "steps", "former"
SMALL, LARGE = "images", "photographs"
FIGURES = ("total_mib", "held_mib", "peaks_mib")
IMAGES, PHOTOGRAPHS, TIMES, AT_ONCE = 250, 6, 4, 8
DEADLINE_S = 60.0
TARGET = 0.6
LIBRARIES = ("nvidia-dali-cuda130", "nvidia-pytriton", "openvino", "tritonclient")
EPILOG = """examples:
  make demo                                                                             makes the classifier
  python -m benchmarks.studies.memory --out benchmarks/results/memory.json           4 minutes on two cores
  python -m benchmarks.studies.memory --former CHECKOUT    with an earlier revision's server, after `make demo` there

Each round starts every server in turn, asks for 250 images, eight at a time, and for photographs of 12 million pixels,
and reads what its processes take after each. It counts page frames, so other work on the machine changes nothing, and
the study has to run as root."""


def main(arguments: argparse.Namespace) -> None:
    from benchmarks.studies.former import commit_of
    from benchmarks.studies.memory.result import MemoryResult
    from benchmarks.studies.resize.photographs import jpeg, pictures
    from slipway.benchmark.gate import load_images

    origin = provenance(LIBRARIES)
    small = load_images(arguments.images, seed=arguments.seed)
    large = [jpeg(shown) for shown in islice(pictures((4000, 3000), seed=arguments.seed), PHOTOGRAPHS)]
    sent = {SMALL: [small[number % len(small)] for number in range(IMAGES)], LARGE: large * TIMES}
    with tempfile.TemporaryDirectory(prefix="slipway-memory-") as folder:
        repositories, name = assembled(arguments, Path(folder))
        serving = {side: how(repository, name) for side, repository in repositories.items()}
        if arguments.former:
            repositories[FORMER] = arguments.former / "model_repository/cpu"
            serving[FORMER] = f"the default of {commit_of(arguments.former)}"
        memory: dict[str, dict[str, list[Memory]]] = {side: {kind: [] for kind in sent} for side in repositories}
        for number in range(arguments.rounds):
            for side, repository in repositories.items():
                former = arguments.former if side == FORMER else None
                for kind, taken in served(repository, name, sent, Path(folder), former=former):
                    memory[side][kind].append(taken)
                    print(f"round {number + 1}, {side}, {kind}: {taken.total_mib:.0f} MiB", flush=True)
    result = MemoryResult(
        **origin,
        seed=arguments.seed,
        images=IMAGES,
        photographs=len(sent[LARGE]),
        target=TARGET,
        serving=serving,
        memory={side: {kind: tuple(of) for kind, of in kinds.items()} for side, kinds in memory.items()},
        ratios={side: ratios(memory[AUTO], to=memory[side]) for side in memory if side != AUTO},
    )
    print("\n".join(summary(result)), flush=True)
    finish(result, arguments)


def assembled(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Path], str]:
    """Assemble the repository of each side; returns them and the name of the classifier."""
    from slipway.contract import Bundle
    from slipway.contract.serving import INSTANCES
    from slipway.repository import assemble, pick_engines

    chosen = pick_engines(Bundle.open(arguments.run / "bundle"), arguments.run / "engines", lane="cpu")
    found = {}
    for side, change in ((AUTO, {"instances": None}), (STEPS, {"instances": INSTANCES})):
        settings = chosen.serving.model_copy(update={"layout": side, **change})
        found[side] = folder / side
        assemble([replace(chosen, settings=settings)], found[side])
    return found, chosen.name


def how(repository: Path, name: str) -> str:
    from slipway.contract import Lane

    serving = Lane.read(repository / "lane.json").serving
    assert serving is not None, "a repository of the cpu lane says how its classifiers run"
    return str(serving[name])


def served(
    repository: Path, name: str, sent: dict[str, list[bytes]], folder: Path, *, former: Path | None
) -> "Iterator[tuple[str, Memory]]":
    """Measure the memory of a new server after each kind of image; `former` is the checkout whose code serves."""
    from benchmarks.studies.former import served_formerly
    from benchmarks.studies.memory.measure import memory_of
    from slipway.serving import Ports, serve

    log = folder / "server.log"
    with ExitStack() as stack:
        if former:
            before = stack.enter_context(served_formerly(former, repository, log=log))
            url, pid = before.grpc_url, before.pid
        else:
            server = stack.enter_context(serve(repository, ports=Ports.free(), log=log))
            url, pid = server.grpc_url, server.process.pid
        for kind, images in sent.items():
            asyncio.run(ask_all(url, name, images))
            yield kind, memory_of(pid)


async def ask_all(url: str, name: str, images: Sequence[bytes]) -> None:
    """Ask for every image. Raises GateError: an image was not answered."""
    from slipway.benchmark.server import TritonConnection
    from slipway.contract import GateError

    async with TritonConnection(url, model=name, images=images) as connection:
        for first in range(0, len(images), AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, len(images)))
            for problem in await asyncio.gather(*(connection.ask(one, deadline_s=DEADLINE_S) for one in numbers)):
                if problem:
                    raise GateError(f"{name} at {url}: an image was not answered: {problem}")


def ratios(ours: "dict[str, list[Memory]]", *, to: "dict[str, list[Memory]]") -> "dict[str, dict[str, Share]]":
    """Return the mean, least and most of the rounds, by kind of image and figure."""
    from slipway.contract.evidence.studies import Share

    def share(kind: str, figure: str) -> Share:
        found = [getattr(one, figure) / getattr(other, figure) for one, other in zip(ours[kind], to[kind], strict=True)]
        return Share(mean=sum(found) / len(found), least=min(found), most=max(found))

    return {kind: {figure: share(kind, figure) for figure in FIGURES} for kind in ours}


def summary(result: "MemoryResult") -> Iterator[str]:
    for side, kinds in result.memory.items():
        yield f"{side}: {result.serving[side]}"
        for kind, rounds in kinds.items():
            means = {figure: sum(getattr(one, figure) for one in rounds) / len(rounds) for figure in FIGURES}
            total, held, peaks = means.values()
            line = f"  after {kind:11} {total:.0f} MiB, without files {held:.0f}, sum of peaks {peaks:.0f}"
            if side in result.ratios:
                line += "; default " + ", ".join(f"{share.mean:.2f}" for share in result.ratios[side][kind].values())
            yield line
    yield f"target: {result.target} of steps"


def parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, epilog=EPILOG, keys=("ratios",))
    add = parser.add_argument
    runs = Path("runs/digits")
    add("--run", type=Path, default=runs, metavar="RUN", help="a folder with bundle/ and engines/")
    add("--images", type=Path, default=runs / "data", metavar="FOLDER", help="image files below it")
    add("--former", type=Path, metavar="CHECKOUT", help="an earlier revision, whose demo's server is measured too")
    add("--rounds", type=int, default=5, metavar="N", help="starts of each server")
    add("--seed", type=int, default=0, help="seed of the order of the images and of the noise")
    return parser


if __name__ == "__main__":
    from slipway.system.process import run

    run(main, parser())
