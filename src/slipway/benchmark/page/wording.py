"""Numbers as the page and the text write them."""

import math
from collections.abc import Mapping

NONE = "\N{EN DASH}"
"""In the place of a number that there is none of."""


def figures(value: float, count: int = 3) -> str:
    """To so many significant figures, without an exponent: 15.7, 0.0123, 1,240."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{count - 1}e}")
    decimals = max(0, count - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}"


def percent(share: float) -> str:
    return f"{share:.2%}"


def counted(failures: Mapping[str, int]) -> str:
    """`3 timed out, 1 rejected`, or `none`."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(failures.items())) or "none"
