"""Programs of Debian that `make prometheus` unpacks, or that are on PATH."""

import shutil
import sys
from pathlib import Path

_UNPACKED = Path(sys.prefix) / "debian/usr/bin"


def tool(*names: str) -> str | None:
    """The first of these programs that is there; the unpacked one before those on PATH."""
    places = [shutil.which(name, path=path) for path in (str(_UNPACKED), None) for name in names]
    return next((place for place in places if place), None)
