"""Runs scripts as a user does, with the time and memory of each; and a server that answers a test split."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from slipway.contract import Bundle
from slipway.contract.dataset import Dataset
from slipway.system.process import child

ROOT = Path(__file__).parents[3]


def run_step(script: str, *arguments: Path | str, cwd: Path) -> dict[str, float]:
    """Run one script; returns `seconds`, and `peak_mib` of the largest process of its own.

    Raises:
        RuntimeError: it failed; the message has its last lines.
    """
    log = cwd / f"{Path(script).stem}.log"
    print(f"  {script}", file=sys.stderr, flush=True)
    started = time.monotonic()
    with log.open("wb") as file:
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        peak_mib = 0.0
        with child(command, cwd=cwd, stdout=file, stderr=subprocess.STDOUT) as process:
            while process.poll() is None:
                peak_mib = max(peak_mib, _largest_mib(process.pid))
                time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{script} ended with {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
    return {"seconds": round(time.monotonic() - started, 1), "peak_mib": round(peak_mib)}


def _largest_mib(pid: int) -> float:
    """Return the largest resident memory of the process or of one below it."""
    import psutil

    from slipway.benchmark.processes import peak_mib_of

    largest_mib = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):  # they may end meanwhile
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            largest_mib = max(largest_mib, peak_mib_of(process.pid))
    return largest_mib


def measured(folder: Path) -> dict[str, Any]:
    """Read the measurements that a stage wrote into its manifest."""
    from slipway.contract import Manifest

    return Manifest.read(folder / "manifest.json").measured


def served_equals_offline(repository: Path, bundle: Path, engine: Path, *, cwd: Path, most: int = 0) -> dict[str, Any]:
    """Ask a real tritonserver for the test images and compare with `predictions.csv` of the engine.

    Args:
        most: images that are asked for, evenly spaced; 0: all.

    Returns:
        `images`, `equal` (the same labels; of several labels, all), `largest_score_difference`, `server_mib` (the
        server and its steps, resident), `seconds` (with the server's start).
    """
    import psutil

    from slipway.client import Client
    from slipway.engines.predictions_csv import read_rows
    from slipway.serving import Ports, serve

    rows = read_rows(engine)
    rows = rows[:: max(len(rows) // most, 1)] if most else rows
    opened = Bundle.open(bundle)
    root = cwd / Dataset.read(bundle / "dataset.json").root
    started, equal, difference = time.monotonic(), 0, 0.0
    with serve(repository, ports=Ports.free()) as server:
        with Client(f"grpc://{server.grpc_url}", model=opened.spec.name) as client:
            results = list(client.classify_many((root / row["image"]).read_bytes() for row in rows))
        below = psutil.Process().children(recursive=True)
        server_mib = sum(process.memory_info().rss for process in below) / 2**20
    for row, result in zip(rows, results, strict=True):
        pairs = [(result.label, result.score), *((other.label, other.score) for other in result.candidates)]
        answer = {label: score for label, score in pairs if label is not None}
        if opened.decision.task == "multilabel":
            offline = dict(zip(json.loads(row["label"]), json.loads(row["score"]), strict=True))
        else:
            answer = {str(result.label): float(result.score or 0.0)}
            offline = {row["label"]: float(row["score"])}
        equal += answer.keys() == offline.keys()
        difference = max([difference, *(abs(answer.get(label, 0.0) - score) for label, score in offline.items())])
    return {
        "images": len(rows),
        "equal": equal,
        "largest_score_difference": difference,
        "server_mib": round(server_mib),
        "seconds": round(time.monotonic() - started, 1),
    }
