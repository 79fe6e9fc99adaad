"""Formats numbers for pages and terminals."""

import math
from collections.abc import Mapping

NONE = "\N{EN DASH}"
"""Sign for a missing number."""
MINUS = "\N{MINUS SIGN}"


def figures(value: float, count: int = 3) -> str:
    """Format to `count` significant figures, without an exponent: 15.7, 0.0123, 1,240."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{count - 1}e}")
    decimals = max(0, count - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}"


def points(loss_points: float) -> str:
    """Format percentage points with their sign."""
    text = f"{loss_points:+.2f}".replace("-", MINUS)
    return "0.00" if text[1:] == "0.00" else text


def percent(share: float | None) -> str:
    return NONE if share is None else f"{share:.2%}"


def interval(bounds: tuple[float, float]) -> str:
    """Format the bounds of a share in percent."""
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} %"


def thousands(count: int) -> str:
    return f"{count:,}"


def decimals(value: float | None, places: int) -> str:
    return NONE if value is None else f"{value:.{places}f}"


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"


def counted(failures: Mapping[str, int]) -> str:
    """List failures by reason: `3 timed out, 1 rejected`, or `none`."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(failures.items())) or "none"
