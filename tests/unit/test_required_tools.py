"""Tests that are skipped for want of a tool: where CI has installed it, they fail."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.prometheus import needs_prometheus
from tests.support.registries import NO_BINARY
from tests.support.scripts import ROOT
from tests.support.validators import NEEDED

SKIPPED = f"""
import pytest

@pytest.mark.skipif(True, reason={needs_prometheus.kwargs["reason"]!r})
def test_marked():
    pass

@pytest.mark.parametrize("reason", [{NO_BINARY!r}, {NEEDED!r}])
def test_called(reason):
    pytest.skip(reason)

@pytest.mark.skip(reason="this machine has no GPU")
def test_other():
    pass
"""


@pytest.mark.parametrize(("required", "failed"), [("", 0), ("prometheus", 2), ("prometheus validators", 3)])
def test_a_skip_for_want_of_a_required_tool_is_a_failure(
    required: str, failed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_skipped.py").write_text(SKIPPED)
    monkeypatch.setenv("SLIPWAY_REQUIRED", required)
    (tmp_path / "pytest.ini").touch()
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == bool(failed), done.stdout + done.stderr
    skipped = re.search(r"(\d+) skipped", done.stdout)
    assert skipped is not None
    assert int(skipped[1]) == 4 - failed
