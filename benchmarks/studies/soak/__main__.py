#!/usr/bin/env python3
"""Send a server many damaged images among good ones, and check that no answer is lost and no process grows.

Every request holds one to six seeded damaged images (tests/support/mutations.py) and up to two good ones in any order,
over gRPC and HTTP at once. A good image must be answered as it was when it was asked alone, a damaged one by a known
STATUS, no request may fail, and after the first tenth of the images no process may grow by more than 5 %.
"""

import argparse
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import local
from typing import Any

from benchmarks.studies.soak.requests import Asker, ImageAnswer, Request, corpus, make_requests, taken
from benchmarks.studies.soak.result import Memory, Options, Repository, Sample, SoakResult
from benchmarks.studies.study import ROOT, finish, provenance, study_parser
from slipway.system.process import run

LIBRARIES = (
    "cykooz-resizer",
    "nvidia-nvimgcodec-cu13",
    "nvidia-pytriton",
    "openvino",
    "pillow",
    "psutil",
    "tritonclient",
)
RESULT, EXAMPLE = ROOT / "benchmarks/results/soak.json", ROOT / "model_repository/example"

MAX_GROWTH, WARM_UP, SAMPLES = 0.05, 0.1, 50
MAX_FAILURES = 10  # after so many failures the rest is not sent
KNOWN_STATUS = frozenset(range(5))  # statuses of an image; 5 is a fault of the server
EPILOG = """example:
  python -m benchmarks.studies.soak          200,000 damaged images against model_repository/example (make study-soak)
  python -m benchmarks.studies.soak model_repository/cpu --images 20000 --out /tmp/soak.json

exit status: 0 pass; 1 fail, or no server"""


@dataclass
class Found:
    """Answers by status."""

    status: Counter[int] = field(default_factory=Counter)
    """Number of answers to damaged images, by STATUS."""
    good_answers: int = 0
    failures: list[str] = field(default_factory=list)
    series: list[Sample] = field(default_factory=list)
    """Memory after each part of the images, when the server is idle."""


def main(arguments: argparse.Namespace) -> int:
    from slipway.serving import Ports, serve
    from slipway.system.files import sha256_file  # not at the top: --help needs no library

    origin = provenance(LIBRARIES)
    good, files, largest = corpus(arguments.seed)
    with serve(arguments.repository, ports=Ports.free(), log=arguments.log) as server:
        model = next(iter(server.lane.classifiers))
        asker = Asker(server, "grpc", timeout_s=arguments.timeout_s)
        expected = [asker.ask(model, [image])[0] for image in good]
        for image in largest:  # the allocator keeps the memory of the largest image so far
            asker.ask(model, [image])
        requests = make_requests(good, files, images=arguments.images, seed=arguments.seed)
        found = soak(server, model, requests, expected, arguments)
    reasons = judged(found, expected)
    result = SoakResult(
        verdict="fail" if reasons else "pass",
        reasons=tuple(reasons),
        options=Options(images=arguments.images, seed=arguments.seed, concurrency=arguments.concurrency),
        good_answers=found.good_answers,
        damaged_by_status=dict(sorted(found.status.items())),
        series=tuple(found.series),
        repository=Repository(
            name=arguments.repository.name, manifest_sha256=sha256_file(arguments.repository / "manifest.json")
        ),
        **origin,
    )
    print(summary(result))
    finish(result, arguments)
    return 1 if reasons else 0


def soak(
    server: Any, model: str, requests: Iterator[Request], expected: Sequence[ImageAnswer], arguments: argparse.Namespace
) -> Found:
    """Send every request, `concurrency` at a time, and look at the server's memory in between."""
    from tqdm import tqdm

    found, mine, sent, started = Found(), local(), 0, time.monotonic()
    protocols = iter(["grpc", "http"] * arguments.concurrency)

    def send(request: Request) -> list[ImageAnswer] | str:
        if not hasattr(mine, "asker"):
            mine.asker = Asker(server, next(protocols), timeout_s=arguments.timeout_s)
        asker: Asker = mine.asker
        try:
            return asker.ask(model, request.images)
        except Exception as error:  # any error counts: no request may end this way
            return f"{asker.protocol}, {type(error).__name__}: {str(error)[:200]}"

    with (
        ThreadPoolExecutor(arguments.concurrency) as pool,
        tqdm(total=arguments.images, desc="soak", unit=" images", mininterval=0.5, disable=None) as bar,
    ):
        while len(found.failures) < MAX_FAILURES and (
            part := list(taken(requests, images=-(-arguments.images // SAMPLES)))
        ):
            for request, answers in zip(part, pool.map(send, part), strict=True):
                compare(found, request, answers, expected)
                sent += request.damaged
                bar.update(request.damaged)
            seconds = round(time.monotonic() - started, 1)
            found.series.append(Sample(images=sent, seconds=seconds, **memory(server).fields()))
    return found


def compare(found: Found, request: Request, answers: list[ImageAnswer] | str, expected: Sequence[ImageAnswer]) -> None:
    """Check every image of one request; a good one must have the answer that it got alone."""
    if isinstance(answers, str) or len(answers) != len(request.images):
        found.failures.append(f"request {request.number} of {len(request.images)} images: {answers}")
        return
    for place, answer in enumerate(answers):
        number = request.good.get(place)
        if number is None:
            found.status[answer.status] += 1
            if answer.status and not answer.blank:
                found.failures.append(f"refused, and answered all the same: {answer}")
        else:
            found.good_answers += 1
            if not answer.same_as(expected[number]):
                found.failures.append(f"good image {number}: {answer}, and alone {expected[number]}")


def memory(server: Any) -> Memory:
    import psutil

    rss_mib, regions = {}, set()
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(server.process.pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # the process ended, which is a reason not to pass
                regions |= {part.path for part in process.memory_maps() if part.path.startswith("/dev/shm/")}
                rss_mib[name_of(process)] = round(process.memory_info().rss / 2**20, 2)
    shared = sum(region.stat().st_size for region in map(Path, regions) if region.exists())
    return Memory(rss_mib=rss_mib, shared_mib=round(shared / 2**20, 2))


def name_of(process: Any) -> str:
    """Name a process by the instance of a step that a stub runs, else by its program; and by its pid, so that a new
    process is seen."""
    step = re.search(r"(guard|preprocess|engine|post|answer|fused)_[0-9a-f]{12}\w*", " ".join(process.cmdline()[2:]))
    return f"{step[0] if step else process.name()} {process.pid}"


def judged(found: Found, expected: Sequence[ImageAnswer]) -> list[str]:
    """Return the reason against a pass; empty if the run passes."""
    reasons = [f"{len(found.failures)} failures; the first: {found.failures[0]}"] if found.failures else []
    if unknown := sorted(set(found.status) - KNOWN_STATUS):
        reasons.append(f"damaged images with STATUS {unknown}; allowed are {sorted(KNOWN_STATUS)}")
    if any(answer.status for answer in expected) or len({answer.labels[0] for answer in expected}) < 2:
        reasons.append("the good images are refused or all answered alike when asked alone: nothing can be compared")
    start, *later = found.series[int(len(found.series) * WARM_UP) :]
    for sample in later:
        if sample.rss_mib.keys() != start.rss_mib.keys():
            return [*reasons, f"the processes changed: {sorted(start.rss_mib)} became {sorted(sample.rss_mib)}"]
    for name, before in start.rss_mib.items():
        largest = max((sample.rss_mib[name] for sample in later), default=before)
        if largest > before * (1 + MAX_GROWTH):
            reasons.append(f"{name} grew from {before} MiB after the first tenth to {largest}")
    if (end := found.series[-1].shared_mib) != start.shared_mib:
        reasons.append(f"shared memory went from {start.shared_mib} to {end} MiB")
    return reasons


def summary(result: SoakResult) -> str:
    start, end = result.series[int(len(result.series) * WARM_UP)], result.series[-1]
    memory = (f"  {name}: {mib} → {end.rss_mib.get(name, 'gone')} MiB" for name, mib in start.rss_mib.items())
    lines = [
        f"{end.images:,} damaged and {result.good_answers:,} good images in {end.seconds:.0f} s",
        f"damaged by STATUS: {result.damaged_by_status}",
        "memory after the first tenth, and at the end:",
        *memory,
        f"  shared: {start.shared_mib} → {end.shared_mib} MiB",
        f"{result.verdict.upper()} {'; '.join(result.reasons)}",
    ]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, epilog=EPILOG, keys=("damaged_by_status",), result=RESULT)
    add = parser.add_argument
    add(
        "repository",
        type=Path,
        nargs="?",
        default=EXAMPLE,
        help="repository of the cpu lane; default: model_repository/example",
    )
    add("--images", type=int, default=200_000, metavar="N", help="damaged ones; good ones come on top")
    add("--concurrency", type=int, default=4, metavar="N", help="requests at a time")
    add("--timeout-s", type=float, default=60.0, help="seconds after which a request counts as lost")
    add("--seed", type=int, default=0, help="seed of the images, the damage and the requests")
    add("--log", type=Path, metavar="FILE", help="keep the server's own log")
    return parser


if __name__ == "__main__":
    run(main, parser())
