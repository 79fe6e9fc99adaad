#!/usr/bin/env python3
"""Measure how soon and how often falsely the watch alarms at drift, and how well a few labels estimate the accuracy."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.studies.study import ROOT, provenance, simulation_parser
from benchmarks.studies.watch.accuracy import STREAMS, Estimated, estimated
from benchmarks.studies.watch.drifts import (
    LONG_REFERENCE_ROWS,
    REFERENCE_ROWS,
    ROWS_BETWEEN_FALSE_ALARMS,
    WatchedNetwork,
    watched,
)
from benchmarks.studies.watch.result import WatchResult
from slipway.system.process import run
from slipway.system.targets import write_file

RESULT = ROOT / "benchmarks/results/watch.json"
LIBRARIES = ("scipy", "scikit-learn", "scikit-image", "torch", "timm")
EPILOG = """Drift: rows of four real networks, on real images, drawn with replacement. Each run has its own reference of
1,000 rows. Accuracy: simulated streams of 5,000 rows, of which 200 or 60 get a label.

exit status: 0; 1 where a bar is missed"""


def main(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from benchmarks.studies.watch.kept import kept_populations

    asked, origin = {"runs": arguments.runs, "seed": arguments.seed}, provenance(LIBRARIES)
    shown = {"leave": False, "disable": None}
    accuracy = [estimated(stream, **asked) for stream in tqdm(STREAMS, unit=" streams", **shown)]
    print("\n".join(accuracy_table(accuracy)), flush=True)
    networks: list[WatchedNetwork] = []
    for population in kept_populations(arguments.seed, arguments.kept):
        networks.append(watched(population, **asked))
        print("\n".join(drift_table(networks[-1])), flush=True)
        result = {
            **asked,
            "reference_rows": REFERENCE_ROWS,
            "rows_between_false_alarms": ROWS_BETWEEN_FALSE_ALARMS,
            "networks": [network.plain() for network in networks],
            "accuracy": [estimate.plain() for estimate in accuracy],
            **origin,
        }
        # After each network, so that a fault in a later one costs little.
        write_file(arguments.out, WatchResult.parse(result, source="the result").to_json())
    met = all(e.met for e in accuracy) and all(stream.met for network in networks for stream in network.streams)
    if arguments.json:
        print(json.dumps({"out": str(arguments.out), "verdict": "pass" if met else "fail"}))
    return 0 if met else 1


def accuracy_table(found: list[Estimated]) -> Iterator[str]:
    yield f"{'stream':44}{'labels':>7}{'accuracy':>10}{'covered':>9}{'half-width':>11}{'recall':>8}{'alarms':>8}   bar"
    for e in found:
        bar = ("met" if e.met else "MISSED") + ("" if e.width_judged else " (coverage alone)")
        cells = (
            f"{e.labels:7}{e.accuracy:10.2%}{e.covered:9.1%}{e.half_width:11.2%}{e.recall_covered:8.1%}{e.alarms:8.1%}"
        )
        yield f"{e.name:44}{cells}   {bar}"


def drift_table(network: WatchedNetwork) -> Iterator[str]:
    yield f"{network.name}: {network.described}; accuracy {network.accuracy:.2%}"
    for e in network.streams:
        lost = "" if e.lost_points is None else f"{-e.lost_points:+.2f} points"
        median, p95 = (f"{rows:,.0f}" if rows is not None else "-" for rows in (e.median_rows, e.p95_rows))
        by = ", ".join(f"{name} {share:.0%}" for name, share in e.detectors.items())
        met = "met" if e.met else "MISSED"
        seen = f"{e.alarms:8.1%} of {e.rows:,} rows, median {median}, P95 {p95}"
        yield f"  {e.stream:26}{lost:>14}{seen}; {e.bar}: {met}  {by}"
        if e.oracle_rows is not None:
            long = f"{e.long_median_rows:,.0f}" if e.long_median_rows is not None else "-"
            yield f"{'':42}median with {LONG_REFERENCE_ROWS:,} rows {long}, of the oracle {e.oracle_rows:,.0f}"


def parser() -> argparse.ArgumentParser:
    parser = simulation_parser(__doc__, epilog=EPILOG, runs_of="each stream", result=RESULT, key="networks")
    parser.add_argument(
        "--kept",
        type=Path,
        metavar="FILE",
        help="answers of the networks of this seed: read if the file is there, else written, so that\n"
        "another run needs no network; a pickle, so give only a file of your own",
    )
    return parser


if __name__ == "__main__":
    run(main, parser())
