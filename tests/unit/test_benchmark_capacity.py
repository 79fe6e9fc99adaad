"""The search for the capacity: where it looks, what it confirms, and what it says when it cannot."""

import json

import numpy as np
import pytest

import slipway.benchmark.capacity as capacity_module
from slipway.benchmark import CapacityResult, GateOptions, LatencyVerdict, find_capacity
from slipway.benchmark.capacity import MAX_CONFIRMATIONS, MAX_SEARCHES, RESOLUTION, SEARCH_BUDGET_S, confirm, search
from slipway.cli import gate
from slipway.contract import SpecError
from tests.support.stub_process import stub_process


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


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    (folder / "image.jpg").write_bytes(b"image")
    return folder


@pytest.fixture(scope="module")
def capacity(images, tmp_path_factory):
    """Of a server that answers one request at a time, 5 ms each: 200 requests/s at the very most. A coarse search."""
    output = tmp_path_factory.mktemp("capacity") / "capacity.json"
    with stub_process("--latency-ms", 5, "--at-once", 1) as stub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(capacity_module, "RESOLUTION", 1.5)
        patch.setattr(capacity_module, "MAX_CONFIRMATIONS", 1)
        patch.setattr(capacity_module, "SEARCH_BUDGET_S", 15.0)
        line = f"stub --images {images} --url {stub.url} --find-capacity --rate 240 --limit-ms 100 --blocks 2"
        sizes = "--requests-per-block 460 --warm-up-requests 20 --minutes 0.01 --output"
        code = gate.main(gate.parser().parse_args([*line.split(), *sizes.split(), str(output)]))
        return code, CapacityResult.read(output)


def test_the_capacity_of_a_queue_is_under_what_it_can_serve(capacity):
    code, found = capacity
    assert (
        code
        == {LatencyVerdict.PASS: 0, LatencyVerdict.TOO_FEW: 3, LatencyVerdict.FAIL: 1, LatencyVerdict.LATE: 4}[
            found.verdict
        ]
    )
    assert found.not_passed_per_s <= 240
    assert found.passed_per_s is None or 50 <= found.passed_per_s < min(200, found.not_passed_per_s)
    assert (found.passed_per_s is not None) == (found.verdict is LatencyVerdict.PASS)
    assert found.rungs[0].rate_per_s == 240
    assert found.rungs[0].verdict in (LatencyVerdict.FAIL, LatencyVerdict.LATE)


def test_every_rate_that_was_tried_is_in_the_file(capacity):
    _, found = capacity
    searched = [rung for rung in found.rungs if not rung.confirms]
    confirmed = found.rungs[len(searched) :]
    assert all(len(rung.blocks) == 1 for rung in searched)
    assert confirmed or all(rung.verdict in (LatencyVerdict.FAIL, LatencyVerdict.LATE) for rung in searched)
    assert all(rung.confirms and len(rung.blocks) == 2 for rung in confirmed)
    assert all(rung.blocks[0].histogram for rung in found.rungs)
    assert all(rung.steps[0].requests == 480 * len(rung.blocks) for rung in found.rungs if not rung.failures)


def test_every_rate_is_printed_and_the_interval_last(images, capsys, monkeypatch):
    monkeypatch.setattr(capacity_module, "SEARCH_BUDGET_S", 5.0)
    with stub_process("--latency-ms", 300) as stub:
        line = f"stub --images {images} --url {stub.url} --find-capacity --rate 400 --limit-ms 200 --json"
        arguments = [*line.split(), "--requests-per-block", "460", "--warm-up-requests", "0", "--seed", "5"]
        assert gate.main(gate.parser().parse_args(arguments)) in (1, 4)  # 4: on a busy machine the generator is late
    *lines, last = capsys.readouterr().out.splitlines()
    rungs = json.loads(last)["rungs"]
    assert [line.split()[1] for line in lines if line.startswith("search ")] == [
        f"{r['rate_per_s']:.1f}/s" for r in rungs
    ]
    assert lines[-1].startswith(f"CAPACITY: not shown, under {min(r['rate_per_s'] for r in rungs):.1f} with P99 within")
    assert np.all(np.diff([r["rate_per_s"] for r in rungs]) < 0)


def test_blocks_that_can_show_nothing_are_refused(images):
    with pytest.raises(SpecError, match="requests_per_block 458 proves nothing; give 459 or more"):
        find_capacity(GateOptions(model="stub", images=images, requests_per_block=458))
