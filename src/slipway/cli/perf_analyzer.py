"""Load a served classifier and each of its steps with NVIDIA's perf_analyzer 2.51, on real images."""

import argparse
from pathlib import Path

from slipway.contract import SpecError
from slipway.system.json_line import print_json, verb_parser
from slipway.system.targets import file_option, write_file

EPILOG = """example:
  make perf_analyzer                                        # once: links the libraries that its wheel lacks
  slipway serve model_repository/cpu            # in another terminal
  slipway perf-analyzer digits --images runs/digits/data --concurrency 4
  slipway perf-analyzer digits --images runs/digits/data --rate 50 --out benchmarks/results/perf_analyzer.json

The ensemble gets the images, and each step gets the output of the steps before it. Each model is measured alone. The
columns "queue" to "output" are the server's own figures per request; those of an ensemble are the sums over its steps.

--concurrency is a closed loop: each client waits for its answer before it asks again. That finds the highest throughput
of the server, but not the latency that users meet; for a verdict on P99, use slipway gate. With --rate, requests leave
at Poisson times, and each is timed from the moment at which it really left.
A single failed or rejected request ends the run, since perf_analyzer does not count failures.

exit status: 0 measured; 1 not measured; 2 wrong usage"""

NOT_MEASURED = ("out", "json")


def main(arguments: argparse.Namespace) -> None:
    from slipway.benchmark.perf_analyzer import run_perf_analyzer  # not at the top: --help needs no library
    from slipway.benchmark.perf_analyzer_result import table
    from slipway.contract.evidence.latency import PerfAnalyzerOptions

    values = {name: value for name, value in vars(arguments).items() if name not in NOT_MEASURED}
    try:
        options = PerfAnalyzerOptions.parse(values, source="the options given")
    except SpecError as error:
        parser().error(str(error))
    result = run_perf_analyzer(options)
    print(table(result))
    if arguments.out:
        write_file(arguments.out, result.to_json())
        print(f"written to {arguments.out}")
    print_json(arguments, result.model_dump(mode="json"))


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    add = parser.add_argument
    add("model", metavar="MODEL", help="the ensemble: the classifier's name")
    add("--images", type=Path, required=True, metavar="FOLDER", help="folder of images to send, searched recursively")
    load = parser.add_mutually_exclusive_group(required=True)
    load.add_argument("--concurrency", type=int, metavar="N", help="requests always under way: a closed loop")
    load.add_argument("--rate", type=float, dest="rate_per_s", metavar="PER_S", help="Poisson arrivals per second")
    add("--url", default="127.0.0.1:8001", help="host:port of Triton's gRPC")
    add("--duration-s", type=float, default=6.0, metavar="S", help="seconds to measure each model")
    add(
        "--warm-up-s",
        type=float,
        default=1.0,
        metavar="S",
        help="uncounted seconds of warm-up before that",
    )
    add("--distinct-images", type=int, default=64, metavar="N", help="largest number of images to use")
    add("--seed", type=int, default=0, help="seed of the choice of images")
    add(
        "--out",
        type=file_option(("histogram",), what="a result of slipway perf-analyzer"),
        metavar="FILE",
        help="file for the whole result, raw histograms included",
    )
    return parser
