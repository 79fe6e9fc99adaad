"""The result of the study `judge` keeps its bars, and docs/release.md says what it holds."""

from pathlib import Path

import pytest

from benchmarks.studies.judge.__main__ import JudgedByLabels, JudgeResult, Verdicts
from benchmarks.studies.judge.scenarios import LABELLED, SCENARIOS

ROOT = Path(__file__).parents[2]
RESULT = JudgeResult.read(ROOT / "benchmarks/results/judge.json")
FOUND: dict[str, Verdicts] = {one.name: one for one in (*RESULT.releases, *RESULT.disagreements)}
ROWS = {
    "no difference, 1 % errors, 60 min": "no difference, 1 % errors",
    "no difference, 0.1 % errors, 60 min": "no difference, 0.1 % errors",
    "no difference, no errors": "no difference, no errors",
    "weight 10, 25, 50 % while errors double": "no difference, weight 10, 25, 50 %, errors double",
    "errors x2 of 0.5 %, 15 min": "errors x2 of 0.5 %",
    "errors x2 of 1 %, 15 min": "errors x2 of 1 %",
    "errors x2 of 2 %, 15 min": "errors x2 of 2 %",
    "errors 0 → 2 %; every request fails": "errors 0 to 2 %",
    "every request fails after 1 min, 15 min": "every request fails after 1 min",
    "every request fails after 10 min, 40 min": "every request fails after 10 min",
    "bursts of 5 s, 30 % fail, each arm its own": "bursts of 5 s, 30 % fail, each arm its own",
    "bursts of 5 s, all fail, each arm its own": "bursts of 5 s, all fail, each arm its own",
    "bursts of 30 s, 30 % fail, each arm its own": "bursts of 30 s, 30 % fail, each arm its own",
    "bursts of 60 s, half fail, both arms at once": "bursts of 60 s, 50 % fail, both arms at once",
    "bursts of 30 s, 10 % fail, each arm its own": "bursts of 30 s, 10 % fail, each arm its own",
    "bursts of 2 min, 10 % fail, each arm its own": "bursts of 2 min, 10 % fail, each arm its own",
    "2 % over the budget, 15 min": "slow candidate, 2 % over the budget",
    "exactly 1 % over the budget, 60 min": "1 % over the budget",
    "disagreements, as many lost as won, 1,000 labels": "disagreements, as many lost as won",
    "disagreements, twice as many lost as won, 1,000 labels": "disagreements, twice as many lost as won",
}


def cells(one: Verdicts) -> str:
    """The columns of the table: both shares, and the median of the right verdict."""
    unit = "labels" if isinstance(one, JudgedByLabels) else "s"
    found, columns = one.plain(), []
    for verdict, truth in (("rolled_back", "worse"), ("promoted", "same")):
        share, median = found[verdict], found[f"{verdict}_{unit}"]
        columns.append("100 %" if share == 1 else f"{100 * share:.1f} %")
        columns.append(f"{median:,.0f} {unit}" if one.truth == truth and median is not None else "")
    return " | ".join(columns)


def test_every_release_of_the_study_was_simulated_and_keeps_its_bar() -> None:
    assert RESULT.runs == 1000
    assert list(FOUND) == [one.name for one in (*SCENARIOS, *LABELLED)]
    assert [one.name for one in FOUND.values() if one.judged and not one.met] == []


@pytest.mark.parametrize("row", ROWS)
def test_the_release_s_page_says_what_was_simulated(row: str) -> None:
    table = (
        (ROOT / "docs/release.md")
        .read_text(encoding="utf-8")
        .replace("**", "")
        .replace("\N{MULTIPLICATION SIGN}", "x")
        .splitlines()
    )
    (line,) = (line for line in table if line.startswith(f"| {row} |"))
    assert " ".join(line.split()) == " ".join(f"| {row} | {cells(FOUND[ROWS[row]])} |".split())
