"""The load generators: one schedule from several processes, on time, and gone when they should be."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from slipway.benchmark.generators import Generators, LoadTarget, choose_generators
from slipway.benchmark.processes import give_way
from slipway.contract import GateError, ServingError
from tests.support.stub_process import stub_process

GATE = Path(__file__).parents[2] / "benchmarks" / "gate.py"


def connected(count, url):
    return Generators(count, LoadTarget(url, "stub", [b"image"]))


def offer(generators, schedule_s, *, deadline_s=5.0):
    answered = []
    load = generators.offer(schedule_s, [0] * len(schedule_s), deadline_s=deadline_s, on_answers=answered.append)
    assert sum(answered) == len(schedule_s)
    return load


def children():
    return {process.pid for process in psutil.Process().children(recursive=True)}


@pytest.fixture
def no_process_is_left():
    before = children()
    yield
    assert children() == before


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.usefixtures("no_process_is_left")
def test_generators_send_one_schedule_between_them(count):
    schedule_s = np.arange(1, 51) / 100
    with stub_process("--latency-ms", 5) as stub, connected(count, stub.url) as generators:
        first, second = offer(generators, schedule_s), offer(generators, schedule_s)
        arrived_s = np.sort([line["arrived_s"] for line in stub.log()])
    for load in (first, second):
        assert load.sent.outcomes == [None] * 50
        assert (load.sent.sent_s >= schedule_s).all()
        assert (load.sent.done_s - load.sent.sent_s >= 0.005).all()
        assert load.cpu_s > 0
    # In the order of the schedule, and not one generator's after the other's.
    assert (np.diff(np.sort(first.sent.sent_s)) >= 0).all()
    assert np.median(first.sent.sent_s - schedule_s) < 0.1
    assert len(arrived_s) == 100
    assert arrived_s[49] - arrived_s[0] == pytest.approx(schedule_s[-1] - schedule_s[0], rel=0.5)


def test_fewer_requests_than_generators_are_sent_too():
    with stub_process("--latency-ms", 5) as stub, connected(3, stub.url) as generators:
        assert offer(generators, np.array([0.01])).sent.outcomes == [None]


@pytest.mark.usefixtures("no_process_is_left")
def test_a_generator_that_is_killed_ends_the_run_with_its_name():
    with stub_process("--latency-ms", 5) as stub:
        before = children()
        with connected(2, stub.url) as generators:
            os.kill(min(children() - before), signal.SIGKILL)
            with pytest.raises(GateError, match=r"load generator \d of 2 \(pid \d+\) ended with exit code -9"):
                offer(generators, np.arange(1, 101) / 10)


@pytest.mark.usefixtures("no_process_is_left")
def test_what_a_generator_cannot_do_is_the_error_it_met():
    with pytest.raises(ServingError, match="no tritonserver answers"), connected(2, "127.0.0.1:9"):
        pytest.fail("there is no server")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_generators_end_with_who_started_them(how, tmp_path):
    (tmp_path / "image.jpg").write_bytes(b"image")
    with stub_process("--latency-ms", 5) as stub:
        # As in a terminal: a job in the background is started with Ctrl-C ignored.
        python = ["env", "--default-signal=INT", sys.executable]
        command = [*python, str(GATE), "stub", "--images", str(tmp_path), "--url", stub.url, "--generators", "2"]
        gate = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        generators = []
        while len(generators) < 2 or len(stub.log()) < 30:  # in the middle of a block
            time.sleep(0.1)
            assert gate.poll() is None
            generators = psutil.Process(gate.pid).children()
        gate.send_signal(how)
        _, said = gate.communicate(timeout=30)
        _, alive = psutil.wait_procs(generators, timeout=30)
    assert not alive
    if how is signal.SIGINT:
        assert gate.returncode == 130
        assert said.strip().splitlines()[-1] == "gate.py: interrupted; nothing half-written is left"
        assert "Traceback" not in said


@pytest.mark.parametrize(
    ("rate_per_s", "cores", "shares", "count"),
    [
        (50, 2, True, 1),
        (5000, 2, True, 1),
        (5000, 16, True, 4),
        (50, 16, False, 1),
        (900, 16, False, 5),
        (9e9, 16, False, 16),
    ],
)
def test_so_many_generators_as_the_rate_needs_and_the_cores_allow(rate_per_s, cores, shares, count):
    chosen, reason = choose_generators(rate_per_s, cores=cores, shares_cores=shares)
    assert chosen == count
    assert f"{cores} cores" in reason
    assert ("a quarter" in reason) == shares


def test_who_goes_first_does_and_what_gives_way_does() -> None:
    """In a session of its own, whose turn is weighed against other sessions; else there is nothing to see."""
    code = "from slipway.benchmark.processes import go_first; print(go_first(), flush=True); input()"
    command = [sys.executable, "-P", "-c", code]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, start_new_session=True) as process:
        group = Path(f"/proc/{process.pid}/autogroup")
        goes_first = process.stdout.readline().strip() == "True"
        if goes_first:
            assert group.read_text().split()[-1] == "-10"
        else:
            assert not group.is_file() or os.geteuid() != 0
        give_way(process.pid, nice=5)
        assert not group.is_file() or group.read_text().split()[-1] == "5"
        process.communicate("\n")
