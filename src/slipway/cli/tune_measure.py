"""Serves a classifier with one set of settings after the other, and judges each by the gate, for `slipway tune`."""

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

from slipway.benchmark import GateOptions, LatencyVerdict
from slipway.benchmark.gate import Subject, measure, meet
from slipway.benchmark.looks import single
from slipway.benchmark.processes import give_way
from slipway.benchmark.tuning import climb_rounds
from slipway.contract import ServingError
from slipway.contract.evidence.latency import rate_at
from slipway.contract.evidence.tuning import NotStarted, TriedRate
from slipway.contract.lane import LaneName
from slipway.contract.serving import CpuServing, Serving
from slipway.repository import Classifier, assemble
from slipway.serving import Ports, serve

SEARCH_BLOCKS = 2
"""Blocks per measurement of the search: one lucky block must not make a candidate the best."""
ROUND_NUMBERS = 10_000
"""Distance between the block numbers of two rounds; within one, both sides get the same numbers and arrivals."""


class Bench:
    """Measures one thing at a time. Use it with `with`; its servers end with the block.

    Args:
        options: the load and the limit; the URL is filled in.
        folder: an empty folder for repositories and logs.
    """

    def __init__(self, classifier: Classifier, options: GateOptions, folder: Path) -> None:
        self.evidence: list[TriedRate | NotStarted] = []
        """All measurements, in order."""
        self._classifier, self._options, self._folder = classifier, options, folder
        self._running: dict[Serving, tuple[ExitStack, GateOptions, Subject]] = {}
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._keep(0)

    def searched(self, serving: Serving, rung: int) -> bool:
        """Whether P99 stays within the limit, on arrivals that were not used before.

        A candidate whose server does not start, for want of memory for example, holds nothing; the evidence says why.

        Raises:
            ServingError: the server of the first one, the present settings, does not start.
        """
        number = SEARCH_BLOCKS * len(self.evidence)
        try:
            return self._held(serving, rung, blocks=SEARCH_BLOCKS, number=number, servers=1)
        except ServingError as error:
            if not self.evidence:
                raise
            self.evidence.append(NotStarted(serving=serving, rate_per_s=rate_at(rung), error=str(error)))
            print(f"{len(self.evidence):3}  {described(serving, self._classifier.lane):50} {error}", flush=True)
            return False

    def compared(self, sides: Mapping[str, Serving], *, rung: int, rounds: int) -> dict[str, list[int]]:
        """The highest rung of each side in each round; both servers run throughout."""

        def held(number: int, side: str, rung: int) -> bool:
            block = ROUND_NUMBERS * number + rung
            return self._held(sides[side], rung, blocks=1, number=block, servers=len(sides))

        found: dict[str, list[int]] = {side: [] for side in sides}
        for ends in climb_rounds(dict.fromkeys(sides, rung), held, rounds=rounds):
            for side, end in ends.items():
                found[side].append(end)
        return found

    def _held(self, serving: Serving, rung: int, *, blocks: int, number: int, servers: int) -> bool:
        options, subject = self._serve(serving, servers=servers)
        looks = single(blocks=blocks, requests=options.requests_per_block)
        found = measure(options, subject, rate_per_s=rate_at(rung), looks=looks, first_block=number)
        self.evidence.append(TriedRate(serving=serving, rate_per_s=rate_at(rung), **found.fields()))
        # One or two blocks can rarely prove that P99 is within the limit, but they can prove that it is not.
        held = found.verdict in (LatencyVerdict.PASS, LatencyVerdict.TOO_FEW)
        print(
            f"{len(self.evidence):3}  {described(serving, self._classifier.lane):50} {rate_at(rung):6.1f}/s  "
            f"P99 {found.latency.p99_ms:6.1f} ms  {'held' if held else found.verdict}",
            flush=True,
        )
        return held

    def _serve(self, serving: Serving, *, servers: int) -> tuple[GateOptions, Subject]:
        if serving not in self._running:
            self._keep(servers - 1)
            self._running[serving] = self._start(serving)
        return self._running[serving][1:]

    def _start(self, serving: Serving) -> tuple[ExitStack, GateOptions, Subject]:
        self._started += 1
        repository = self._folder / f"repository{self._started}"
        assemble([replace(self._classifier, settings=serving)], repository, lane=self._classifier.lane)
        with ExitStack() as stack:
            log = self._folder / f"server{self._started}.log"
            server = stack.enter_context(serve(repository, ports=Ports.free(), log=log))
            give_way(server.process.pid)
            options = self._options.model_copy(update={"url": server.grpc_url})
            return stack.pop_all(), options, asyncio.run(meet(options))

    def _keep(self, servers: int) -> None:
        """End the oldest servers until at most `servers` run."""
        while len(self._running) > servers:
            oldest = next(iter(self._running))
            self._running.pop(oldest)[0].close()


def described(serving: Serving, lane: LaneName) -> str:
    """The settings that the search may change, as one line."""
    if lane == "gpu":
        gpu = serving.gpu
        delay = f", delay {gpu.max_queue_delay_us} µs" if gpu.max_queue_delay_us else ""
        graphs = "" if gpu.cuda_graphs else ", no CUDA graphs"
        return (
            f"{gpu.engine_instances} engines, {gpu.decode_instances} decoders of {gpu.decode_threads} threads"
            f"{graphs}{delay}"
        )
    delay = f", delay {serving.max_queue_delay_us} µs" if serving.max_queue_delay_us else ""
    return f"{CpuServing.of(serving)}{delay}"
