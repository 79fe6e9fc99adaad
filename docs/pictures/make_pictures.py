"""Draw the README's pictures from the published results and the demo's report: `make pictures`, after `make demo`."""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.studies.scale.result import ScaleResult
from slipway.contract import DataError
from slipway.contract.evidence.studies import PeersResult
from slipway.pages.charts import DIM, PAGE, SERIES, TEXT, TONES, VARIABLES, Chart, axes, styled, svg
from slipway.system.arguments import Parser
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
SKILLED = "_skilled"
RESULTS = ("digits-int8-cpu", "digits-capacity-cpu")
PAGES = {"report": 980, "latency": 1190}
"""Pixels from the top of each page that its picture shows."""
Place = tuple[float, float]
BOXES: dict[str, tuple[Place, str]] = {
    "images": ((0, 3), "images in folders\nor a CSV file"),
    "checkpoint": ((1, 3), "checkpoint"),
    "bundle": ((2, 3), "bundle: ONNX,\npreprocess, decision,\ncalibration sample"),
    "own": ((1, 2), "your ONNX file or\ntimm weights"),
    "graphs": ((3, 3), "INT8 and FP16\ngraphs"),
    "engines": ((3, 2), "engines: OpenVINO,\nTensorRT, each with\nits accuracy gate"),
    "fastest": ((3, 1), "fastest engine\nthat passed"),
    "repository": ((2, 1), "model repository\ncpu · gpu"),
    "server": ((1, 1), "tritonserver"),
    "clients": ((0, 1.35), "clients"),
    "gate": ((0, 0.65), "latency gate"),
}
"""The stages' results: column and row, and the text."""
ARROWS = (
    ("images", "checkpoint", "train"),
    ("checkpoint", "bundle", "export"),
    ("own", "bundle", "import"),
    ("bundle", "graphs", "quantize"),
    ("bundle", "engines", ""),
    ("graphs", "engines", "compile"),
    ("engines", "fastest", "choose"),
    ("fastest", "repository", "assemble"),
    ("repository", "server", "serve"),
    ("server", "clients", ""),
    ("server", "gate", ""),
)
"""The verbs, each from what it reads to what it writes."""


def main(arguments: argparse.Namespace) -> None:
    flow(HERE / "flow.svg")
    scale(ROOT / "benchmarks/results/scale.json", HERE / "scale.svg")
    if arguments.drawn:
        peers(ROOT / "benchmarks/results/peers.json", HERE / "peers.svg")
        return
    peers(ROOT / "benchmarks/results/peers.json", HERE / "peers.svg")
    screenshot(arguments.run / "report.html", HERE / "report.png", height=PAGES["report"])
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "latency.html"
        results = [str(ROOT / f"benchmarks/results/{name}.json") for name in RESULTS]
        subprocess.run([sys.executable, "-m", "slipway", "speed", *results, "--out", str(page)], check=True)
        screenshot(page, HERE / "latency.png", height=PAGES["latency"])


@styled
def flow(out: Path) -> None:
    """Each stage's result in a box, and the verb that makes the next one from it on the arrow."""
    chart = axes(8.5, 3.6)
    chart.set(xlim=(-0.5, 3.5), ylim=(0.35, 3.4))
    chart.set_axis_off()
    box = {"boxstyle": "round,pad=0.5", "facecolor": PAGE, "edgecolor": TONES["plain"]}
    words: dict[str, Any] = {"ha": "center", "va": "center", "size": 8}
    boxes = {name: chart.text(*place, text, color=TEXT, bbox=box, **words) for name, (place, text) in BOXES.items()}
    for start, end, verb in ARROWS:
        (x, y), (to_x, to_y) = BOXES[start][0], BOXES[end][0]
        ends = {"patchA": boxes[start].get_bbox_patch(), "patchB": boxes[end].get_bbox_patch()}
        arrow = {"arrowstyle": "-|>", "color": DIM, "linewidth": 1, "shrinkA": 3, "shrinkB": 3}
        chart.annotate("", (to_x, to_y), (x, y), arrowprops={**arrow, **ends})
        aside, above = (0.0 if y == to_y else 0.2), (0.1 if y == to_y else 0.0)
        chart.text((x + to_x) / 2 + aside, (y + to_y) / 2 + above, verb, color=DIM, **words)
    out.write_text(standalone(chart, label="How data passes from images to a gated server"), encoding="utf-8")
    print(f"written to {out}")


@styled
def peers(result: Path, out: Path) -> None:
    """Draw how many times the rate of each peer Slipway's fused layout holds: the mean and two standard errors."""
    measured = PeersResult.read(result)
    chart = axes(7.5, 3.4)
    forms = (("", "o", 0.15, "our step files inside"), (SKILLED, "D", -0.15, "as a skilled team would write it"))
    for ending, marker, above, label in forms:
        for row, peer in enumerate(reversed(NAMES)):
            if (found := measured.times_the_capacity.get(peer + ending)) is None:
                continue
            colour = TONES["good" if found.low > 1 else "bad" if found.high < 1 else "warn"]
            spread = [[found.mean - found.low], [found.high - found.mean]]
            chart.errorbar(found.mean, row + above, xerr=spread, fmt=marker, markersize=5, color=colour, capsize=3)
            chart.text(found.high * 1.04, row + above, f"{found.mean:.2f}", va="center", color=TEXT)
        chart.plot([], [], marker, color=DIM, markersize=5, label=label)
    chart.legend(loc="upper right", frameon=False)
    chart.axvline(1, color=DIM, linewidth=1)
    chart.set(
        xscale="log",
        xlabel=f"Slipway's rate within P99 < 50 ms, layout fused, {measured.settings['slipway_fused']},\n"
        "÷ the peer's (right of 1 is better)",
    )
    chart.set_xticks([0.7, 1, 2, 4, 8], ["0.7", "1", "2", "4", "8"])
    chart.minorticks_off()
    chart.set_yticks(range(len(NAMES)), list(reversed(NAMES.values())))
    chart.set_ylim(-0.6, len(NAMES) - 0.3)
    out.write_text(standalone(chart, label="Slipway's rate as a multiple of each peer's"), encoding="utf-8")
    print(f"written to {out}")


@styled
def scale(result: Path, out: Path) -> None:
    """Draw the rate that a core of each simulated machine holds, by layout, with and without photographs."""
    held = ScaleResult.read(result).held
    chart = axes(7.5, 3.2)
    for layout, colour in (("fused", SERIES[0]), ("shared_decode", SERIES[1])):
        for share, style in ((0.0, "-"), (0.1, "--")):
            rows = [
                row
                for row in held
                if (row.layout, row.batch, row.photographs) == (layout, 2, share)
                and row.bandwidth.startswith("as measured")
            ]
            name = f"{layout}, {share:.0%} photographs of 12 million pixels" if share else f"{layout}, small images"
            points = [row.cores for row in rows], [row.per_core_per_s for row in rows]
            chart.plot(*points, style, marker="o", markersize=3, color=colour, label=name)
    chart.set(xscale="log", xlabel="cores", ylabel="requests/s and core\nwithin P99 < 50 ms", ylim=(0, None))
    chart.set_xticks(cores := sorted({row.cores for row in held}), [str(count) for count in cores])
    chart.minorticks_off()
    chart.legend(frameon=False, labelcolor=TEXT)
    out.write_text(standalone(chart, label="Requests per second and core, by layout and cores"), encoding="utf-8")
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
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "runs/digits", help="run of the demo")
    parser.add_argument("--drawn", action="store_true", help="only the pictures that need neither a run nor chromium")
    return parser


if __name__ == "__main__":
    run(main, parser())
