"""Numbers as the page writes them."""

MINUS = "\N{MINUS SIGN}"


def points(loss_points: float) -> str:
    """Percentage points with their sign."""
    text = f"{loss_points:+.2f}".replace("-", MINUS)
    return "0.00" if text[1:] == "0.00" else text


def percent(share: float) -> str:
    return f"{share:.2%}"


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
