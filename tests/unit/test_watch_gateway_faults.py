"""The watch beside a gateway that is slow, is another program, or fails: no look waits, and no old figure is shown."""

import pytest

from slipway.operations.journal.store import Store
from slipway.operations.release import metrics
from slipway.operations.watch import latency as latencies
from slipway.operations.watch.latency import Counted
from slipway.operations.watch.run import Watch
from tests.support import watch_looks as fixtures
from tests.support.slow_sockets import Handle, a_byte_at_a_time, answers, listening, says_nothing
from tests.support.watch_rows import add_drawn, drawn, watch_settings

bare, store, no_gateway = fixtures.bare, fixtures.store, fixtures.no_gateway


def asking(store: Store, port: int) -> Watch:
    settings = watch_settings(store.folder).model_copy(update={"metrics_port": port})
    return Watch(store, settings, say=[].append)


@pytest.mark.parametrize(
    "handle", [says_nothing, a_byte_at_a_time(b"HTTP/1.1 200 OK\r\n\r\n")], ids=["silent", "a byte at a time"]
)
def test_no_look_waits_for_a_gateway_that_answers_slowly(
    store: Store, monkeypatch: pytest.MonkeyPatch, handle: Handle
) -> None:
    monkeypatch.undo()
    assert latencies.WAIT_S <= 1
    monkeypatch.setattr(latencies, "WAIT_S", 0.01)
    monkeypatch.setattr(latencies, "AGAIN_S", 0.0)
    monkeypatch.setattr(metrics, "TIMEOUT_S", 600.0)
    add_drawn(store, drawn(20, seed=1), name="a")
    with listening(handle) as port:
        watch = asking(store, port)
        watch.look()
        thread = watch._latency._thread
        (digits,) = watch.look()
        assert thread is not None
        assert thread.is_alive(), "the looks ended before the answer"
        assert watch._latency._thread is thread, "and asked once"
    assert digits.latency is None
    assert digits.rows == 20


@pytest.mark.parametrize(
    "handle",
    [
        answers(b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n"),
        answers(b"SSH-2.0-another\r\n"),
        answers(b"HTTP/1.1 200 OK\r\n\r\n\x00\xff not metrics {"),
        answers(b'HTTP/1.1 200 OK\r\n\r\nenvoy_slipway_latency_us_bucket{model="digits"} 1\n'),
        answers(b'HTTP/1.1 200 OK\r\n\r\nenvoy_slipway_latency_us_count{model="digits"} NaN\n'),
    ],
    ids=["500", "no HTTP", "no metrics", "buckets without an edge", "a count of NaN"],
)
def test_another_program_instead_of_the_gateway_leaves_the_latency_out(
    store: Store, monkeypatch: pytest.MonkeyPatch, handle: Handle
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(latencies, "WAIT_S", 600.0)
    add_drawn(store, drawn(20, seed=1), name="a")
    with listening(handle) as port:
        watch = asking(store, port)
        (digits,) = watch.look()
    assert digits.latency is None
    assert digits.rows == 20


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_old_latency_is_not_shown_after_an_unexpected_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latencies, "AGAIN_S", 0.0)
    monkeypatch.setattr(latencies, "WAIT_S", 600.0)
    monkeypatch.setattr(latencies, "read_counts", lambda _: {"digits": Counted(1, {1.0: 1})})
    reader = latencies.LatencyReader(watch_settings(store.folder))
    assert reader.latest()["digits"].requests == 1

    def fails(_: object) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(latencies, "read_counts", fails)
    assert reader.latest() == {}
