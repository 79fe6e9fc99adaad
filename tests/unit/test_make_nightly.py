"""`make nightly` runs for hours: a part that fails is named at the end, and hides none of the others."""

import subprocess
from pathlib import Path

import pytest

from tests.support.scripts import ROOT

PYTHON = """#!/bin/sh
echo "$2" >> ran
case "$2" in {failing}) exit 1;; esac
"""
STUDIES = ["verdict", "guard", "soak", "judge", "plan_fleet", "lifecycle", "operate"]


@pytest.mark.parametrize(
    ("failing", "said"),
    [("none", ""), ("pytest", "failed: pytest\n"), ("pytest|*.soak|*.operate", "failed: pytest soak operate\n")],
)
def test_every_part_runs_and_those_that_fail_are_named(failing: str, said: str, tmp_path: Path) -> None:
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON.format(failing=failing))
    python.chmod(0o755)
    (tmp_path / "requirements.lock").touch()
    (tmp_path / ".venv/.installed").touch()
    command = ["make", "-f", str(ROOT / "Makefile"), "--silent", "nightly"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (bool(done.returncode), done.stdout) == (bool(said), said), done.stderr
    ran = (tmp_path / "ran").read_text().splitlines()
    assert ran == ["pytest", *(f"benchmarks.studies.{study}" for study in STUDIES)]
    assert all((ROOT / "benchmarks/studies" / study / "__main__.py").is_file() for study in STUDIES)
