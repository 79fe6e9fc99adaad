"""Whom the journal asks again, in which order, and when it gives up: no server holds up the files of another."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from slipway.client.errors import DeadlineError, GoneError, OverloadedError, SlipwayError
from slipway.client.result import Result
from slipway.operations.journal import collector as collectors
from slipway.operations.journal import replay
from slipway.operations.journal.collector import Collector
from slipway.operations.journal.replay import NotYetError, Replayer
from tests.support.journal_rows import journal_in
from tests.support.taps import BUNDLE, Parts, changed, red, set_header
from tests.support.v2_requests import RED

STABLE, CANDIDATE = 1, 2
OTHER = "f" * 64


class World:
    """Servers by port, and the clock of replays. `asked` has the port of every request."""

    def __init__(self) -> None:
        self.now_s = 5000.0
        self.asked: list[int] = []
        self.says: dict[int, Callable[[Sequence[bytes]], list[Result]]] = {}
        self.replayer = Replayer(lambda: {"stable": STABLE, "candidate": CANDIDATE})

    def answers(self, port: int, *, bundle: str = BUNDLE) -> None:
        self.says[port] = lambda images: [red(bundle=bundle)] * len(images)

    def fails(self, port: int, error: SlipwayError, *, after_s: float = 0.0) -> None:
        def fail(images: Sequence[bytes]) -> list[Result]:
            self.now_s += after_s
            if isinstance(error, GoneError):
                raise error
            return [Result(b"", "", error=error)] * len(images)

        self.says[port] = fail

    def ask(self, request: str, classifier: str = "colours", *, image: bytes = RED, arm: str = "stable") -> str | None:
        """The bundle that answers; None where nobody will."""
        (answer,) = self.replayer.ask(request, classifier, [image], arm=arm, bundles=[BUNDLE])
        return None if answer is None else answer.bundle


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World()

    class Client:
        def __init__(self, address: str, **_: object) -> None:
            self._port = int(address.rpartition(":")[2])

        def classify_many(self, images: Sequence[bytes], **_: object) -> list[Result]:
            made.asked.append(self._port)
            return made.says[self._port](images)

        def close(self) -> None:
            pass

    monkeypatch.setattr(replay, "Client", Client)
    monkeypatch.setattr(replay.time, "monotonic", lambda: made.now_s)
    made.answers(STABLE)
    made.answers(CANDIDATE, bundle=OTHER)
    with made.replayer:
        yield made


@pytest.fixture
def parts(tmp_path: Path, world: World) -> Iterator[Parts]:
    with journal_in(tmp_path / "journal", make=True) as store:
        made = Parts(tmp_path, store)
        made.collector = Collector(made.spool, store, world.replayer, say=made.said.append)
        yield made


def tap(parts: Parts, number: int, arm: str) -> None:
    """A request that one arm has answered, tapped `number` seconds after the first."""
    message = changed("http_raw")
    set_header(message.http_buffered_trace.response, "slipway-arm", arm)
    os.utime(parts.tap(number, content=message.SerializeToString()), (number, number))


def test_what_stable_answered_in_place_of_a_candidate_that_is_gone_is_replayed_at_once(
    parts: Parts, world: World
) -> None:
    world.fails(CANDIDATE, GoneError("connection refused"))
    for number in range(2):
        tap(parts, number, "candidate")
    done = parts.collector.look()
    assert (done.taken, done.left) == (2, 0)
    assert parts.rows("arm, parity") == [("candidate", "equal")] * 2
    assert world.asked.count(CANDIDATE) == 1


def test_the_files_of_a_server_that_stays_away_are_given_up_together(parts: Parts, world: World) -> None:
    world.fails(CANDIDATE, GoneError("connection refused"))
    world.answers(STABLE, bundle=OTHER)
    for number in range(3):
        tap(parts, number, "candidate")
    assert parts.collector.look().left == 3
    assert world.asked == [CANDIDATE, STABLE], "nobody is asked in vain for each file"
    world.now_s += 590
    tap(parts, 3, "candidate")
    assert parts.collector.look().left == 4
    world.now_s += 11
    assert parts.collector.look().taken == 4
    assert parts.rows("parity, replayed_bundle") == [("not_replayed", None)] * 4


def test_a_server_that_stays_away_is_given_up_only_where_no_other_may_have_its_bundle(world: World) -> None:
    world.fails(CANDIDATE, GoneError("connection refused"))
    assert world.ask("1", arm="candidate") == BUNDLE
    world.now_s += 601
    world.fails(STABLE, OverloadedError("too many requests"))
    with pytest.raises(NotYetError, match="connection refused"):
        world.ask("2", arm="candidate")
    world.answers(STABLE)
    assert world.ask("2", arm="candidate") == BUNDLE
    world.answers(STABLE, bundle=OTHER)
    assert world.ask("3", arm="candidate") is None


def test_a_server_that_was_away_and_came_back_is_not_given_up(world: World) -> None:
    world.fails(STABLE, GoneError("connection refused"))
    world.fails(CANDIDATE, GoneError("connection refused"))
    with pytest.raises(NotYetError, match="connection refused"):
        world.ask("1")
    world.now_s += 500
    world.answers(STABLE)
    assert world.ask("2") == BUNDLE
    world.now_s += 200
    world.fails(STABLE, GoneError("connection refused"))
    with pytest.raises(NotYetError):
        world.ask("3")


@pytest.mark.parametrize("before", range(3))
def test_a_candidate_that_only_times_out_does_not_keep_stable_waiting(parts: Parts, world: World, before: int) -> None:
    world.fails(CANDIDATE, DeadlineError("no answer in 10 s"), after_s=10)
    world.answers(STABLE, bundle=OTHER)
    tap(parts, 0, "candidate")
    for _ in range(before):  # however often it was asked in vain
        parts.collector.look()
        world.now_s += 15
    for number in range(1, 20):
        tap(parts, number, "candidate")
    tap(parts, 20, "stable")
    for _ in range(2):
        parts.collector.look()
        world.now_s += 2
    assert parts.rows("request, arm") == [("20", "stable")]
    assert world.asked.count(CANDIDATE) == before + 1
    world.answers(CANDIDATE)
    world.now_s += 10
    assert parts.collector.look().taken == 20


def test_a_server_that_hangs_with_many_classifiers_is_asked_for_half_of_the_time(world: World) -> None:
    world.fails(CANDIDATE, DeadlineError("no answer in 10 s"), after_s=10)
    world.fails(STABLE, DeadlineError("no answer in 10 s"), after_s=0)
    for number in range(20):
        with pytest.raises(NotYetError, match="no answer in 10 s"):
            world.ask(str(number), f"model{number}", arm="candidate")
    assert world.asked.count(CANDIDATE) == 1


def test_one_classifier_that_is_slow_does_not_silence_the_others_of_its_server(world: World) -> None:
    world.replayer = Replayer(lambda: {"stable": STABLE})
    assert world.ask("1", "fast") == BUNDLE
    world.fails(STABLE, DeadlineError("no answer in 10 s"), after_s=10)
    with pytest.raises(NotYetError):
        world.ask("2", "slow")
    world.answers(STABLE)
    assert world.ask("3", "fast") == BUNDLE
    with pytest.raises(NotYetError):
        world.ask("4", "slow")
    assert len(world.asked) == 3


def test_no_other_server_speaks_for_one_that_is_gone_unless_its_bundle_was_served(world: World) -> None:
    world.fails(CANDIDATE, GoneError("connection refused"))
    for number, bundle in enumerate((OTHER, None)):
        with pytest.raises(NotYetError):
            world.replayer.ask(str(number), "colours", [RED], arm="candidate", bundles=[bundle])
    world.fails(STABLE, SlipwayError("not an image"))
    with pytest.raises(NotYetError):
        world.ask("3", arm="candidate")


def test_a_request_that_failed_is_asked_after_the_others(parts: Parts, world: World) -> None:
    world.fails(STABLE, GoneError("connection refused"))
    world.fails(CANDIDATE, GoneError("connection refused"))
    tap(parts, 1, "stable")
    parts.collector.look()
    tap(parts, 2, "stable")
    assert world.replayer.order("1") > world.replayer.order("2") == (0, 0)
    world.replayer.forget_others(["2"])
    assert world.replayer.order("1") == (0, 0)


def test_an_image_that_ends_its_server_again_and_again_is_no_longer_asked(world: World) -> None:
    def lose(images: Sequence[bytes]) -> list[Result]:
        if RED in images:
            raise GoneError("the connection was lost")
        return [red()] * len(images)

    def ask(request: str, image: bytes) -> str | None:
        world.now_s += 10
        return world.ask(request, image=image)

    world.replayer = Replayer(lambda: {"stable": STABLE})
    world.says[STABLE] = lose
    for _ in range(5):  # nobody has been answered: the server may just be down
        with pytest.raises(NotYetError, match="lost"):
            ask("bad", RED)
    assert world.replayer.order("bad") == (5, 0)
    for lost in range(3):
        ask("good", b"another")
        with pytest.raises(NotYetError, match="lost"):
            ask("bad", RED)
        assert world.replayer.order("bad") == (6 + lost, lost + 1)
    asked = len(world.asked)
    assert ask("bad", RED) is None
    assert len(world.asked) == asked


def test_a_classifier_that_is_not_there_is_given_up_after_ten_minutes(world: World) -> None:
    world.replayer = Replayer(lambda: {"stable": STABLE})
    world.fails(STABLE, DeadlineError("no answer"))
    with pytest.raises(NotYetError):
        world.ask("1")
    world.now_s += 601
    with pytest.raises(NotYetError):
        world.ask("2")
    assert world.ask("1") is None


def test_the_rest_of_a_request_is_not_asked_after_an_image_that_waits(world: World) -> None:
    def one_by_one(_: Sequence[bytes]) -> Iterator[Result]:
        yield Result(b"", "", error=DeadlineError("no answer in 10 s"))
        pytest.fail("the second image is asked, which may take as long again")

    world.says[STABLE] = one_by_one  # type: ignore[assignment]
    world.says[CANDIDATE] = one_by_one  # type: ignore[assignment]
    with pytest.raises(NotYetError, match="no answer in 10 s"):
        world.replayer.ask("1", "colours", [RED, RED], arm="stable", bundles=[BUNDLE, BUNDLE])


def test_a_look_is_over_by_the_clock_that_the_replays_have(parts: Parts, world: World) -> None:
    """So that the tests above end their looks."""
    world.fails(STABLE, DeadlineError("no answer"), after_s=collectors._LOOK_S + 1)
    for number in range(2):
        tap(parts, number, "stable")
    assert parts.collector.look().left == 1
