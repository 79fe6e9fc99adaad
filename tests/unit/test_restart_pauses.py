"""How long the supervisor waits before it starts a server again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.serving.supervisor import LONGEST_PAUSE_S, LONGEST_REST_S, pause_s

COUNTS, SECONDS = st.integers(0, 10_000), st.floats(0, 1e6)


@given(short=COUNTS, start_s=SECONDS)
def test_a_server_that_had_answered_is_back_within_seconds_however_often_it_died(short: int, start_s: float) -> None:
    assert pause_s(short=short, failed=0, start_s=start_s) <= LONGEST_REST_S


@given(short=st.integers(2, 10_000), start_s=st.floats(0, LONGEST_REST_S))
def test_a_loop_of_crashes_spends_at_most_half_of_its_time_on_starts(short: int, start_s: float) -> None:
    assert pause_s(short=short, failed=0, start_s=start_s) >= start_s


@pytest.mark.parametrize("short", [0, 1])
def test_the_first_crash_is_followed_by_a_start_at_once(short: int) -> None:
    assert pause_s(short=short, failed=0, start_s=3.0) == 0


def test_a_server_that_never_answers_is_tried_less_and_less_often() -> None:
    pauses = [pause_s(short=failed + 5, failed=failed, start_s=3.0) for failed in range(1, 9)]
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


@given(short=COUNTS, failed=COUNTS, start_s=SECONDS)
def test_no_pause_is_longer_than_the_longest(short: int, failed: int, start_s: float) -> None:
    assert 0 <= pause_s(short=short, failed=failed, start_s=start_s) <= LONGEST_PAUSE_S
