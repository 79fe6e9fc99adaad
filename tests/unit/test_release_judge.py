"""The judge of a release: its three verdicts, and counters with faults."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.studies.judge.__main__ import simulated, simulated_labels
from benchmarks.studies.judge.scenarios import LABELLED, SCENARIOS, Bursts, Scenario
from slipway.contract.release import JudgeSettings
from slipway.errors import DataError, SpecError
from slipway.operations.release import judge as release_judge
from slipway.operations.release.counts import Arm, Counters, Disagreements, Moment, Reading, TrialBlock, blocks_of
from slipway.operations.release.e_values import MIN_BLOCKS
from slipway.operations.release.judge import ReleaseJudgement, ReleaseVerdict, judge
from slipway.operations.release.looks import USUAL, disagreement_looks, ratio_interval

SETTINGS = JudgeSettings(bake_minutes=0)
BURST = USUAL.burst
ARMS = ("candidate_per_block", "stable_per_block")


def blocks(number, *, errors=0.01, ratio=1.0, slow=0.002, seed=0, candidate_per_block=50, stable_per_block=450):
    rng = np.random.default_rng(seed)

    def arm(mean, share):
        requests = int(rng.poisson(mean))
        return Arm(requests, int(rng.binomial(requests, min(share, 1))), int(rng.binomial(requests, slow)))

    return [TrialBlock(arm(stable_per_block, errors), arm(candidate_per_block, errors * ratio)) for _ in range(number)]


def verdict(told, **kwargs):
    return judge(told, settings=SETTINGS, **kwargs).verdict


def test_no_difference_is_fine_and_twice_the_errors_are_worse():
    assert verdict(blocks(120)) is ReleaseVerdict.FINE
    found = judge(blocks(180, ratio=2.5), settings=SETTINGS)
    assert found.verdict is ReleaseVerdict.WORSE
    errors = found.series[0]
    assert errors.ratio_low < 2.5 < errors.ratio_high
    assert "errors: candidate" in found.reason


def with_a_burst(share, *, number=BURST, seed=0, **traffic):
    told, rng = blocks(240, seed=seed, **traffic), np.random.default_rng(seed)
    for index in range(12, 12 + number):
        arm = told[index].candidate
        errors = int(share * arm.requests + rng.random())
        told[index] = replace(told[index], candidate=replace(arm, errors=errors))
    return told


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_one_burst_of_two_minutes_is_no_verdict_and_the_reason_says_so(share):
    during = judge(with_a_burst(share)[: 12 + BURST], settings=SETTINGS)
    assert during.verdict is ReleaseVerdict.TOO_FEW
    assert "what speaks against it fell into two minutes" in during.reason
    assert verdict(with_a_burst(share)) is not ReleaseVerdict.WORSE


def test_what_outlasts_a_burst_is_worse_and_so_is_what_fails_at_once():
    assert verdict(with_a_burst(0.1, number=2 * BURST)[: 12 + 2 * BURST]) is ReleaseVerdict.WORSE
    assert verdict(blocks(6, errors=0.001, ratio=1000)) is ReleaseVerdict.WORSE


def test_a_burst_is_two_minutes_however_far_the_readings_are_apart():
    told = [
        replace(block, seconds=60.0) for block in blocks(8, candidate_per_block=600, stable_per_block=5400, ratio=20)
    ]
    assert verdict(told[:6]) is ReleaseVerdict.WORSE
    assert verdict([replace(block, seconds=5.0) for block in told]) is ReleaseVerdict.TOO_FEW


def test_the_recent_time_is_ten_minutes_however_far_the_readings_are_apart():
    """Good for half an hour, and then no answer: among all readings that looks like one accident."""
    good = blocks(30, candidate_per_block=600, stable_per_block=5400)
    told = [replace(block, seconds=60.0) for block in (*good, *blocks(10, errors=1e-3, ratio=1000))]
    assert verdict(told) is ReleaseVerdict.WORSE


@pytest.mark.parametrize("share", [0.3, 0.45])
@pytest.mark.parametrize("traffic", [{"candidate_per_block": 1, "stable_per_block": 9}, dict.fromkeys(ARMS, 5)])
def test_an_accident_of_two_minutes_is_no_verdict_where_requests_are_few(share, traffic):
    """More than half of a few requests fail by chance."""
    accidents = (with_a_burst(share, seed=seed, **traffic) for seed in range(20))
    assert sum(verdict(told) is ReleaseVerdict.WORSE for told in accidents) <= 1


def test_a_burst_of_slow_requests_is_no_verdict_either():
    told = [replace(b, candidate=replace(b.candidate, over_budget=5)) for b in blocks(BURST)]
    found = judge(told, settings=SETTINGS)
    assert found.verdict is ReleaseVerdict.TOO_FEW
    assert "over budget" in found.reason
    assert "two minutes" in found.reason
    assert verdict(told + told) is ReleaseVerdict.WORSE


def test_a_candidate_is_judged_worse_by_its_latency_alone():
    found = judge(blocks(120, slow=0.05), settings=SETTINGS)
    assert found.verdict is ReleaseVerdict.WORSE
    assert found.reason.startswith("over budget")
    assert verdict_without_latency(blocks(120, slow=0.05)) is ReleaseVerdict.FINE


def verdict_without_latency(told):
    return judge(told, settings=JudgeSettings(slow_share=None, bake_minutes=0)).verdict


@pytest.mark.parametrize("told", [[], [TrialBlock(Arm(0, 0, 0), Arm(0, 0, 0))] * 5000])
def test_no_data_never_passes(told):
    found = judge(told, settings=SETTINGS)
    assert found.verdict is ReleaseVerdict.TOO_FEW
    assert found.expired is (bool(told) and found.hours >= 24)


def test_a_candidate_without_traffic_never_passes_and_expires():
    found = judge(blocks(17280 // 8, candidate_per_block=0), settings=JudgeSettings(max_hours=2))
    assert found.verdict is ReleaseVerdict.TOO_FEW
    assert found.expired
    assert "nothing is promoted" in found.reason


def test_without_stable_traffic_a_candidate_is_fine_only_by_its_own_share():
    assert verdict(blocks(400, errors=0.0, stable_per_block=0)) is ReleaseVerdict.FINE
    assert verdict(blocks(400, errors=0.01, stable_per_block=0)) is ReleaseVerdict.TOO_FEW


def test_a_missing_series_is_not_zero_errors():
    told = [TrialBlock(Arm(450, 4, 0), Arm(50, None, 0)) for _ in range(400)]
    found = judge(told, settings=SETTINGS)
    assert found.verdict is ReleaseVerdict.TOO_FEW
    assert "missing in 100 %" in found.reason.replace("100%", "100 %")
    some = [TrialBlock(b.stable, Arm(b.candidate.requests, None, b.candidate.over_budget)) for b in blocks(60)]
    assert verdict(blocks(240) + some) is ReleaseVerdict.TOO_FEW


def test_fine_waits_until_the_candidate_has_had_requests_for_the_bake_time():
    settings = JudgeSettings()
    early = judge(blocks(719), settings=settings)  # blocks of 5 s: five seconds under an hour
    assert early.verdict is ReleaseVerdict.TOO_FEW
    assert early.reason.startswith("fine so far, in 59 of 60 minutes (bake_minutes): errors: candidate ")
    assert judge(blocks(720), settings=settings).verdict is ReleaseVerdict.FINE
    idle = [TrialBlock(Arm(450, 4, 0), Arm(0, 0, 0))] * 720
    waited = judge(blocks(240) + idle, settings=settings)
    assert waited.verdict is ReleaseVerdict.TOO_FEW
    assert waited.baked_minutes == 20
    assert judge(blocks(60, ratio=6), settings=settings).verdict is ReleaseVerdict.WORSE


def test_where_every_request_fails_the_verdict_comes_at_once():
    assert verdict(blocks(MIN_BLOCKS + 2, errors=0.001, ratio=1000)) is ReleaseVerdict.WORSE
    both = [TrialBlock(Arm(450, 450, 0), Arm(50, 50, 0)) for _ in range(200)]
    assert verdict(both) is ReleaseVerdict.FINE  # of errors there is no difference


def test_worse_at_one_look_stays_worse():
    bad, good = blocks(60, ratio=6), blocks(600, ratio=0.5, seed=1)
    assert verdict(bad) is ReleaseVerdict.WORSE
    assert verdict(bad + good) is ReleaseVerdict.WORSE


def test_a_change_of_weight_while_errors_rise_is_not_worse():
    """The candidate has more of its traffic when errors are frequent: its total share is twice the stable one's."""
    early = blocks(150, errors=0.004, candidate_per_block=5, stable_per_block=495)
    late = blocks(150, errors=0.02, candidate_per_block=250, stable_per_block=250, seed=1)
    found = judge(early + late, settings=SETTINGS)
    errors = found.series[0]
    assert errors.ratio > 1.7
    assert errors.verdict is not ReleaseVerdict.WORSE
    assert errors.ratio_low < 1 < errors.ratio_high


def test_the_least_number_of_labels_that_decides_is_found_in_few_looks(monkeypatch):
    looked = []

    def look(lost, won, **given):
        looked.append(won[-1])
        return disagreement_looks(lost, won, **given)

    monkeypatch.setattr(release_judge, "disagreement_looks", look)
    told = Disagreements(compared=100_000, differing=50_000, lost=3000, won=2500)
    strict = JudgeSettings(error_ratio=1.25, acceptable_ratio=1.26)
    reason = judge([], settings=strict, disagreements=[told]).series[-1].reason
    assert len(looked) < 40
    more = int(re.findall(r"([\d,]+) more labels decide", reason)[0].replace(",", ""))
    assert more > 40, "one look for each would be more"
    won = [replace(told, won=2500 + labels) for labels in (more - 1, more)]
    found = [judge([], settings=strict, disagreements=[one]).series[-1].verdict for one in won]
    assert found == ["too_few", "fine"]


@pytest.mark.parametrize(
    ("lost", "won", "expected"),
    [(0, 0, "too_few"), (4, 4, "too_few"), (16, 0, "worse"), (0, 9, "fine"), (60, 20, "worse"), (90, 90, "fine")],
)
def test_disagreements_are_judged_by_lost_and_won(lost, won, expected):
    told = Disagreements(compared=2000, differing=400, lost=lost, won=won)
    series = judge(blocks(120), settings=SETTINGS, disagreements=[told]).series[-1]
    assert series.verdict == expected


def test_few_differences_need_no_label():
    told = Disagreements(compared=20_000, differing=2, lost=0, won=0)
    assert verdict(blocks(120), disagreements=[told]) is ReleaseVerdict.FINE
    none = Disagreements(compared=0, differing=0, lost=0, won=0)
    assert verdict(blocks(120), disagreements=[none]) is ReleaseVerdict.TOO_FEW


def test_impossible_counts_are_refused_with_what_is_allowed():
    with pytest.raises(DataError, match="give 0 to 5"):
        Arm(5, 6, 0)
    with pytest.raises(DataError, match="no more labels than differences"):
        Disagreements(compared=10, differing=2, lost=2, won=1)
    with pytest.raises(SpecError, match="error_ratio must be smaller"):
        JudgeSettings.parse({"error_ratio": 3}, source="fleet.yaml")
    with pytest.raises(SpecError, match="bake_minutes is 60, and max_hours 1 is not longer"):
        JudgeSettings.parse({"max_hours": 1}, source="fleet.yaml")


def reading(running_s, requests, errors=0.0, *, boot="a"):
    counters = Counters(requests, errors, 0.0)
    return Reading(Moment(boot, running_s), stable=counters, candidate=counters)


def test_blocks_come_from_counters_that_go_up():
    told = blocks_of([reading(0, 10, 1), reading(5, 30, 2), reading(10, 35, 2)])
    assert [(b.candidate.requests, b.candidate.errors, b.seconds) for b in told.blocks] == [(20, 1, 5), (5, 0, 5)]


def test_a_block_in_which_a_counter_went_down_counts_nothing():
    told = blocks_of([reading(0, 100, 50), reading(5, 20, 3), reading(10, 30, 3)])
    assert [b.candidate for b in told.blocks] == [Arm(0, None, None), Arm(10, 0, 0)]
    assert told.restarts == 2  # in both arms


def test_a_series_that_a_reloaded_listener_drops_counts_no_old_request_again():
    """Envoy may drop the series of an arm's errors: they fall to 0, and the requests go on."""
    told = blocks_of([reading(0, 100_000, 5), reading(5, 100_050), reading(10, 100_100)])
    assert [b.candidate for b in told.blocks] == [Arm(0, None, None), Arm(50, 0, 0)]


def test_lines_in_another_order_cost_no_request():
    told = blocks_of([reading(0, 0), reading(5, 10), reading(2, 15), reading(5, 18), reading(10, 30)])
    assert told.out_of_order == 2
    assert sum(b.candidate.requests for b in told.blocks) == 30
    assert all(b.seconds > 0 for b in told.blocks)


def test_after_a_restart_of_the_box_readings_go_on_and_the_time_since_counts():
    told = blocks_of([reading(90_000, 0), reading(90_005, 10), reading(60, 12, boot="b"), reading(65, 20, boot="b")])
    assert [b.seconds for b in told.blocks] == [5, 60, 5]
    assert told.out_of_order == 0


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -1.0])
def test_a_value_that_is_not_a_count_is_missing(value):
    told = blocks_of([reading(0, 0), reading(5, 10, value), reading(10, 20, 3)])
    assert [b.candidate.errors for b in told.blocks] == [None, None]
    assert [b.candidate.requests for b in told.blocks] == [10, 10]
    lost = blocks_of([reading(0, 0), reading(5, value), reading(10, 20)])
    assert [b.candidate for b in lost.blocks] == [Arm(0, None, None)] * 2


@settings(max_examples=50)
@given(st.lists(st.one_of(st.none(), st.floats()), min_size=0, max_size=8), st.lists(st.floats(-9, 9), max_size=8))
def test_any_readings_make_blocks(values, times):
    readings = [reading(t, v, v) for t, v in zip(times, values, strict=False)]
    assert len(blocks_of(readings).blocks) <= len(readings)


def test_a_judgement_is_stored_and_read_again():
    found = judge(blocks(30), settings=SETTINGS, disagreements=[Disagreements(10, 2, 1, 0)])
    assert ReleaseJudgement.parse(found.plain(), source="a judgement") == found


def test_an_interval_without_events_is_unbounded():
    none = (np.zeros(10), np.full(10, 50.0))
    assert ratio_interval(none, none, dispersion=1.0, alpha=0.01) == (None, None)


def test_a_simulated_look_is_what_the_judge_says():
    for scenario in (SCENARIOS[0], Scenario("bursts", "same", 10, bursts=Bursts(0.02, 0.3, 2)), SCENARIOS[7]):
        rng = np.random.default_rng([3, *scenario.name.encode()])
        told = scenario.simulate(rng, 1)
        columns = (getattr(told, name)[0].astype(int).tolist() for name in vars(told))
        arms = [TrialBlock(Arm(n, e, None), Arm(m, f, s)) for m, f, s, n, e in zip(*columns, strict=True)]
        ever = any(verdict(arms[:end]) is ReleaseVerdict.WORSE for end in range(6, len(arms), 30)) or (
            verdict(arms) is ReleaseVerdict.WORSE
        )
        assert ever == bool(simulated(scenario, runs=1, seed=3).ever_worse)


def test_the_study_tells_a_worse_candidate_from_an_equal_one():
    same = simulated(Scenario("same", "same", 10), runs=50, seed=7)
    worse = simulated(Scenario("worse", "worse", 10, ratio=3), runs=50, seed=7)
    assert same.rolled_back <= 0.04
    assert worse.met
    assert worse.rolled_back_s < 300


def test_a_look_after_each_label_is_what_the_judge_says():
    rng = np.random.default_rng(4)
    lost, won = LABELLED[1].simulate(rng, 1)
    looks = disagreement_looks(lost, won, differing=400, compared=2000, settings=SETTINGS)
    for labels in (1, 40, 400):
        counted = int(lost[0, :labels].sum()), int(won[0, :labels].sum())
        told = Disagreements(2000, 400, *counted)
        series = judge([], settings=SETTINGS, disagreements=[told]).series[-1]
        assert series.log10_e_worse * math.log(10) == pytest.approx(max(looks.worse[0, labels - 1], 0), abs=1e-9)
        assert series.log10_e_fine * math.log(10) == pytest.approx(looks.fine[0, labels - 1], abs=1e-9)


def test_the_study_tells_versions_that_lose_twice_as_often_as_they_win_from_equal_ones():
    same, worse = (simulated_labels(scenario, runs=50, seed=7) for scenario in LABELLED)
    assert same.rolled_back <= 0.04
    assert worse.rolled_back >= 0.95
    assert worse.rolled_back_labels < 300


@pytest.mark.parametrize("calm", [12, 120, 1000])
def test_a_candidate_that_breaks_later_is_worse_ten_minutes_after(calm):
    good = blocks(calm, errors=0.001)
    assert verdict(good + blocks(130, errors=0.001, ratio=1000, seed=1)) is ReleaseVerdict.WORSE
    assert verdict(good + blocks(130, slow=0.5, seed=1)) is ReleaseVerdict.WORSE


def test_a_burst_of_two_minutes_in_the_middle_is_not_worse():
    burst = blocks(24, ratio=11, seed=1)
    for after in (0, 60, 130):
        assert verdict(blocks(180) + burst + blocks(after, seed=2)) is not ReleaseVerdict.WORSE
