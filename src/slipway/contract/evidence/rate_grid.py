"""The grid of rates on which settings and layouts are compared; result files have its rungs."""

STEP = 1.1
"""Ratio of one rung to the next: one round resolves 10 % between two sides, the mean of several rounds less."""
LOWEST_PER_S = 10.0
"""Rate of rung 0; below it there is nothing to compare."""


def rate_at(rung: int) -> float:
    """Return the rate of a rung in requests per second."""
    return LOWEST_PER_S * STEP**rung
