"""Somebody's images to a classifier that answers, by `init`, `up` and `serve`, with the spec as `init` wrote it."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from slipway.client import Client
from slipway.serving import Server
from tests.support.scripts import run_here

pytestmark = pytest.mark.nightly  # two trainings and three builds: minutes
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
EACH, SIDE_PX = 120, 96


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with parts of three photographs in a folder each, and a table of them."""
    box = tmp_path_factory.mktemp("stranger")
    rng = np.random.default_rng(0)
    rows = []
    for name in PHOTOGRAPHS:
        (box / "cuttings" / name).mkdir(parents=True)
        photograph = getattr(data, name)()
        height, width = photograph.shape[:2]
        for index in range(EACH):
            top, left = rng.integers(height - SIDE_PX), rng.integers(width - SIDE_PX)
            path = box / "cuttings" / name / f"{index:03d}.jpg"
            Image.fromarray(photograph[top : top + SIDE_PX, left : left + SIDE_PX]).save(path, quality=90)
            rows.append({"path": path.relative_to(box / "cuttings"), "label": name})
    with (box / "table.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=("path", "label"))
        table.writeheader()
        table.writerows(rows)
    return box


def of_class_folders(box: Path) -> Path:
    run_here("init", "cuttings", "--from-scratch", "--out", "folders.yaml", cwd=box)
    run_here("up", "folders.yaml", "--run", "runs/folders", "--repository", "repositories/folders", cwd=box)
    return box / "repositories/folders"


def of_a_table(box: Path) -> Path:
    run_here("init", "cuttings", "--csv", "table.csv", "--from-scratch", "--out", "table.yaml", cwd=box)
    run_here("up", "table.yaml", "--run", "runs/table", "--repository", "repositories/table", cwd=box)
    return box / "repositories/table"


def of_an_imported_network(box: Path) -> Path:
    if not (box / "runs/folders/bundle").exists():
        of_class_folders(box)
    network = ("--onnx", "runs/folders/bundle/model.onnx", "--labels", "runs/folders/bundle/labels.txt")
    run_here("init", "cuttings", "--from-scratch", "--out", "own.yaml", cwd=box)
    run_here("up", "own.yaml", *network, "--run", "runs/own", "--repository", "repositories/own", cwd=box)
    return box / "repositories/own"


@pytest.fixture(params=[of_class_folders, of_a_table, of_an_imported_network], ids=lambda made: made.__name__)
def repository(request: pytest.FixtureRequest, box: Path) -> Path:
    made: Path = request.param(box)
    return made


def test_a_stranger_s_images_are_served(repository: Path, box: Path, start: Callable[[Path], Server]) -> None:
    server = start(repository)
    (name,) = (path.name for path in repository.iterdir() if path.name in {"cuttings", "table"})
    right = 0
    with Client(server.grpc_url, model=name) as client:
        for label in PHOTOGRAPHS:
            images = [(box / "cuttings" / label / f"{index:03d}.jpg").read_bytes() for index in range(10)]
            right += sum(result.label == label for result in client.classify_many(images))
    assert right >= 24, "of 30; chance is 10"
