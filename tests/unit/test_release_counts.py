"""The counts of a release: read from recorded metrics of Envoy, and kept as readings by the judge."""

import fcntl
import socket
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import ServingError, SpecError, StorageError
from slipway.contract.release import JudgeSettings
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.release import metrics, readings
from slipway.operations.release.counts import Counters, Moment, Reading, blocks_of
from slipway.operations.release.judge import judge
from slipway.operations.release.metrics import ArmCounts, counts_of
from slipway.operations.release.readings import Readings

RECORDED = (Path(__file__).parents[1] / "assets/envoy/two_arms.txt").read_text()
"""Metrics of Envoy 1.40 with two servers at 50 %: the candidate failed 30 %, clients gave up, and it was killed."""
PORTS = {
    "stable": {"grpc": 43945, "http": 43841, "status": 35525},
    "candidate": {"grpc": 42667, "http": 45315, "status": 36701},
}
BOTH = {"colours", "colours_full"}


def settings(**changes: Any) -> GatewaySettings:
    return GatewaySettings.parse({"teams": {"pets": {"key_file": "pets.key"}}, **PORTS, **changes}, source="test")


def test_the_counts_of_both_arms_are_read_from_what_envoy_says() -> None:
    found = counts_of(RECORDED, RECORDED, settings=settings(), models=BOTH)
    assert found["stable"] == ArmCounts(requests=63, errors=1, elsewhere=0, over_budget=0)
    # 12 internal errors and 4 of HTTP, 8 that stable answered instead, and 2 whose client gave up
    assert found["candidate"] == ArmCounts(requests=57, errors=26, elsewhere=8, over_budget=0)


def test_only_the_models_of_the_candidate_are_counted() -> None:
    found = counts_of(RECORDED, RECORDED, settings=settings(), models={"colours_full"})
    assert (found["stable"].requests, found["candidate"].requests, found["candidate"].errors) == (4, 6, 2)


def test_requests_over_the_budget_are_those_beyond_its_edge() -> None:
    for budgets in ({"colours": 1, "colours_full": 1}, {"colours": 1}):
        found = counts_of(RECORDED, RECORDED, settings=settings(budgets_ms=budgets), models=BOTH)
        assert (found["stable"].over_budget, found["candidate"].over_budget) == (62, 51)
    only_full = counts_of(RECORDED, RECORDED, settings=settings(budgets_ms={"colours_full": 1}), models={"colours"})
    assert only_full["stable"].over_budget == 0, "colours has the default"


def test_a_budget_that_the_running_gateway_does_not_count_is_an_error() -> None:
    with pytest.raises(SpecError, match="colours: 47 ms is not an edge of the running gateway's histogram; start the"):
        counts_of(RECORDED, RECORDED, settings=settings(budgets_ms={"colours": 47}), models=BOTH)


def test_a_missing_histogram_is_not_a_count_of_zero() -> None:
    found = counts_of(RECORDED, "", settings=settings(), models=BOTH)
    assert found["stable"].over_budget is found["candidate"].over_budget is None
    nothing = counts_of("", "", settings=settings(), models=BOTH)
    assert nothing["candidate"] == ArmCounts(requests=0, errors=0, elsewhere=0, over_budget=0)


@pytest.mark.parametrize(
    ("answers", "latency"),
    [
        ("<html>", ""),
        ('envoy_slipway_answers{model="colours",arm="stable",grpc="OK"} NaN\n', ""),
        ('envoy_slipway_answers{model="colours",arm="stable",grpc="OK"} +Inf\n', ""),
        (
            "",
            'envoy_slipway_latency_us_bucket{model="colours",arm="stable",le="x"} 1\n'
            'envoy_slipway_latency_us_count{model="colours",arm="stable"} 1\n',
        ),
        (
            "",
            'envoy_slipway_latency_us_bucket{model="colours",arm="stable"} 1\n'
            'envoy_slipway_latency_us_count{model="colours",arm="stable"} 1\n',
        ),
    ],
    ids=["a page", "a count of NaN", "a count without an end", "an edge that is not a number", "no edge"],
)
def test_what_is_not_metrics_is_refused(answers: str, latency: str) -> None:
    with pytest.raises(ServingError, match="cannot be read"):
        counts_of(answers, latency, settings=settings(), models=BOTH)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na 1\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na 1\n", "ended its answer 5 bytes early; call again"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + b"a 1\n" * 3,
            "answers with over 10 bytes; is it a gateway",
        ),
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "answers 404; is it a gateway"),
    ],
)
def test_metrics_that_are_not_whole_are_refused(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, words: str | None
) -> None:
    monkeypatch.setattr(metrics, "MOST_BYTES", 10)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def once() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        served = pool.submit(once)
        given = settings(metrics_port=server.getsockname()[1])
        if words is None:
            assert metrics.fetch(given, ".") == "a 1\n"
        else:
            with pytest.raises(ServingError, match=words):
                metrics.fetch(given, ".")
        served.result()


def reading(running_s: float, requests: int, *, boot: str = "a") -> Reading:
    return Reading(Moment(boot, running_s), Counters(requests, 1, 0), Counters(requests, 2, None))


def test_readings_outlive_their_process_and_a_line_that_was_cut(tmp_path: Path) -> None:
    kept = Readings(tmp_path / "readings.jsonl")
    assert kept.kept().readings == ()
    assert [kept.append(reading(running_s, 10)) for running_s in (0, 5, 6, 9.6)] == [True, True, False, True]
    kept.path.write_bytes(kept.path.read_bytes()[:-20])
    again = Readings(kept.path)
    assert again.append(reading(15, 20))
    assert [one.moment.running_s for one in again.kept().readings] == [0, 5, 15]
    assert again.kept().damaged == 1
    assert again.kept().readings[-1] == reading(15, 20)


def test_two_judges_at_once_append_one_reading(tmp_path: Path) -> None:
    kept = Readings(tmp_path / "readings.jsonl")
    kept.append(reading(0, 10))
    line = kept.path.read_bytes().replace(b'"running_s":0.0', b'"running_s":10.1')
    with kept.path.open("ab") as first, ThreadPoolExecutor(1) as pool:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = pool.submit(kept.append, reading(10, 20))
        assert wait([second], timeout=0.2).not_done
        first.write(line)
        first.flush()
        fcntl.flock(first, fcntl.LOCK_UN)
        assert second.result(timeout=5) is False
    assert [one.moment.running_s for one in kept.kept().readings] == [0, 10.1]


def test_a_gateway_that_was_started_again_is_counted_from_its_first_reading_on(tmp_path: Path) -> None:
    kept = Readings(tmp_path / "readings.jsonl")
    for running_s, requests in ((0, 100), (5, 150), (10, 30), (15, 45)):
        kept.append(reading(running_s, requests))
    told = blocks_of(kept.kept().readings)
    assert [block.candidate.requests for block in told.blocks] == [50, 0, 15]
    assert told.restarts == 2  # one of each arm


def test_a_reading_that_another_judge_has_overtaken_is_not_kept(tmp_path: Path) -> None:
    kept = Readings(tmp_path / "readings.jsonl")
    assert kept.append(reading(100, 10))
    assert not kept.append(reading(90, 9)), "its judge was stopped between reading and writing"
    assert kept.append(reading(30, 2, boot="b")), "the box was started again"


@pytest.mark.parametrize("jump_s", [-3600, -(10**9), 48 * 3600])
def test_a_clock_that_is_set_hides_no_error_and_ends_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    """Nine readings, then the clock is set, and the candidate's errors rise from 1 to 10 % for longer than a burst."""
    kept, clock, errors = Readings(tmp_path / "readings.jsonl"), 1e9, 0
    for look in range(57):
        if look == 9:
            clock += jump_s
        clock, errors = clock + 5, errors + (2 if look < 9 else 20)
        monkeypatch.setattr(readings.time, "time", lambda now=clock: now)
        arms = Counters(200 * look, 2 * look, 0), Counters(200 * look, errors, 0)
        assert kept.append(Reading(Moment("a", 1000 + 5 * look), *arms))
        judgement = judge(blocks_of(kept.kept().readings).blocks, settings=JudgeSettings())
        assert not judgement.expired
    assert judgement.verdict == "worse", "within four minutes"
    assert judgement.hours == pytest.approx(56 * 5 / 3600)


def test_a_look_is_dated_by_a_clock_that_nobody_sets() -> None:
    first, second = readings.present(), readings.present()
    assert first.boot == second.boot != ""
    assert 0 <= first.until(second) < 60


def test_readings_that_cannot_be_read_are_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"{tmp_path}: .*give another path"):
        Readings(tmp_path).kept()
