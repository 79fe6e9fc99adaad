"""The result of the study `judge` keeps its bars, and the pages say what it holds."""

from pathlib import Path

import pytest

from benchmarks.studies.judge.__main__ import JudgedByLabels, JudgeResult, Verdicts
from benchmarks.studies.judge.scenarios import LABELLED, SCENARIOS

ROOT = Path(__file__).parents[2]
RESULT = JudgeResult.read(ROOT / "benchmarks/results/judge.json")
FOUND: dict[str, Verdicts] = {one.name: one for one in (*RESULT.releases, *RESULT.disagreements)}
ROWS = {
    "no difference, 1 % errors": "no difference, 1 % errors",
    "no difference, 0.1 % errors": "no difference, 0.1 % errors",
    "no difference, no errors": "no difference, no errors",
    "weight 10, 25, 50 % while errors double": "no difference, weight 10, 25, 50 %, errors double",
    "errors x2 of 0.5 %": "errors x2 of 0.5 %",
    "errors x2 of 1 %": "errors x2 of 1 %",
    "errors x2 of 2 %": "errors x2 of 2 %",
    "errors 0 → 2 %": "errors 0 to 2 %",
    "every request fails": "every request fails",
    "every request fails after 1 min": "every request fails after 1 min",
    "every request fails after 10 min": "every request fails after 10 min",
    "bursts of 5 s, 30 % fail, each arm its own": "bursts of 5 s, 30 % fail, each arm its own",
    "bursts of 5 s, all fail, each arm its own": "bursts of 5 s, all fail, each arm its own",
    "bursts of 30 s, 30 % fail, each arm its own": "bursts of 30 s, 30 % fail, each arm its own",
    "bursts of 60 s, half fail, both arms at once": "bursts of 60 s, 50 % fail, both arms at once",
    "bursts of 30 s, 10 % fail, each arm its own": "bursts of 30 s, 10 % fail, each arm its own",
    "bursts of 2 min, 10 % fail, each arm its own": "bursts of 2 min, 10 % fail, each arm its own",
    "bursts of 2 min, 40 % fail, each arm its own": "bursts of 2 min, 40 % fail, each arm its own",
    "bursts of 2 min, 40 % fail, at 2 requests/s": "bursts of 2 min, 40 % fail, 2 requests/s",
    "bursts of 2 min, 40 % fail, at 2 requests/s and 50 %": "bursts of 2 min, 40 % fail, 2 requests/s, weight 50 %",
    "every request fails, at 2 requests/s": "every request fails, 2 requests/s",
    "bursts of 5 min, 10 % fail, each arm its own": "bursts of 5 min, 10 % fail, each arm its own",
    "errors x2 of 1 %, bursts of 5 s, each arm its own": "errors x2 of 1 %, bursts of 5 s, each arm its own",
    "errors x2 of 1 %, bursts of 30 s, each arm its own": "errors x2 of 1 %, bursts of 30 s, each arm its own",
    "errors x2 of 1 %, bursts of 60 s, both arms at once": "errors x2 of 1 %, bursts of 60 s, both arms at once",
    "bursts of 5 s, all fail, four times as many at the candidate": "bursts of 5 s, all fail, four times as many",
    "2 % over the budget": "slow candidate, 2 % over the budget",
    "exactly 1 % over the budget": "1 % over the budget",
    "0.9 % over the budget, in stalls of 5 s": "0.9 % over the budget, in stalls of 5 s",
    "0.9 % over the budget, in stalls of 2 min": "0.9 % over the budget, in stalls of 2 min",
    "1.1 % over the budget, in stalls of 5 s": "1.1 % over the budget, in stalls of 5 s",
    "disagreements, as many lost as won, 1,000 labels": "disagreements, as many lost as won",
    "disagreements, twice as many lost as won, 1,000 labels": "disagreements, twice as many lost as won",
}


def percent(share: float) -> str:
    return "100 %" if share == 1 else f"{100 * share:.1f} %"


def cells(one: Verdicts) -> str:
    """The columns of the table: both shares, and the median of the right verdict."""
    unit = "labels" if isinstance(one, JudgedByLabels) else "s"
    found, columns = one.plain(), []
    for verdict, truth in (("rolled_back", "worse"), ("promoted", "same")):
        median = found[f"{verdict}_{unit}"]
        columns.append(percent(found[verdict]))
        columns.append(f"{median:,.0f} {unit}" if one.truth == truth and median is not None else "")
    return " | ".join(columns)


def page(name: str) -> str:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    return text.replace("**", "").replace("\N{MULTIPLICATION SIGN}", "x")


def test_every_release_of_the_study_was_simulated_and_keeps_its_bar() -> None:
    assert RESULT.runs == 1000
    assert list(FOUND) == [one.name for one in (*SCENARIOS, *LABELLED)]
    assert not [one.name for one in FOUND.values() if one.judged and not one.met]


@pytest.mark.parametrize("row", ROWS)
def test_the_release_s_page_says_what_was_simulated(row: str) -> None:
    (line,) = (line for line in page("release.md").splitlines() if line.startswith(f"| {row} |"))
    assert " ".join(line.split()) == " ".join(f"| {row} | {cells(FOUND[ROWS[row]])} |".split())


def test_the_release_s_page_says_what_is_caught_in_15_minutes() -> None:
    half, one, two = (percent(FOUND[f"errors x2 of {rate} %"].caught or 0) for rate in ("0.5", "1", "2"))
    said = f"In the first 15 minutes, {half} of errors x2 of 0.5 % are rolled back, {one} of 1 % and {two} of 2 %."
    assert said in " ".join(page("release.md").split())


def test_the_benchmarks_say_the_most_false_verdicts_and_what_has_no_bar() -> None:
    kept = [one for one in FOUND.values() if one.judged]
    most_back, most_promoted = (
        percent(max(one.plain()[f"false_{kind}"] for one in kept)) for kind in ("rollbacks", "promotions")
    )
    said = (
        f"rolls at most {most_back} of equal candidates back and promotes at most {most_promoted} of worse ones, with "
        "bursts too (target: 1 %); catches twice the errors (1 %) in 15 minutes in "
        f"{percent(FOUND['errors x2 of 1 %'].caught or 0)} ([release](release.md))"
    )
    assert said in page("benchmarks.md")
