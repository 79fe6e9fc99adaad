"""When a request is asked again: the budget, the pauses, and the course of one request on a clock of the test's own."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.client import ClientError, DeadlineError, GoneError, ModelError, Options, OverloadedError, RequestError
from slipway.client.options import MIN_DEADLINE_S
from slipway.client.retry import LONGEST_PAUSE_S, Attempts, RetryBudget, backoff_s


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def ask_until_final(course: Attempts, clock: Clock, error: ClientError, *, takes_s: float) -> tuple[ClientError, list]:
    """Every attempt ends with `error` after `takes_s`. What was raised at last, and the time left at each attempt."""
    left_s = []
    while True:
        left_s.append(course.time_left_s())
        clock.now_s += takes_s
        try:
            clock.now_s += course.pause_s(error)
        except ClientError as final:
            return final, left_s


def attempts(clock: Clock, *, served: bool = True, budget: RetryBudget | None = None, seed: int = 0, **options: float):
    return Attempts(
        Options(**options), budget=budget or RetryBudget(), served=served, clock=clock, rng=random.Random(seed)
    )


@given(st.lists(st.booleans(), max_size=400))
def test_retries_are_at_most_ten_and_a_tenth_of_the_requests_in_any_stretch(wanted: list[bool]) -> None:
    """Each element is a request; True also wants a retry."""
    budget = RetryBudget()
    spent = []
    for wants_retry in wanted:
        budget.earn()
        spent.append(wants_retry and budget.spend())
    for start in range(0, len(spent), 37):
        stretch = spent[start:]
        assert sum(stretch) <= 10 + len(stretch) / 10


def test_a_long_calm_saves_no_more_than_ten_retries() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.earn()
    assert [budget.spend() for _ in range(12)] == [True] * 10 + [False] * 2


@given(attempt=st.integers(1, 10_000), seed=st.integers(0, 1000))
def test_a_pause_is_bounded_whatever_the_attempt(attempt: int, seed: int) -> None:
    assert 0 <= backoff_s(attempt, rng=random.Random(seed)) <= min(LONGEST_PAUSE_S, 0.05 * 2 ** min(attempt - 1, 10))


def test_pauses_are_spread_over_the_whole_of_their_range() -> None:
    rng = random.Random(1)
    pauses = [backoff_s(4, rng=rng) for _ in range(1000)]
    assert min(pauses) < 0.01
    assert max(pauses) > 0.39
    assert sum(pauses) / len(pauses) == pytest.approx(0.2, abs=0.01)


def test_a_refusal_for_load_is_asked_again_until_the_deadline_would_pass() -> None:
    clock = Clock()
    course = attempts(clock, deadline_s=2.0)
    final, left_s = ask_until_final(course, clock, OverloadedError("busy"), takes_s=0.1)
    assert str(final) == f"busy; asked {len(left_s)} times within deadline_s 2"
    assert 2 <= len(left_s) <= 20
    assert min(left_s) >= MIN_DEADLINE_S
    assert clock.now_s <= 1002.1


def test_a_refusal_for_load_is_final_when_the_budget_is_spent() -> None:
    budget = RetryBudget()
    while budget.spend():
        pass
    with pytest.raises(OverloadedError, match="limited to 10 % of requests"):
        attempts(Clock(), budget=budget).pause_s(OverloadedError("busy"))


def test_a_deadline_that_would_be_too_short_for_the_server_is_never_sent() -> None:
    clock = Clock()
    course = attempts(clock, deadline_s=0.5)
    clock.now_s += 0.499
    assert course.time_left_s() == MIN_DEADLINE_S
    with pytest.raises(OverloadedError):
        course.pause_s(OverloadedError("busy"))


@pytest.mark.parametrize("error", [RequestError("x"), DeadlineError("x"), ClientError("x")])
def test_nothing_else_is_asked_again(error: ClientError) -> None:
    with pytest.raises(type(error)) as raised:
        attempts(Clock(), reconnect_s=100.0).pause_s(error)
    assert raised.value is error


@pytest.mark.parametrize("error", [GoneError("gone"), ModelError("not there")])
def test_a_lost_server_is_not_waited_for_unless_asked(error: ClientError) -> None:
    with pytest.raises(type(error)):
        attempts(Clock()).pause_s(error)


def test_a_lost_server_is_waited_for_as_long_as_asked_and_every_try_has_the_whole_deadline() -> None:
    clock = Clock()
    course = attempts(clock, deadline_s=5.0, reconnect_s=30.0)
    final, left_s = ask_until_final(course, clock, GoneError("gone"), takes_s=0.0)
    assert str(final) == "gone; tried for reconnect_s 30"
    assert left_s == pytest.approx([5.0] * len(left_s))
    assert clock.now_s == pytest.approx(1030.0)


def test_reconnect_s_counts_from_the_first_loss_whatever_happens_in_between() -> None:
    """A server that a request ends again and again must not be asked for ever."""
    clock = Clock()
    course = attempts(clock, deadline_s=5.0, reconnect_s=30.0)
    ask_until_final(course, clock, GoneError("gone"), takes_s=4.0)
    assert 1030.0 <= clock.now_s <= 1040.0


def test_a_server_that_is_starting_does_not_have_its_model_yet() -> None:
    clock = Clock()
    never_seen = attempts(clock, served=False, reconnect_s=30.0)
    with pytest.raises(ModelError):
        never_seen.pause_s(ModelError("unknown"))
    lost = attempts(clock, served=False, reconnect_s=30.0)
    lost.pause_s(GoneError("gone"))
    assert lost.pause_s(ModelError("unknown")) <= LONGEST_PAUSE_S
    assert attempts(clock, served=True, reconnect_s=30.0).pause_s(ModelError("unknown")) <= LONGEST_PAUSE_S
