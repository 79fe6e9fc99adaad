"""The number of requests and rounds of a study that compares rates, and the options that set it."""

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """The size of a study."""

    rounds: int
    requests: int
    """Counted requests per block; a tenth more come first as a warm-up."""
    search_rounds: int
    """Rounds that pick the best of several candidates, after a pilot; their blocks have half the requests."""
    start_per_s: float
    """Rate at which the pilots begin, in requests per second."""
    limit_ms: float
    """Limit on P99 latency, in milliseconds."""
    seed: int


def add_effort(parser: argparse.ArgumentParser, *, rounds: int, search_rounds: int) -> None:
    """Add the options that `effort_of` reads; `rounds` and `search_rounds` are the study's defaults."""
    add = parser.add_argument
    parser.set_defaults(usual_rounds=rounds, search_rounds=search_rounds)
    add(
        "--limit-ms",
        type=float,
        default=50.0,
        help="limit on P99; it must be under 1000, the deadline of a request",
    )
    add("--quick", action="store_true", help="measure only 2 rounds of 200 requests, to notice a large change")
    add("--rounds", type=int, metavar="N", help=f"counted rounds, after an uncounted pilot; default: {rounds}")
    add("--requests", type=int, metavar="N", help="counted requests per block; a tenth more warm up; default: 300")
    add("--start", type=float, default=60.0, metavar="PER_S", help="rate at which the pilots begin")
    add("--seed", type=int, default=0, help="seed of the arrivals and the order of the images")


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
