"""Describes one listed image of a data set before it is opened, and reports the faults of many at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.contract import DataError
from slipway.contract.dataset import Split

SHOWN = 10  # faults listed in one error


@dataclass(frozen=True)
class Entry:
    """One listed image; `path` is relative to the root, with forward slashes."""

    path: str
    labels: tuple[str, ...]
    split: Split | None = None
    """The given split; None where splits are drawn."""
    group: str | None = None


def fault_of(path: Path, *, root: Path) -> str | None:
    """Say why `path` cannot be an image of the data set at `root`, a resolved path; None where it can be."""
    try:
        str(path).encode()
        if not path.is_file():
            return "a broken link" if path.is_symlink() else "no such file"
        return None if path.resolve().is_relative_to(root) else "a link that leaves data.root"
    except UnicodeEncodeError:
        return "a name that is not UTF-8; rename it"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def raise_faults(faults: Sequence[str], *, what: str) -> None:
    """Raises DataError where there are faults: their number, `what`, and the first of them."""
    if faults:
        more = f"\n  … and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        listing = "\n  ".join(faults[:SHOWN]).encode(errors="backslashreplace").decode()
        raise DataError(f"{len(faults)} {what}:\n  {listing}{more}")
