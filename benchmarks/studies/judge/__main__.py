#!/usr/bin/env python3
"""Measure how often the judge of a release errs and how soon it decides, by simulated releases whose truth is known."""

import argparse
import json
from collections.abc import Iterator

import numpy as np

from benchmarks.studies.judge.scenarios import LABELLED, PER_S, SCENARIOS, WEIGHT, Labelled, Scenario
from benchmarks.studies.study import ROOT, provenance, simulation_parser
from slipway.contract.evidence.studies import Part, StudyResult
from slipway.system.process import run
from slipway.system.targets import write_file

RESULT = ROOT / "benchmarks/results/judge.json"
FALSE, CAUGHT = 0.01, 0.95
"""Bars: the largest share of false verdicts, and the smallest share of worse candidates that are caught."""
AT_ONCE = 250
"""Runs that are simulated together, to bound memory."""
EPILOG = """A line for each kind of release: the share of runs in which the judge rolled back (before it would have
promoted), or promoted, with the median time or number of labels, and the share of the runs whose verdict was false. The
judge looks every 5 s, and after every label.

exit status: 0; 1 where more than 1 % of the verdicts are false, or under 95 % of the worse candidates are caught"""


class Verdicts(Part):
    """Verdicts on one kind of release."""

    name: str
    truth: str
    rolled_back: float
    """Share of the runs."""
    caught: float | None
    """Share of the runs that were rolled back in the time (or after the labels) of the bar, among those that had no
    verdict while the candidate was good; None unless it is worse."""
    promoted: float
    too_few: float
    false_rollbacks: float
    """Share of the runs that were rolled back while the candidate was as good as stable."""
    false_promotions: float
    """Share of the runs that were promoted while the candidate was worse, or at the limit."""
    ever_worse: float
    """Share of the runs in which any look until the end said worse, had no candidate been promoted."""
    judged: bool
    met: bool


class Judged(Verdicts):
    """Verdicts on a kind of release that is judged by its counts."""

    per_s: float
    """Requests of both arms."""
    minutes: float
    caught_min: float
    """Minutes of the bar for `caught`."""
    rolled_back_s: float | None
    """Median seconds until the rollback."""
    promoted_s: float | None


class JudgedByLabels(Verdicts):
    """Verdicts on a kind of release that is judged by its disagreements."""

    labels: int
    rolled_back_labels: float | None
    """Median number of labels until the rollback."""
    promoted_labels: float | None


class JudgeResult(StudyResult):
    runs: int
    requests_per_s: float
    weight: float
    releases: tuple[Judged, ...]
    disagreements: tuple[JudgedByLabels, ...]


def main(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    origin = provenance(())
    releases = [
        simulated(scenario, runs=arguments.runs, seed=arguments.seed)
        for scenario in tqdm(SCENARIOS, unit=" releases", leave=False, disable=None)
    ]
    labelled = [simulated_labels(scenario, runs=arguments.runs, seed=arguments.seed) for scenario in LABELLED]
    result = JudgeResult(
        runs=arguments.runs,
        requests_per_s=PER_S,
        weight=WEIGHT,
        seed=arguments.seed,
        releases=tuple(releases),
        disagreements=tuple(labelled),
        **origin,
    )
    write_file(arguments.out, result.to_json())
    print("\n".join(table(releases, labelled)))
    missed = [release for release in (*releases, *labelled) if release.judged and not release.met]
    if arguments.json:
        print(json.dumps({"out": str(arguments.out), "verdict": "fail" if missed else "pass"}))
    return 1 if missed else 0


def simulated(scenario: Scenario, *, runs: int, seed: int) -> Judged:
    from slipway.contract.release import JudgeSettings
    from slipway.operations.release.counts import BLOCK_S
    from slipway.operations.release.looks import error_looks, limits_of, share_looks

    settings = JudgeSettings()
    assert settings.slow_share is not None
    rng = np.random.default_rng([seed, *scenario.name.encode()])
    worse, fine = [], []
    for first in range(0, runs, AT_ONCE):
        told = scenario.simulate(rng, min(AT_ONCE, runs - first))
        errors = error_looks(
            (told.candidate_errors, told.candidate_requests),
            (told.stable_errors, told.stable_requests),
            settings=settings,
        )
        slow = share_looks((told.candidate_slow, told.candidate_requests), limit=settings.slow_share)
        both = [(errors, *limits_of("errors", settings)), (slow, *limits_of("over budget", settings))]
        worse.append(np.logical_or.reduce([looks.worse >= needed for looks, needed, _ in both]))
        minutes = np.arange(1, told.stable_requests.shape[1] + 1) * BLOCK_S / 60
        baked = minutes >= settings.bake_minutes
        fine.append(baked & np.logical_and.reduce([looks.fine >= needed for looks, _, needed in both]))
    shares, back, promoted = summary(scenario, np.concatenate(worse), np.concatenate(fine))
    rolled_back_s, promoted_s = (None if looks is None else looks * BLOCK_S for looks in (back, promoted))
    return Judged(
        **shares.plain(),
        per_s=scenario.per_s,
        minutes=scenario.minutes,
        caught_min=scenario.caught_min,
        rolled_back_s=rolled_back_s,
        promoted_s=promoted_s,
    )


def simulated_labels(scenario: Labelled, *, runs: int, seed: int) -> JudgedByLabels:
    from slipway.contract.release import JudgeSettings
    from slipway.operations.release.looks import disagreement_looks, limits_of

    settings = JudgeSettings()
    lost, won = scenario.simulate(np.random.default_rng([seed, *scenario.name.encode()]), runs)
    looks = disagreement_looks(lost, won, differing=scenario.labels, compared=scenario.compared, settings=settings)
    needed_worse, needed_fine = limits_of("disagreements", settings)
    shares, back, promoted = summary(scenario, looks.worse >= needed_worse, looks.fine >= needed_fine)
    return JudgedByLabels(**shares.plain(), labels=scenario.labels, rolled_back_labels=back, promoted_labels=promoted)


def summary(
    scenario: Scenario | Labelled,
    worse: np.ndarray,  # type: ignore[type-arg]
    fine: np.ndarray,  # type: ignore[type-arg]
) -> tuple[Verdicts, float | None, float | None]:
    """Summarise the looks `[runs, looks]` that say worse, and those that say fine; worse comes first if both do.

    The share that is caught is of the runs that had no verdict while the candidate was good.

    Returns:
        The shares, and the median number of looks until a rollback and until a promotion.
    """
    looks = worse.shape[1]
    first_worse, first_fine = (np.where(hit.any(axis=1), hit.argmax(axis=1), looks) for hit in (worse, fine))
    back = (first_worse < looks) & (first_worse <= first_fine)
    promoted = (first_fine < looks) & ~back
    good = (np.minimum(first_worse, first_fine) < scenario.calm_looks) | (scenario.truth == "same")

    def median(which: np.ndarray, first: np.ndarray) -> float | None:  # type: ignore[type-arg]
        return float(np.median(first[which]) + 1) if which.any() else None

    rolled_back, passed = float(back.mean()), float(promoted.mean())
    false_rollbacks, false_promotions = float((back & good).mean()), float((promoted & ~good).mean())
    in_time = back & ~good & (first_worse < scenario.caught_looks)
    caught = float(in_time.sum() / max(1, (~good).sum())) if scenario.truth == "worse" else None
    shares = Verdicts(
        name=scenario.name,
        truth=scenario.truth,
        rolled_back=rolled_back,
        caught=caught,
        promoted=passed,
        too_few=1 - rolled_back - passed,
        false_rollbacks=false_rollbacks,
        false_promotions=false_promotions,
        ever_worse=float(worse.any(axis=1).mean()),
        judged=scenario.judged,
        met=(caught is None or caught >= CAUGHT) and max(false_rollbacks, false_promotions) <= FALSE,
    )
    return shares, median(back, first_worse), median(promoted, first_fine)


def table(releases: list[Judged], labelled: list[JudgedByLabels]) -> Iterator[str]:
    yield f"{'release':56}{'rolled back':>20}{'promoted':>20}{'too few':>9}{'false':>7}   bar"
    for one in releases:
        yield _row(one, one.rolled_back_s, one.promoted_s, unit="s")
    for other in labelled:
        yield _row(other, other.rolled_back_labels, other.promoted_labels, unit="labels")


def _row(e: Verdicts, rolled_back_after: float | None, promoted_after: float | None, *, unit: str) -> str:
    cells = (
        f"{share:.1%}" + (f" ({median:,.0f} {unit})" if median is not None else "")
        for share, median in ((e.rolled_back, rolled_back_after), (e.promoted, promoted_after))
    )
    bar = "not judged" if not e.judged else "met" if e.met else "MISSED"
    false = max(e.false_rollbacks, e.false_promotions)
    return f"{e.name:56}" + "".join(cell.rjust(20) for cell in cells) + f"{e.too_few:9.1%}{false:7.1%}   {bar}"


def parser() -> argparse.ArgumentParser:
    return simulation_parser(__doc__, epilog=EPILOG, runs_of="each kind of release", result=RESULT, key="releases")


if __name__ == "__main__":
    run(main, parser())
