"""The search for the capacity: where it looks, what it confirms, and what it says when it cannot."""

import pytest

from slipway.benchmark import GateOptions, LatencyVerdict, find_capacity
from slipway.benchmark.capacity import MAX_CONFIRMATIONS, MAX_SEARCHES, RESOLUTION, SEARCH_BUDGET_S, confirm, search
from slipway.contract import SpecError


class Known:
    """A server with a known capacity; `over` is what is said above it. Keeps the rates it was asked about."""

    def __init__(self, capacity_per_s, *, over=LatencyVerdict.FAIL, within=LatencyVerdict.PASS):
        self.capacity_per_s, self.over, self.within = capacity_per_s, over, within
        self.rates = []

    def __call__(self, rate_per_s):
        self.rates.append(rate_per_s)
        return self.within if rate_per_s <= self.capacity_per_s else self.over


@pytest.mark.parametrize("start_per_s", [10.0, 50.0, 400.0])
@pytest.mark.parametrize("capacity_per_s", [20.0, 83.0, 333.0])
@pytest.mark.parametrize("over", [LatencyVerdict.FAIL, LatencyVerdict.LATE])
@pytest.mark.parametrize("within", [LatencyVerdict.PASS, LatencyVerdict.TOO_FEW])
def test_the_search_ends_within_10_percent_of_the_capacity(start_per_s, capacity_per_s, over, within):
    server = Known(capacity_per_s, over=over, within=within)
    found_per_s = search(server, start_per_s=start_per_s, requests=500)
    assert capacity_per_s / RESOLUTION <= found_per_s <= capacity_per_s
    assert len(server.rates) <= MAX_SEARCHES
    assert min(rate for rate in server.rates if rate > capacity_per_s) <= found_per_s * RESOLUTION


def test_the_search_ends_when_no_rate_is_within_or_none_is_over():
    nothing = Known(0)
    assert search(nothing, start_per_s=50, requests=1000) is None
    assert sum(1000 / rate for rate in nothing.rates) <= SEARCH_BUDGET_S
    anything = Known(1e9)
    assert search(anything, start_per_s=50, requests=1000) == max(anything.rates)
    assert len(anything.rates) == MAX_SEARCHES


def test_the_first_rate_is_always_tried_however_long_it_takes():
    assert search(Known(1), start_per_s=1, requests=5000) == 1


def test_a_rate_that_is_not_confirmed_gives_way_to_lower_ones_a_few_times():
    server = Known(83.0)
    confirm(server, rate_per_s=90.0)
    assert server.rates == pytest.approx([90, 90 / 1.1])
    far_below = Known(60.0)  # half of what the search said
    confirm(far_below, rate_per_s=90.0)
    assert far_below.rates == pytest.approx([90, 90 / 1.1, 90 / 1.1**3, 90 / 1.1**7])
    never = Known(0, over=LatencyVerdict.TOO_FEW)
    confirm(never, rate_per_s=90.0)
    assert len(never.rates) == MAX_CONFIRMATIONS


def test_blocks_that_can_show_nothing_are_refused(tmp_path):
    with pytest.raises(SpecError, match="requests_per_block 458 proves nothing; give 459 or more"):
        find_capacity(GateOptions(model="stub", images=tmp_path, requests_per_block=458))
