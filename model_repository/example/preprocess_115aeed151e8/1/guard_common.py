"""What the checks of the formats share: the statuses, the limits, and how an image is refused.

Each format's `check` returns the pixels that decoding takes, of an image whose structure is whole. For every other it
raises RefusedError, or struct.error where a field lies past the end: the file is cut short, or points out of itself.
"""

from dataclasses import dataclass

OK, EMPTY, UNSUPPORTED, CORRUPT, TOO_LARGE, INTERNAL = range(6)
STATUS_NAMES: tuple[str, ...] = ("ok", "empty", "unsupported format", "corrupt", "too large", "internal")

# More segments, chunks or strips than any writer makes. Each costs a turn of a Python loop, and the fewest bytes that
# make one are four.
MAX_PARTS = 16_384
MAX_ENTRIES = 1024  # of a directory of tags


@dataclass(frozen=True)
class Limits:
    """The largest image that is let through to the decoder."""

    max_bytes: int = 32 * 1024 * 1024
    """Encoded size in bytes."""
    max_pixels: int = 64_000_000
    """Declared width times height."""
    max_aspect: int = 64
    """Longer side over shorter side: resizing the shorter side of 10000x1 would blow the longer one up to gigabytes."""


class RefusedError(Exception):
    """The image does not go to the decoder; `status` says why."""

    def __init__(self, status: int) -> None:
        super().__init__(STATUS_NAMES[status])
        self.status = status


def require(condition: bool, otherwise: int = CORRUPT) -> None:
    if not condition:
        raise RefusedError(otherwise)


def check_size(width: int, height: int, limits: Limits) -> int:
    """Width times height in pixels."""
    require(width > 0 and height > 0)
    require(width * height <= limits.max_pixels, TOO_LARGE)
    require(max(width, height) <= limits.max_aspect * min(width, height), TOO_LARGE)
    return width * height
