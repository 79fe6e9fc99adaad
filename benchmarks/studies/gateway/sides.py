"""Asks one server directly, through the gateway, and through gateways without some of its parts, in turns."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.studies.climbing import P99, Bench, Connect, blocks_in_turns
from benchmarks.studies.effort import Effort
from benchmarks.studies.gateway.parts import all_stopped
from benchmarks.studies.gateway.result import GatewayResult
from benchmarks.studies.gateway.rows import Costs, row_of
from benchmarks.studies.robustness.launcher import launched
from slipway.benchmark.figures import rates_per_s
from slipway.benchmark.server import HttpConnection, TritonConnection
from slipway.benchmark.statistics import histogram_of
from slipway.contract.evidence.latency import rate_at
from slipway.contract.evidence.origin import Origin
from slipway.operations.gateway.new_secrets import CERTIFICATE, PRIVATE_KEY, new_key, self_signed
from slipway.operations.gateway.settings import KEY_HEADER
from slipway.serving import Ports
from slipway.system.yaml_json import dump_yaml

TAP_SHARE = 0.05
"""Share of the requests through the gateway that are tapped for the journal. No collector empties the spool."""
MEMORY = Path("/dev/shm")
"""A tmpfs for the spool, as docs/journal.md advises."""
SEARCHED = 300
"""Most requests of a block of the search, which only sets the rate; it is halved there."""


@dataclass(frozen=True)
class Asked:
    """The sides that are asked, and the rate."""

    model: str
    protocol: str
    """Protocol of the requests: `grpc` or `http`."""
    effort: Effort
    parts: tuple[str, ...]
    part_requests: int
    load: float
    """Share of the rate that the server holds alone."""
    rate_per_s: float | None
    """Rate to ask at; None to search for the rate that the server holds."""

    @property
    def warm_up(self) -> int:
        return min(self.effort.requests, self.part_requests if self.parts else self.effort.requests) // 10


def through_and_past(work: Path, images: Sequence[bytes], asked: Asked, *, origin: Origin) -> GatewayResult:
    """Measure the latency of both ways to one server, and of the ways without parts of the gateway."""
    with tempfile.TemporaryDirectory(prefix="slipway-gateway-", dir=MEMORY) as spools:
        return _through_and_past(work, images, asked, *written(work, Path(spools)), origin=origin)


def _through_and_past(
    work: Path, images: Sequence[bytes], asked: Asked, source: Path, address: str, *, origin: Origin
) -> GatewayResult:
    key = (work / "team.key").read_text(encoding="utf-8").strip()
    repository = work / "repository"
    with (
        launched(repository, work, options=("--gateway", source)) as server,
        all_stopped(asked.parts, source, server.ports, repository) as parts,
    ):
        ask: Callable[..., TritonConnection] = partial(TritonConnection, model=asked.model, images=images)
        direct: Connect = partial(ask, server.grpc_url)
        if asked.protocol == "http":
            ask = partial(HttpConnection, server.grpc_url, model=asked.model, images=images)
            direct = partial(ask, http_url=f"127.0.0.1:{server.ports.http}")

        def through(address: str, *, tls: bool = True) -> Callable[[], TritonConnection]:
            where = {"http_url" if asked.protocol == "http" else "url": address}
            return partial(ask, **where, certificate=work / CERTIFICATE if tls else None, headers={KEY_HEADER: key})

        sides: dict[str, Connect] = {
            "direct": direct,
            "gateway": through(address),
            **{name: through(f"localhost:{part.port}", tls=part.has_tls) for name, part in parts.items()},
        }
        held_per_s, rate_per_s = rate_of(sides["direct"], len(images), asked)
        costs = Costs(server.events("gateway_ready")[-1]["pid"], parts, asked.warm_up)
        blocks = blocks_in_turns(
            sides,
            rate_per_s,
            len(images),
            asked.effort,
            fewer=dict.fromkeys(parts, asked.part_requests),
            around=costs.of,
        )
    compared = P99.of({side: blocks[side] for side in ("direct", "gateway")})
    _, _, client_ms = costs.per_request("direct", blocks["direct"])
    return GatewayResult(
        **origin.fields(),
        **vars(asked.effort),
        backbone=asked.model,
        protocol=asked.protocol,
        client_shares_the_cores=True,
        distinct_images=len(set(images)),
        tap_share=TAP_SHARE,
        load=asked.load,
        held_per_s=held_per_s,
        rate_per_s=rate_per_s,
        achieved_per_s={side: rates_per_s(its, limit_ms=asked.effort.limit_ms)[1] for side, its in blocks.items()},
        p99_ms=compared.p99_ms,
        p99_ms_by_round=compared.p99_ms_by_round,
        gateway_to_direct=compared.ratio("gateway", to="direct"),
        failed=P99.of(blocks).failed,
        rows={side: row_of(side, blocks, costs) for side in ("gateway", *parts)},
        direct_client_ms=client_ms,
        histograms={
            side: histogram_of(np.concatenate([block.latencies_ms for block in its])).encode().decode()
            for side, its in blocks.items()
        },
    )


def written(work: Path, spools: Path) -> tuple[Path, str]:
    """Write the file of a gateway's settings, its key and certificate; returns the file and the gateway's address."""
    new_key(work / "team.key")
    self_signed(work, hosts=["localhost", "127.0.0.1"])
    own = Ports.free()
    settings = {
        "listen": f"127.0.0.1:{own.grpc}",
        "metrics_port": own.metrics,
        "tls": {"certificate": CERTIFICATE, "key": PRIVATE_KEY},
        "teams": {"team": {"key_file": "team.key", "per_second": 100_000}},
        "observe": {"share": TAP_SHARE, "per_second": 10_000, "spool": str(spools / "gateway")},
    }
    (work / "gateway.yaml").write_text(dump_yaml(settings), encoding="utf-8")
    return work / "gateway.yaml", f"localhost:{own.grpc}"


def rate_of(direct: Connect, images: int, asked: Asked) -> tuple[float | None, float]:
    """Return the rate to ask at, and the rate that the server holds alone if that was searched."""
    if asked.rate_per_s is not None:
        return None, asked.rate_per_s
    effort = replace(asked.effort, requests=min(asked.effort.requests, SEARCHED))
    _, rung = Bench(images, effort).best({"direct": direct})
    return rate_at(rung), asked.load * rate_at(rung)
