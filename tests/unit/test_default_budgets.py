"""A classifier that `budgets_ms` does not name is judged by the default budget, and what judges by it says so."""

from pathlib import Path

import pytest

from slipway.operations.gateway.settings import read_settings
from slipway.operations.release.trial import Trial
from slipway.operations.watch.latency import Counted, latency_of
from slipway.operations.watch.page_tables import latency_text
from tests.support.gateways import needs_envoy, write_gateway
from tests.support.releases import ReleaseFolder, tempered
from tests.support.rendered import EXAMPLE
from tests.support.scripts import run_here

SAID = "latency budget 50 ms by default for colours, colours_full; budgets_ms sets it"


def give_budgets(settings: Path) -> None:
    settings.write_text(settings.read_text() + "budgets_ms: {colours: 50}\n")  # and so that of colours_full


@needs_envoy
def test_a_check_of_the_settings_says_it(tmp_path: Path) -> None:
    path = write_gateway(tmp_path, tls=False, repository=str(EXAMPLE))
    assert f"; Envoy accepts its configuration; {SAID}\n" in run_here("gateway", "--check", path, cwd=tmp_path).stdout
    give_budgets(path)
    assert "; Envoy accepts its configuration\n" in run_here("gateway", "--check", path, cwd=tmp_path).stdout


def test_the_judge_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(Trial, "look", Trial.judged)
    release = ReleaseFolder(tmp_path, new=tempered(2.0))
    release.open_release()
    assert release("judge") == 2
    assert f"\n  {SAID}\n" in capsys.readouterr().out
    give_budgets(release.gateway)
    assert release("judge") == 2
    assert "by default" not in capsys.readouterr().out


def test_the_watch_says_it() -> None:
    def said(budget_ms: float | None) -> str:
        counted = Counted(100, {30.0: 99, 50.0: 100})
        return latency_text(latency_of(counted, budget_ms=budget_ms, seconds=600.0))

    assert "at most 30 ms in the last 10 min, budget 50 ms by default (budgets_ms sets it); " in said(None)
    assert "budget 50 ms; " in said(50.0)


def test_a_budget_counts_for_both_ensembles_of_a_classifier_unless_both_are_named(tmp_path: Path) -> None:
    def budgets(**given: float) -> dict[str, float]:
        return read_settings(write_gateway(tmp_path, tls=False, budgets_ms=given)).all_budgets_ms

    assert budgets(digits=35) == {"digits": 35, "digits_full": 35}
    assert budgets(digits=35, digits_full=60) == {"digits": 35, "digits_full": 60}
    assert budgets(digits_full=60) == {"digits_full": 60}
