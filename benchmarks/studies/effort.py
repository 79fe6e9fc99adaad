"""How much efficiency.py and peers/compare.py ask: the options that they share, and what they come to."""

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """How much is asked."""

    rounds: int
    requests: int
    """Requests of a block; a tenth more warm the server up."""
    search_rounds: int
    """After a pilot, to tell which of some candidates is best; with half the requests."""
    start_per_s: float
    """Where the pilots begin."""
    limit_ms: float
    """On P99."""
    seed: int


def add_effort(parser: argparse.ArgumentParser, *, rounds: int, search_rounds: int) -> None:
    """The options of `effort_of`; `rounds` and `search_rounds` are what is usual."""
    add = parser.add_argument
    parser.set_defaults(usual_rounds=rounds, search_rounds=search_rounds)
    add("--limit-ms", type=float, default=50.0, help="on P99 (%(default)g); under 1000, the deadline")
    add("--quick", action="store_true", help="2 rounds of 200 requests, to see whether something changed much")
    add("--rounds", type=int, metavar="N", help=f"after a pilot that is not counted (default: {rounds})")
    add("--requests", type=int, metavar="N", help="of a block, and a tenth more to warm up (default: 300)")
    add("--start", type=float, default=60.0, metavar="PER_S", help="where the pilots begin (%(default)g)")
    add("--seed", type=int, default=0, help="of arrivals and order of images (%(default)s)")


def effort_of(arguments: argparse.Namespace) -> Effort:
    quick = arguments.quick
    return Effort(
        rounds=arguments.rounds or (2 if quick else arguments.usual_rounds),
        requests=arguments.requests or (200 if quick else 300),
        search_rounds=1 if quick else arguments.search_rounds,
        start_per_s=arguments.start,
        limit_ms=arguments.limit_ms,
        seed=arguments.seed,
    )
