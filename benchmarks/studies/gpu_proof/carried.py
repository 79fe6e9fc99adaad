"""Puts carried wheels together again and makes them importable, without pip and without a registry."""

import importlib
import io
import sys
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from benchmarks.studies.gpu_proof.folder import Carried, ProofError, sha256

SHADOWING = "numpy"
"""The package that the server's steps get in a version of their own: the wheel's Python backend misreads BYTES with
numpy 2."""


def unpack(carried: Carried, names: Iterable[str], folder: Path) -> None:
    """Unpack the wheels `names` into `site/all` of the folder, and numpy into `site/numpy`. Unpacked wheels stay.

    Raises:
        ProofError: a piece is missing, or the bytes of a wheel are not those that were prepared.
    """
    wanted, start = set(names), 0
    for wheel in carried.wheels:
        end = start + wheel.size
        done = folder / "site" / f"{wheel.file}.unpacked"
        if wheel.name in wanted and not done.is_file():
            data = _bytes(carried.pieces, folder / "pieces", start, end)
            if sha256(data) != wheel.sha256:
                raise ProofError(f"{wheel.file}: not the bytes that were prepared; carry the pieces again")
            target = folder / "site" / ("numpy" if wheel.name == SHADOWING else "all")
            target.mkdir(parents=True, exist_ok=True)
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:xz") as archive:
                archive.extractall(target, filter="data")
            done.write_bytes(b"")
        start = end


def _bytes(sizes: tuple[int, ...], pieces: Path, start: int, end: int) -> bytes:
    found, first = b"", 0
    for number, size in enumerate(sizes, start=1):
        if first < end and start < first + size:
            part = pieces / str(number) / "part"
            if not part.is_file() or part.stat().st_size != size:
                raise ProofError(
                    f"{part}: {'cut short' if part.is_file() else 'missing'}; carry piece {number} of {len(sizes)}"
                )
            with part.open("rb") as file:
                file.seek(max(start - first, 0))
                found += file.read(min(end, first + size) - max(start, first))
        first += size
    return found


def make_importable(folder: Path) -> None:
    """Put the unpacked packages last on the path, so that a package of this Python itself is used first."""
    site = str(folder / "site/all")
    if site not in sys.path:
        sys.path.append(site)
    importlib.invalidate_caches()
    with suppress(ImportError):  # an installed regular package of the same name would hide ours
        nvidia = importlib.import_module("nvidia")
        if f"{site}/nvidia" not in list(nvidia.__path__):
            nvidia.__path__.append(f"{site}/nvidia")
