"""Decides when to retry and when to give up: pure arithmetic on a clock and a random source that are passed in.

A request that the server rejects for load is retried after a pause, within its deadline and the budget that all
requests of a client share. A request that lost its server is retried for as long as the caller allows: classifying an
image twice does no harm. Nothing else is retried.
"""

import random
import time
from collections.abc import Callable

from slipway.client.errors import ClientError, GoneError, ModelError, OverloadedError
from slipway.client.options import MIN_DEADLINE_S, Options

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
_REQUESTS_PER_RETRY, _RETRIES_SAVED = 10, 10


def backoff_s(attempt: int, *, rng: random.Random) -> float:
    """The pause in seconds before retry 1, 2, …, drawn uniformly from 0 to a bound that doubles.

    This is the "full jitter" of M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015.
    """
    return rng.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempt - 1, 30)))


class RetryBudget:
    """Limits retries to a tenth of the requests, so that retries do not add to the load of a struggling server.

    The budget starts with ten retries and never holds more: an hour of good answers must not pay for a storm.
    """

    def __init__(self) -> None:
        self._tenths = _RETRIES_SAVED * _REQUESTS_PER_RETRY

    def earn(self) -> None:
        """Count a request that is sent for the first time."""
        self._tenths = min(self._tenths + 1, _RETRIES_SAVED * _REQUESTS_PER_RETRY)

    def spend(self) -> bool:
        """Take one retry from the budget; False if there is none left."""
        if self._tenths < _REQUESTS_PER_RETRY:
            return False
        self._tenths -= _REQUESTS_PER_RETRY
        return True


class Attempts:
    """The attempts of one call, all within one deadline.

    Args:
        options: `deadline_s` and `reconnect_s` are used.
        budget: the budget that all requests of the client share.
        served: whether the server is known to have the model. If it then denies that, it is starting.
    """

    def __init__(
        self,
        options: Options,
        *,
        budget: RetryBudget,
        served: bool,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._options, self._budget, self.served, self._clock = options, budget, served, clock
        self._rng = rng or random.Random()
        self._ends_s = clock() + options.deadline_s
        self._refusals, self._losses = 0, 0
        self._lost_s: float | None = None
        budget.earn()

    def time_left_s(self) -> float:
        """Seconds until the deadline, but never so few that they could harm the server."""
        return max(MIN_DEADLINE_S, self._ends_s - self._clock())

    def pause_s(self, error: ClientError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            ClientError: the attempts are used up, or `error` allows no other. The error says what was tried.
        """
        if isinstance(error, OverloadedError):
            return self._after_refusal(error)
        starting = isinstance(error, ModelError) and (self.served or self._lost_s is not None)
        if isinstance(error, GoneError) or starting:
            return self._after_loss(error)
        raise error

    def _after_refusal(self, error: ClientError) -> float:
        self._refusals += 1
        pause_s = backoff_s(self._refusals, rng=self._rng)
        if self._clock() + pause_s + MIN_DEADLINE_S > self._ends_s:
            raise OverloadedError(
                f"{error}; asked {self._refusals} times within deadline_s {self._options.deadline_s:g}"
            )
        if not self._budget.spend():
            raise OverloadedError(f"{error}; asked {self._refusals} times, and retries are limited to 10 % of requests")
        return pause_s

    def _after_loss(self, error: ClientError) -> float:
        now_s = self._clock()
        self._lost_s = now_s if self._lost_s is None else self._lost_s
        left_s = self._lost_s + self._options.reconnect_s - now_s
        if left_s <= 0:
            tried = self._options.reconnect_s
            raise type(error)(f"{error}; tried for reconnect_s {tried:g}" if tried else f"{error}")
        self._losses += 1
        pause_s = min(backoff_s(self._losses, rng=self._rng), left_s)
        self._ends_s = now_s + pause_s + self._options.deadline_s
        return pause_s
