"""Measure the latency of a served classifier under an open-loop Poisson load, and judge its P99."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.contract import SpecError
from slipway.system.json_line import print_json, verb_parser
from slipway.system.targets import file_option, write_file

if TYPE_CHECKING:
    from slipway.benchmark import CapacityResult, GateOptions, LatencyResult

EPILOG = """examples:
  slipway serve model_repository/cpu            # in another terminal
  slipway gate digits --images runs/digits/data --rate 50 --limit-ms 50
  slipway gate digits --images runs/digits/data --find-capacity --out capacity.json

Requests follow a seeded Poisson schedule, whether or not the server keeps up, and each is timed from the moment when it
was due: a stall counts for every request that it delayed. Failures count as over the limit.
The schedule is divided among processes with one connection each. Their lateness is printed. If its P99 exceeds a tenth
of the limit, the verdict is "generator late", since the figures then describe the client as much as the server.
The verdict (MLPerf early stopping, at several looks) is "pass" as soon as P99 is shown to be within the limit with 99 %
confidence, and "fail" as soon as it is shown to exceed it or the server does not keep up. Until then the gate goes on,
for at most --minutes or as long as the first blocks take; it says so before it starts. After that it is "fail" if the
measured P99 exceeds the limit, and otherwise "too few requests to tell". Its error rate: python -m
benchmarks.studies.verdict. More: docs/benchmarks.md.

exit status: 0 pass (with --find-capacity: confirmed); 1 fail, or nothing could be measured; 2 wrong usage; 3 too few
requests to tell; 4 generator late"""

EXIT_CODES = {"pass": 0, "fail": 1, "too few requests to tell": 3, "generator late": 4}
NOT_OPTIONS = ("find_capacity", "out", "json")


def main(arguments: argparse.Namespace) -> int:
    from slipway.benchmark import GateOptions  # not at the top: --help needs no library

    values = {name: value for name, value in vars(arguments).items() if name not in NOT_OPTIONS}
    try:
        options = GateOptions.parse(values, source="the options given")
    except SpecError as error:
        parser().error(str(error))
    result = capacity(options) if arguments.find_capacity else gate(options)
    if arguments.out:
        write_file(arguments.out, result.to_json())
        print(f"written to {arguments.out}")
    print_json(arguments, result.model_dump(mode="json"))
    return EXIT_CODES[result.verdict]


def gate(options: "GateOptions") -> "LatencyResult":
    from slipway.benchmark import run_gate, summary

    print(f"{options.model} at {options.url}: {duration(options)}", flush=True)
    result = run_gate(options)
    print(summary(result))
    return result


def duration(options: "GateOptions") -> str:
    """Return a sentence on how long the gate will take, and the reason if that is longer than requested."""
    from slipway.benchmark.statistics import MIN_REQUESTS

    asked_s, rate = 60 * options.minutes, f"{options.rate_per_s:g} requests/s"
    blocks = (
        f"{options.blocks} blocks of {options.requests_per_block:,} requests, and {options.warm_up_requests:,} before "
        f"each to warm up"
    )
    if asked_s >= options.least_s:
        return f"{rate} for about {options.least_s:.0f} s ({blocks}), or up to {asked_s:.0f} s for a verdict"
    text = f"{rate} for {options.least_s:.0f} s, longer than the {asked_s:.0f} s of --minutes: it takes {blocks}"
    fitting = int(asked_s * options.rate_per_s) // options.blocks - options.warm_up_requests
    enough = fitting * options.blocks >= MIN_REQUESTS
    return f"{text}; --requests-per-block {fitting} would fit" if enough else f"{text}; a higher --rate is faster"


def capacity(options: "GateOptions") -> "CapacityResult":
    from slipway.benchmark import capacity_summary, find_capacity, rung_line

    print(f"{options.model} at {options.url}: the highest rate with P99 within {options.limit_ms:g} ms; some minutes")
    result = find_capacity(options, on_rung=lambda rung: print(rung_line(rung), flush=True))
    print(capacity_summary(result))
    return result


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    add = parser.add_argument
    add("model", metavar="MODEL", help="the ensemble to ask: the classifier's name")
    add("--images", type=Path, required=True, metavar="FOLDER", help="folder of images to send, searched recursively")
    add("--url", default="127.0.0.1:8001", help="host:port of Triton's gRPC")
    add("--rate", type=float, default=50.0, dest="rate_per_s", metavar="PER_S", help="requests per s")
    add("--limit-ms", type=float, default=50.0, help="the limit on P99")
    add("--find-capacity", action="store_true", help="search for the highest rate that passes, starting at --rate")
    add("--blocks", type=int, default=3, help="independent blocks before the first verdict; more follow")
    add(
        "--requests-per-block",
        type=int,
        default=1000,
        metavar="N",
        help="least number of counted requests per block; more of them catch rarer stalls",
    )
    add(
        "--minutes",
        type=float,
        default=5.0,
        help="longest duration without a verdict, but never less than the first --blocks take; with\n"
        "--find-capacity, of the confirmation",
    )
    add(
        "--warm-up-requests",
        type=int,
        default=100,
        metavar="N",
        help="uncounted requests before each block",
    )
    add("--deadline-ms", type=float, default=1000.0, help="time after which a request is abandoned")
    add("--generators", type=int, metavar="N", help="sending processes; default: by rate and cores, printed")
    add("--seed", type=int, default=0, help="seed of the schedules and the order of the images")
    add("--pid", type=int, dest="server_pid", help="process id of a local tritonserver, to report its CPU and memory")
    add(
        "--out",
        type=file_option(("generator", "passed_per_s"), what="a result of slipway gate"),
        metavar="FILE",
        help="file for the whole result, raw histograms included",
    )
    return parser
