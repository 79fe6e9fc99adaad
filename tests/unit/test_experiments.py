"""The frame of the experiments: results are kept, misses and errors are told, and the page is that of the file."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.studies.training import __main__ as study
from slipway.system.process import run

MODULE = '''"""{purpose}

More of it.
"""
from benchmarks.studies.training.result import Found, Target

def measure(scratch):
    assert scratch.is_dir()
    {body}
'''
TARGET = "Target(what='a | b', asked='at least 1', measured='2', met={met})"


@pytest.fixture
def experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The study, with three experiments of its own: one good, one that misses, one that fails."""
    folder = tmp_path / "some_experiments"
    folder.mkdir()
    for name, body in (
        ("folds", f"return Found(top1=0.99, targets=({TARGET.format(met=True)},))"),
        ("noise", f"return Found(targets=({TARGET.format(met=False)},))"),
        ("broken", "raise ValueError('no such thing')"),
    ):
        (folder / f"{name}.py").write_text(MODULE.format(purpose=f"The purpose of {name}.", body=body))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(study, "PACKAGE", folder.name)
    monkeypatch.setattr(study, "NAMES", ("folds", "noise", "broken"))
    for name in study.NAMES:
        monkeypatch.delitem(sys.modules, f"{folder.name}.{name}", raising=False)
    monkeypatch.delitem(sys.modules, folder.name, raising=False)
    return study


@pytest.fixture
def call(experiments: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def call(*arguments: str) -> Any:
        files = ("--out", str(tmp_path / "result.json"), "--page", str(tmp_path / "page.md"))
        monkeypatch.setattr(sys, "argv", ["experiments.py", *arguments, *files])
        with pytest.raises(SystemExit) as ended:
            run(experiments.main, experiments.parser())
        return ended.value.code

    return call


def test_what_is_there_is_found_in_the_issue_s_order(
    call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["folds", "noise", "broken"]
    assert "The purpose of folds." in lines[0]


def test_each_result_is_kept_with_where_it_was_measured_and_errors_hide_no_other(
    call: Callable[..., Any], tmp_path: Path
) -> None:
    assert call() == 1
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result) == ["folds", "noise", "broken"]
    assert result["folds"]["top1"] == 0.99
    assert result["broken"]["error"] == "ValueError: no such thing"
    for entry in result.values():
        assert entry["machine"]["cores"] >= 1
        assert "torch" in entry["versions"]
        assert {"commit", "created", "duration_s", "purpose"} <= entry.keys()
    page = (tmp_path / "page.md").read_text()
    assert "| folds | a \\| b | at least 1 | 2 | yes |" in page
    assert "| noise | a \\| b | at least 1 | 2 | **no** |" in page
    assert "| broken | ValueError: no such thing | | | **error** |" in page


def test_one_experiment_alone_leaves_the_others_as_they_were(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"noise": before(tmp_path, call)}))
    assert call("folds") == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result) == ["folds", "noise"]
    assert result["noise"]["created"] == "long ago"


def before(tmp_path: Path, call: Callable[..., Any]) -> dict[str, Any]:
    call("noise")
    entry: dict[str, Any] = json.loads((tmp_path / "result.json").read_text())["noise"]
    return entry | {"created": "long ago"}


def test_an_unknown_experiment_is_an_error_that_names_the_known_ones(call: Callable[..., Any]) -> None:
    assert "nothing: no such experiment; there are folds, noise, broken" in call("nothing")
