"""Measures the cost of a request on each side: latency, and the processor time of Envoy and of the client."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.studies.climbing import percentile_ms
from benchmarks.studies.gateway.parts import Stopped, lacking
from slipway.benchmark.load import Block
from slipway.contract import DataError
from slipway.contract.evidence.studies import GatewayRow


@dataclass
class Costs:
    """Adds up, side by side, the times of the processes while a side is asked."""

    whole: int
    """Process id of the gateway that is asked as `gateway`."""
    parts: Mapping[str, Stopped]
    warm_up: int
    """Requests of each block that are not counted, but take processor time too."""
    ms: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """For each side the milliseconds for which Envoy ran, and waited for a core, and for which the client ran."""

    @contextmanager
    def of(self, side: str) -> Iterator[None]:
        """Run the Envoy of this side, and add up what it and the client take."""
        part = self.parts.get(side)
        before = self._now(side)
        if part is None:
            yield
        else:
            with part.running():
                yield
        spent = [after - earlier for after, earlier in zip(self._now(side), before, strict=True)]
        ran, waited, client = self.ms.get(side, (0.0, 0.0, 0.0))
        self.ms[side] = (ran + spent[0], waited + spent[1], client + spent[2])

    def per_request(self, side: str, blocks: Sequence[Block]) -> tuple[float, float, float]:
        """Return the milliseconds of a side for each request. Each of its blocks begins with a request that
        connects."""
        asked = sum(1 + self.warm_up + block.latencies_ms.size for block in blocks)
        ran, waited, client = self.ms[side]
        return ran / asked, waited / asked, client / asked

    def _now(self, side: str) -> tuple[float, float, float]:
        part = self.parts.get(side)
        pid = part.pid if part is not None else self.whole if side == "gateway" else None
        ran, waited = scheduled_ms(pid) if pid is not None else (0.0, 0.0)
        return ran, waited, 1000 * time.process_time()


def scheduled_ms(pid: int) -> tuple[float, float]:
    """Read how long the threads of a process ran, and how long they could have run but had no core.

    Raises:
        DataError: the kernel does not count this.
    """
    ran_ns = waited_ns = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            ran, waited, _ = (thread / "schedstat").read_text(encoding="ascii").split()
        except OSError:
            raise DataError(
                "the kernel does not count how long threads wait: it has no /proc/<pid>/schedstat"
            ) from None
        ran_ns, waited_ns = ran_ns + int(ran), waited_ns + int(waited)
    return ran_ns / 1e6, waited_ns / 1e6


def row_of(side: str, blocks: Mapping[str, Sequence[Block]], costs: Costs) -> GatewayRow:
    """Return the row of a side, compared with the same arrivals of the side `direct`."""
    own, direct = blocks[side], blocks["direct"]
    first = own[0].latencies_ms.size
    ran, waited, client = costs.per_request(side, own)
    p50_ms, p99_ms = (percentile_ms(own, percent) for percent in (50, 99))
    return GatewayRow(
        without=lacking(side),
        requests=sum(block.latencies_ms.size for block in own),
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        p50_to_direct=p50_ms / percentile_ms(direct, 50, first=first),
        p99_to_direct=p99_ms / percentile_ms(direct, 99, first=first),
        p99_to_direct_by_round=tuple(
            percentile_ms([a], 99) / percentile_ms([b], 99, first=first) for a, b in zip(own, direct, strict=True)
        ),
        envoy_ms=ran,
        envoy_waited_ms=waited,
        client_ms=client,
    )
