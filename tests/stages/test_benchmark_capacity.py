"""The search for the capacity of a stub in a process of its own: its verdict, its file and what it prints."""

import json

import numpy as np
import pytest

import slipway.benchmark.capacity as capacity_module
from slipway.benchmark import CapacityResult, LatencyVerdict
from slipway.cli import gate
from tests.support.stub_process import stub_process


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    (folder / "image.jpg").write_bytes(b"image")
    return folder


@pytest.fixture(scope="module")
def capacity(images, tmp_path_factory):
    """Search coarsely what a server holds that answers one request at a time, each in 5 ms: at most 200 requests/s."""
    output = tmp_path_factory.mktemp("capacity") / "capacity.json"
    with stub_process("--latency-ms", 5, "--at-once", 1) as stub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(capacity_module, "RESOLUTION", 1.5)
        patch.setattr(capacity_module, "MAX_CONFIRMATIONS", 1)
        patch.setattr(capacity_module, "SEARCH_BUDGET_S", 15.0)
        line = f"stub --images {images} --url {stub.url} --find-capacity --rate 240 --limit-ms 100 --blocks 2"
        sizes = "--requests-per-block 460 --warm-up-requests 20 --minutes 0.01 --out"
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
