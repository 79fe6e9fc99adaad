"""One image of a data set as it is listed, before it is opened, and how faults of many are told."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.contract import DataError
from slipway.contract.dataset import Split

SHOWN = 10  # faults listed in one error


@dataclass(frozen=True)
class Entry:
    """One image as it is listed; `path` is relative to the root, with forward slashes."""

    path: str
    labels: tuple[str, ...]
    split: Split | None = None
    """As given; None where splits are to be drawn."""
    group: str | None = None


def fault_of(path: Path, *, root: Path) -> str | None:
    """Why `path` cannot be an image of the data set at `root`, which is resolved; None where it can be."""
    try:
        str(path).encode()
        if not path.is_file():
            return "a link to no file" if path.is_symlink() else "no such file"
        return None if path.resolve().is_relative_to(root) else "a link that leaves data.root"
    except UnicodeEncodeError:
        return "a name that is not UTF-8; rename it"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def raise_faults(faults: Sequence[str], *, what: str) -> None:
    """Raises DataError where there are any: their number, `what`, and the first of them."""
    if faults:
        more = f"\n  … and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        listing = "\n  ".join(faults[:SHOWN]).encode(errors="backslashreplace").decode()
        raise DataError(f"{len(faults)} {what}:\n  {listing}{more}")
