#!/usr/bin/env python3
"""Draw the README's pictures from the published results and the demo's report: `make pictures`, after `make demo`."""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from slipway.contract import DataError
from slipway.pages.charts import DIM, TEXT, TONES, VARIABLES, Chart, axes, styled, svg
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
PAGES = {"report": 980, "latency": 1190}
"""Pixels from the top of each page that its picture shows."""


def main(arguments: argparse.Namespace) -> None:
    peers(ROOT / "benchmarks/results/peers.json", HERE / "peers.svg")
    screenshot(arguments.run / "report.html", HERE / "report.png", height=PAGES["report"])
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "latency.html"
        results = [str(ROOT / f"benchmarks/results/{name}.json") for name in RESULTS]
        subprocess.run([sys.executable, "-m", "slipway", "speed", *results, "--out", str(page)], check=True)
        screenshot(page, HERE / "latency.png", height=PAGES["latency"])


@styled
def peers(result: Path, out: Path) -> None:
    """How many times the rate of each peer Slipway's fused layout holds: the mean and two standard errors."""
    ratios = json.loads(result.read_text(encoding="utf-8"))["times_the_capacity"]
    chart = axes(7.5, 2.6)
    for row, peer in enumerate(reversed(NAMES)):
        found = ratios[peer]
        colour = TONES["good" if found["low"] > 1 else "bad" if found["mean"] < 1 else "warn"]
        spread = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
        chart.errorbar(found["mean"], row, xerr=spread, fmt="o", color=colour, capsize=3)
        chart.text(found["mean"], row + 0.2, f"{found['mean']:.2f}", ha="center", color=TEXT)
    chart.axvline(1, color=DIM, linewidth=1)
    chart.set(xscale="log", xlabel="Slipway's rate within P99 < 50 ms ÷ the peer's (right of 1 is better)")
    chart.set_xticks([0.7, 1, 2, 4, 8], ["0.7", "1", "2", "4", "8"])
    chart.minorticks_off()
    chart.set_yticks(range(len(NAMES)), list(reversed(NAMES.values())))
    chart.set_ylim(-0.6, len(NAMES) - 0.3)
    out.write_text(standalone(chart, label="Slipway's rate as a multiple of each peer's"), encoding="utf-8")
    print(f"written to {out}")


def standalone(axes: Chart, *, label: str) -> str:
    """The figure as a file of its own: the light colours, on white."""
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    colours = {f"var(--{name})": colour for colour, name in VARIABLES.items()}
    text = re.sub(r"var\(--[\w-]+\)", lambda found: colours[found[0]], svg(axes, label=label))
    namespaces = (
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" font-family="sans-serif"'
    )
    return text.replace("<svg ", f"<svg {namespaces} ", 1).replace(">", f">{ground}", 1) + "\n"


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
