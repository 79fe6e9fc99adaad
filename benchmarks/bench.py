#!/usr/bin/env python3
"""Every figure of a classifier's speed on one machine, and their speed page: the published ones come from here."""

import argparse
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

from slipway.contract import SlipwayError
from slipway.serving import Ports, serve
from slipway.system.arguments import Parser
from slipway.system.process import child, run

ROOT = Path(__file__).parents[1]
VERDICTS = (0, 1, 3, 4)
"""Exit codes of the gate that let the benchmark continue: the speed page shows what failed."""
EPILOG = """examples:
  make bench                                                      digits of `make demo`, into runs/digits/bench
  benchmarks/bench.py runs/pets --images data/pets/test           a classifier of your own

The classifier is served as its spec says; by default, one fused model with a process for each core. Leave the machine
otherwise idle. It takes about 15 minutes on two cores, a third of them for the simulation of the verdict, and up to 10
more if a latency is near its limit. make study-efficiency and make study-peers take longer and run by themselves."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.contract import Bundle
    from slipway.repository import pick_engines

    os.chdir(ROOT)
    started = time.monotonic()
    bundle, engines = arguments.run / "bundle", arguments.run / "engines"
    chosen = pick_engines(Bundle.open(bundle), engines, lane="cpu")
    out = arguments.out or arguments.run / "bench"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        repository = Path(folder) / "repository"
        step("repository", "build/assemble.py", bundle, "--engines", engines, "--out", repository)
        with serve(repository, ports=Ports.free()) as server:
            served(chosen.name, arguments, out, url=server.grpc_url, pid=server.process.pid)
    step(
        "how often the verdict errs",
        *study("verdict"),
        "--out",
        out / "verdict.json",
        allowed=(0, 1),
    )
    files = [out / f"{name}.json" for name in ("gate", "capacity", "perf_analyzer", "verdict")]
    price = ("--engine", chosen.engine.path, "--price", arguments.price)
    step("speed page", "benchmarks/speed.py", *files, *price, "--out", out / "speed.html")
    print(f"\n{time.monotonic() - started:.0f} s; look at {out}/speed.html")


def served(name: str, arguments: argparse.Namespace, out: Path, *, url: str, pid: int) -> None:
    """Ask the running server everything that the speed page shows."""
    asked = (name, "--url", url, "--images", arguments.images)
    gate = ("benchmarks/gate.py", *asked, "--pid", pid, "--rate", arguments.rate)
    step("latency", *gate, "--requests-per-block", 1200, "--out", out / "gate.json", allowed=VERDICTS)
    step("capacity", *gate, "--find-capacity", "--out", out / "capacity.json", allowed=VERDICTS)
    load = ("--concurrency", 4, "--distinct-images", 256)
    step("every step at its most", "benchmarks/perf_analyzer.py", *asked, *load, "--out", out / "perf_analyzer.json")


def study(name: str) -> tuple[str, str]:
    return "-m", f"benchmarks.studies.{name}"


def step(title: str, *command: object, allowed: tuple[int, ...] = (0,)) -> None:
    """Run one of our scripts, its output on this screen.

    Raises:
        SlipwayError: it ended with an exit code that is not `allowed`.
    """
    words = list(map(str, command))
    print(f"\n── {title}: {shlex.join(words)}", flush=True)
    started = time.monotonic()
    with child([sys.executable, *words]) as process:
        code = process.wait()
    if code not in allowed:
        raise SlipwayError(f"{title} ended with exit code {code}; its own message is above")
    print(f"  took {time.monotonic() - started:.0f} s", flush=True)


def parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a folder with bundle/, engines/ and a choice")
    add("--images", type=Path, required=True, metavar="FOLDER", help="image files in it and below it are sent")
    add("--rate", type=float, default=50.0, metavar="PER_S", help="rate at which P99 is judged")
    add("--price", default="cpu-2", help="a row of src/slipway/cli/prices.yaml")
    add("--out", type=Path, metavar="FOLDER", help="folder for the result files and the page; default: RUN/bench")
    return parser


if __name__ == "__main__":
    run(main, parser())
