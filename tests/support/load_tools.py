"""perf_analyzer and locust as a user runs them; and image folders to give them."""

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[2]
COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}
SIZES = ((48, 48), (64, 200), (300, 120))


def install_perf_analyzer() -> str:
    """`make perf_analyzer` for the environment that runs the tests; the version that the tool says on stderr."""
    prefix = Path(sys.prefix)
    # However old the environment looks beside requirements.lock, a test does not install it again.
    command = ["make", "--no-print-directory", "-o", f"{prefix}/.installed", f"VENV={prefix}", "perf_analyzer"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stderr.strip()


def colour_images(folder: Path) -> Path:
    """Nine JPEG files of mixed sizes, which `colours` gives their names."""
    folder.mkdir()
    for name, colour in COLOURS.items():
        for index, size in enumerate(SIZES):
            Image.new("RGB", size, colour).save(folder / f"{name}{index}.jpg")
    return folder


@dataclass(frozen=True)
class LocustRun:
    """What a headless run of locust ended with."""

    code: int
    figures: dict[str, dict[str, Any]]
    """By protocol."""
    failures: dict[str, set[str]]
    """Their names, by protocol."""
    said: str


def locust(*options: str | Path, folder: Path) -> LocustRun:
    """Run it in an empty folder, where it leaves its tables."""
    folder.mkdir()
    command: list[str | Path] = [
        Path(sys.executable).parent / "locust",
        "-f",
        ROOT / "benchmarks/locustfile.py",
        "--headless",
        "--json",
    ]
    command += ["--csv", "run", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    failures: dict[str, set[str]] = {}
    if (folder / "run_failures.csv").is_file():
        with (folder / "run_failures.csv").open() as table:
            for row in csv.DictReader(table):
                failures.setdefault(row["Method"], set()).add(row["Error"])
    figures = {figure["method"]: figure for figure in json.loads(done.stdout or "[]")}
    return LocustRun(done.returncode, figures, failures, done.stderr)
