#!/usr/bin/env python3
"""Measure the layouts of the cpu lane against each other: three steps, two, or one that does all."""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.studies.study import finish, provenance
from slipway.system.targets import file_option

if TYPE_CHECKING:
    from slipway.repository import Classifier


LAYOUTS = ("steps", "shared_decode", "fused")
FIGURES = ("p50_ms", "saturation_per_s")
Rounds = dict[str, list[dict[str, float]]]
ONE_BY_ONE, CLIENTS, SATURATED_S = 200, 8, 4.0
EPILOG = """example:
  python -m benchmarks.studies.layouts runs/digits --images runs/digits/data --output benchmarks/results/layouts.json

All servers run all the while. In every round each is asked 200 images one by one, and then by 8 clients at once for
4 s; the order changes from round to round, and what is reported is the ratio within a round. About 3 minutes."""


def main(arguments: argparse.Namespace) -> None:
    from slipway.benchmark.gate import load_images
    from slipway.contract import Bundle
    from slipway.contract.evidence.studies import LayoutsResult
    from slipway.repository import pick_engines

    images = load_images(arguments.images, seed=arguments.seed)
    chosen = pick_engines(Bundle.open(arguments.run / "bundle"), arguments.run / "engines", lane="cpu")
    rounds, memory_mib = measure(chosen, images, rounds=arguments.rounds)
    result = {
        **provenance(("tritonclient", "nvidia-pytriton", "openvino", "nvidia-dali-cuda130")),
        "seed": arguments.seed,
        "distinct_images": len(set(images)),
        "serving": chosen.serving.model_dump(mode="json"),
        "client_shares_the_cores": True,
        **{f"{layout}_to_steps": {key: ratio(rounds, layout, key) for key in FIGURES} for layout in LAYOUTS[1:]},
        "memory_mib": memory_mib,
        "rounds": rounds,
    }
    for layout in LAYOUTS[1:]:
        for key, (low, middle, high) in result[f"{layout}_to_steps"].items():
            print(f"{layout} / steps, {key}: {middle:.2f} ({low:.2f} to {high:.2f} in {arguments.rounds} rounds)")
    print("memory: " + ", ".join(f"{layout} {mib:.0f} MiB" for layout, mib in memory_mib.items()))
    finish(LayoutsResult.parse(result, source="the result"), arguments)


def measure(chosen: "Classifier", images: Sequence[bytes], *, rounds: int) -> tuple[Rounds, dict[str, float]]:
    """What each layout did in every round, and the memory of each server with its processes afterwards."""
    from tqdm import tqdm

    from benchmarks.studies.robustness.launcher import launched
    from benchmarks.studies.robustness.parts import proportional_mib
    from slipway.repository import assemble

    seen: Rounds = {layout: [] for layout in LAYOUTS}
    with tempfile.TemporaryDirectory(prefix="slipway-layouts-") as folder, ExitStack() as stack:
        servers = {}
        for layout in LAYOUTS:
            work = Path(folder) / layout
            work.mkdir()
            settings = chosen.serving.model_copy(update={"layout": layout})
            assemble([replace(chosen, settings=settings)], work / "repository")
            servers[layout] = stack.enter_context(launched(work / "repository", work))
        for number in tqdm(range(rounds), desc="rounds", disable=None):
            turn = number % len(LAYOUTS)
            for layout in LAYOUTS[turn:] + LAYOUTS[:turn]:
                url = servers[layout].grpc_url
                seen[layout].append(asyncio.run(one_round(url, chosen.name, images, first=number * ONE_BY_ONE)))
        return seen, {layout: proportional_mib(server.server_pid()) for layout, server in servers.items()}


async def one_round(url: str, model: str, images: Sequence[bytes], *, first: int) -> dict[str, float]:
    """The median of one client that asks one by one, and what eight get a second."""
    import numpy as np

    from benchmarks.studies.robustness.load import saturation
    from slipway.benchmark.server import Server

    times_ms = []
    async with Server(url, model=model, images=images) as server:
        for index in range(first, first + ONE_BY_ONE):
            started = time.perf_counter()
            problem = await server.ask(index % len(images), deadline_s=5)
            if problem:
                raise SystemExit(f"image {index % len(images)}: {problem}")
            times_ms.append((time.perf_counter() - started) * 1000)
    per_s = await saturation(url, model, images, clients=CLIENTS, seconds=SATURATED_S)
    return {"p50_ms": float(np.median(times_ms)), "saturation_per_s": per_s}


def ratio(rounds: Rounds, layout: str, key: str) -> tuple[float, float, float]:
    """A layout over steps, round by round: least, median, most."""
    import numpy as np

    ratios = [one[key] / steps[key] for one, steps in zip(rounds[layout], rounds["steps"], strict=True)]
    return min(ratios), float(np.median(ratios)), max(ratios)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder with bundle/ and engines/, and a choice")
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="image files below it are sent")
    parser.add_argument("--rounds", type=int, default=9, help="of all layouts (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the images (%(default)s)")
    parser.add_argument(
        "--output",
        type=file_option(("fused_to_steps",), what="a result of layouts.py"),
        metavar="JSON",
        help="write the results here",
    )
    parser.add_argument("--json", action="store_true", help="one JSON line last")
    return parser


if __name__ == "__main__":
    from slipway.system.process import run

    run(main, parser())
