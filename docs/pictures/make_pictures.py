#!/usr/bin/env python3
"""Draw the README's pictures from the published results and the demo's report: `make pictures`, after `make demo`."""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from slipway.contract import DataError
from slipway.system.process import run

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAMES = {
    "fastapi": "FastAPI, hand-made batcher",
    "ray": "Ray Serve",
    "bentoml": "BentoML",
    "litserve": "LitServe",
    "mlserver": "MLServer",
    "tutorial": "tutorial: FastAPI, PIL, ONNX Runtime",
}
RESULTS = ("digits-int8-cpu", "digits-capacity-cpu")
PAGES = {"report": 980, "latency": 1060}
"""Pixels from the top of each page that its picture shows."""


def main(arguments: argparse.Namespace) -> None:
    peers(ROOT / "benchmarks/results/peers.json", HERE / "peers.svg")
    screenshot(arguments.run / "report.html", HERE / "report.png", height=PAGES["report"])
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "latency.html"
        results = [str(ROOT / f"benchmarks/results/{name}.json") for name in RESULTS]
        subprocess.run([sys.executable, "-m", "slipway", "speed", *results, "--out", str(page)], check=True)
        screenshot(page, HERE / "latency.png", height=PAGES["latency"])


def peers(result: Path, out: Path) -> None:
    """How many times the rate of each peer Slipway's fused layout holds: the mean and two standard errors."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "slipway"  # equal inputs give equal bytes
    from matplotlib import pyplot as plt

    ratios = json.loads(result.read_text(encoding="utf-8"))["times_the_capacity"]
    figure, axes = plt.subplots(figsize=(7.5, 2.6), layout="constrained")
    for row, peer in enumerate(reversed(NAMES)):
        found = ratios[peer]
        colour = "#0a7d33" if found["low"] > 1 else "#b3261e" if found["mean"] < 1 else "#8a6d00"
        spread = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
        axes.errorbar(found["mean"], row, xerr=spread, fmt="o", color=colour, capsize=3)
        label = {"xytext": (0, 5), "textcoords": "offset points", "ha": "center"}
        axes.annotate(f"{found['mean']:.2f}", (found["mean"], row), **label)
    axes.axvline(1, color="#888", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks([0.7, 1, 2, 4, 8], ["0.7", "1", "2", "4", "8"])
    axes.minorticks_off()
    axes.set_yticks(range(len(NAMES)), list(reversed(NAMES.values())))
    axes.set_ylim(-0.6, len(NAMES) - 0.3)
    axes.set_xlabel("Slipway's rate within P99 < 50 ms ÷ the peer's (right of 1 is better)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, metadata={"Date": None})
    print(f"written to {out}")


def screenshot(page: Path, out: Path, *, height: int, width: int = 1000) -> None:
    """The top of a page as headless Chromium paints it.

    Raises:
        DataError: no such page, or no Chromium.
    """
    if not page.is_file():
        raise DataError(f"{page}: no such page; make demo writes it")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise DataError("no chromium on the PATH; install it, for example by apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}")
        command = [chromium, *flags, f"--window-size={width},{height}", f"--screenshot={out.resolve()}"]
        subprocess.run([*command, page.resolve().as_uri()], check=True, timeout=120, stderr=subprocess.DEVNULL)
    print(f"written to {out}")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "runs/digits", help="what the demo wrote (%(default)s)")
    return parser


if __name__ == "__main__":
    run(main, parser())
