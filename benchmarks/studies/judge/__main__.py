#!/usr/bin/env python3
"""How often the judge of a release errs, and how soon it tells: simulated releases whose truth is known."""

import argparse
import json
from collections.abc import Iterator

import numpy as np

from benchmarks.studies.judge.scenarios import PER_S, SCENARIOS, WEIGHT, Scenario
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
promoted), or promoted, with the median time. The judge looks after every 5 s.

exit status: 0; 1 where more than 1 % of the verdicts are false, or under 95 % of the worse candidates are caught"""


class Judged(Part):
    """One kind of release."""

    name: str
    truth: str
    minutes: float
    rolled_back: float
    """Share of the runs."""
    promoted: float
    too_few: float
    rolled_back_s: float | None
    """Median seconds until then."""
    promoted_s: float | None
    ever_worse: float
    """Share of the runs in which any look, until the end, said worse: as where nobody promotes."""
    judged: bool
    met: bool


class JudgeResult(StudyResult):
    runs: int
    requests_per_s: float
    weight: float
    releases: tuple[Judged, ...]


def main(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    releases = [
        simulated(scenario, runs=arguments.runs, seed=arguments.seed)
        for scenario in tqdm(SCENARIOS, unit=" releases", leave=False, disable=None)
    ]
    result = {
        "runs": arguments.runs,
        "requests_per_s": PER_S,
        "weight": WEIGHT,
        "seed": arguments.seed,
        "releases": [release.plain() for release in releases],
        **provenance(()),
    }
    write_file(arguments.out, JudgeResult.parse(result, source="the result").to_json())
    print("\n".join(table(releases)))
    missed = [release for release in releases if release.judged and not release.met]
    if arguments.json:
        print(json.dumps({"out": str(arguments.out), "verdict": "fail" if missed else "pass"}))
    return 1 if missed else 0


def simulated(scenario: Scenario, *, runs: int, seed: int) -> Judged:
    from slipway.contract.release import JudgeSettings
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
        fine.append(np.logical_and.reduce([looks.fine >= needed for looks, _, needed in both]))
    return summary(scenario, np.concatenate(worse), np.concatenate(fine))


def summary(scenario: Scenario, worse: np.ndarray, fine: np.ndarray) -> Judged:  # type: ignore[type-arg]
    """From whether each look `[runs, blocks]` says worse, and fine; worse comes first where both do."""
    from slipway.operations.release.counts import BLOCK_S

    blocks = worse.shape[1]
    first_worse, first_fine = (np.where(hit.any(axis=1), hit.argmax(axis=1), blocks) for hit in (worse, fine))
    back = (first_worse < blocks) & (first_worse <= first_fine)
    promoted = (first_fine < blocks) & ~back

    def median_s(which: np.ndarray, first: np.ndarray) -> float | None:  # type: ignore[type-arg]
        return float(np.median(first[which]) + 1) * BLOCK_S if which.any() else None

    rolled_back, passed = float(back.mean()), float(promoted.mean())
    met = {
        "same": rolled_back <= FALSE,
        "worse": rolled_back >= CAUGHT and passed <= FALSE,
        "at the limit": passed <= FALSE,
    }[scenario.truth]
    return Judged(
        name=scenario.name,
        truth=scenario.truth,
        minutes=scenario.minutes,
        rolled_back=rolled_back,
        promoted=passed,
        too_few=1 - rolled_back - passed,
        rolled_back_s=median_s(back, first_worse),
        promoted_s=median_s(promoted, first_fine),
        ever_worse=float(worse.any(axis=1).mean()),
        judged=scenario.judged,
        met=met,
    )


def table(releases: list[Judged]) -> Iterator[str]:
    yield f"{'release':56}{'rolled back':>20}{'promoted':>20}{'too few':>9}   bar"
    for e in releases:
        cells = (
            f"{share:.1%}" + (f" ({seconds:,.0f} s)" if seconds is not None else "")
            for share, seconds in ((e.rolled_back, e.rolled_back_s), (e.promoted, e.promoted_s))
        )
        bar = "not judged" if not e.judged else "met" if e.met else "MISSED"
        yield f"{e.name:56}" + "".join(cell.rjust(20) for cell in cells) + f"{e.too_few:9.1%}   {bar}"


def parser() -> argparse.ArgumentParser:
    return simulation_parser(__doc__, epilog=EPILOG, runs_of="each kind of release", result=RESULT, key="releases")


if __name__ == "__main__":
    run(main, parser())
