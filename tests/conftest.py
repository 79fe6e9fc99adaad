"""The real thing, made once a session: the demo's digits from image files to a repository, by the scripts."""

from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from tests.support.scripts import ROOT, run_script

# The same examples in every run, and no deadline: a busy machine must not fail a test.
settings.register_profile("slipway", deadline=None, derandomize=True)
settings.load_profile("slipway")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One file that needs the digits comes first and the others last: no worker waits until they are made."""
    needs_digits = {item.path for item in items if "digits" in getattr(item, "fixturenames", ())}
    first = max(needs_digits, default=None)  # of stages: those of gpu are skipped
    items.sort(key=lambda item: 0 if item.path == first else 2 if item.path in needs_digits else 1)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder where `runs/digits` holds every stage's result and `repository` the cpu lane. Tests only read it.

    Where several workers run the tests, the first that needs it makes it, and the others wait.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "digits"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            making = folder.with_suffix(".making")
            making.mkdir()
            _make_digits(making)
            making.rename(folder)
    return folder


def _make_digits(folder: Path) -> None:
    run = Path("runs/digits")
    run_script("training/make_digits.py", "--out", run / "data", cwd=folder)
    run_script("training/train.py", ROOT / "training/configs/digits.yaml", "--out", run / "checkpoint", cwd=folder)
    run_script("training/export.py", run / "checkpoint", "--out", run / "bundle", cwd=folder)
    for precision in ("int8", "fp16"):
        graph = run / "graphs" / precision
        run_script("build/quantize.py", run / "bundle", "--out", graph, "--precision", precision, cwd=folder)
    run_script("build/compile.py", run / "bundle", "--graphs", run / "graphs", "--out", run / "engines", cwd=folder)
    engine = run / "engines/openvino-int8"
    run_script("build/assemble.py", run / "bundle", "--engine", engine, "--out", "repository", cwd=folder)
