"""The real thing, made once a session: the demo's digits from image files to a repository, by the verbs."""

import gc
import os
from collections.abc import Generator
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from hypothesis import settings

from tests.support.scripts import ROOT, run_verbs

# The same examples in every run, and no deadline: a busy machine must not fail a test.
settings.register_profile("slipway", deadline=None, derandomize=True)
settings.load_profile("slipway")

# A forked child never collects what its parent left: gRPC would wait there for a thread that only the parent has.
os.register_at_fork(after_in_child=gc.freeze)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported for the tests stays: the collector need not look through it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One file that needs the digits comes first and the others last: no worker waits until they are made."""
    needs_digits = {item.path for item in items if "digits" in getattr(item, "fixturenames", ())}
    first = max(needs_digits, default=None)  # of stages: those of gpu are skipped
    items.sort(key=lambda item: 0 if item.path == first else 2 if item.path in needs_digits else 1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip for want of tools that `.ci/run` has installed, which SLIPWAY_REQUIRED names, is a failure."""
    report = yield
    reasons = tuple(f": make {tools}" for tools in os.environ.get("SLIPWAY_REQUIRED", "").split())
    if report.skipped and isinstance(report.longrepr, tuple) and report.longrepr[2].endswith(reasons):
        report.outcome = "failed"
        report.longrepr = f"{report.longrepr[2]}; SLIPWAY_REQUIRED says that they are there"
    return report


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder with every stage's result in `runs/digits`, the cpu lane in `repository`, and `said.txt`.

    Tests only read it. Where several workers run the tests, the first that needs it makes it, and the others wait.
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
    spec = yaml.safe_load((ROOT / "training/configs/digits.yaml").read_text())
    spec["recipe"]["epochs"] = 5  # of 20: good enough on the test split, and made in less than half the time
    (folder / "digits.yaml").write_text(yaml.safe_dump(spec))
    run = "runs/digits"
    done = run_verbs(
        f"make-digits --out {run}/data",
        f"train digits.yaml --out {run}/checkpoint",
        f"export {run}/checkpoint --out {run}/bundle",
        f"quantize {run}/bundle --out {run}/graphs/int8 --json",
        f"quantize {run}/bundle --out {run}/graphs/fp16 --precision fp16",
        f"compile {run}/bundle --graphs {run}/graphs --out {run}/engines",
        f"assemble {run}/bundle --engine {run}/engines/openvino-int8 --out repository",
        cwd=folder,
    )
    (folder / "said.txt").write_text(done.stdout)
