"""The study of the judge: which verdicts are false, and a candidate that has more bursts than stable."""

import numpy as np
import pytest

from benchmarks.studies.judge.__main__ import summary
from benchmarks.studies.judge.scenarios import Bursts, Scenario

BREAKS = Scenario("breaks", "worse", 1, calm_min=0.25)
"""Good at the first three looks."""
NEVER = -1


def looks(*first: int) -> np.ndarray:  # type: ignore[type-arg]
    """Whether each of twelve looks says it: from the given look of each run on."""
    return np.array([[0 <= one <= look for look in range(12)] for one in first])


@pytest.mark.parametrize(
    ("worse", "fine", "shares", "met"),
    [
        ([9, 9], [NEVER, NEVER], (1.0, 0.0, 0.0, 0.0), True),
        ([9, NEVER], [NEVER, 2], (0.5, 0.5, 0.0, 0.0), True),
        ([9, NEVER], [NEVER, 3], (0.5, 0.5, 0.0, 0.5), False),
        ([9, 2], [NEVER, NEVER], (1.0, 0.0, 0.5, 0.0), False),
        ([9, NEVER], [NEVER, NEVER], (0.5, 0.0, 0.0, 0.0), False),
    ],
    ids=["caught", "promoted while good", "promoted once broken", "rolled back while good", "not caught"],
)
def test_a_verdict_is_false_by_what_the_candidate_was_then(
    worse: list[int], fine: list[int], shares: tuple[float, ...], met: bool
) -> None:
    told, _, _ = summary(BREAKS, looks(*worse), looks(*fine))
    assert (told.rolled_back, told.promoted, told.false_rollbacks, told.false_promotions) == shares
    assert told.met is met


@pytest.mark.parametrize(
    ("truth", "false"), [("same", (0.5, 0.0)), ("worse", (0.0, 0.5)), ("at the limit", (0.0, 0.5))]
)
def test_without_a_calm_time_the_truth_alone_says_which_verdict_is_false(
    truth: str, false: tuple[float, float]
) -> None:
    told, _, _ = summary(Scenario("one", truth, 1), looks(5, NEVER), looks(NEVER, 5))  # type: ignore[arg-type]
    assert (told.false_rollbacks, told.false_promotions) == false


def test_the_candidate_alone_has_more_bursts() -> None:
    scenario = Scenario("more", "at the limit", 60, errors=0.0, bursts=Bursts(0.005, 1.0, 1, more=4))
    told = scenario.simulate(np.random.default_rng(0), 50)
    candidate = told.candidate_errors.sum() / told.candidate_requests.sum()
    stable = told.stable_errors.sum() / told.stable_requests.sum()
    assert 3 < candidate / stable < 5
