"""The layers of an image: which files of a repository go into which, and their tar archives, equal byte for byte.

A layer is a step folder, so that a new version of a classifier brings layers of its own and leaves the others.
Ensembles, `lane.json` and `manifest.json` are small, and change with every version: the last layer, `rest`. In the
archives, the repository is the folder `models`: KServe mounts that folder of an image and nothing else.
"""

import hashlib
import io
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, cast

from slipway.contract import OciImageError
from slipway.contract.lane import FILE_NAME as LANE_FILE
from slipway.contract.manifest import FILE_NAME as MANIFEST_FILE
from slipway.system.files import sha256_bytes
from slipway.system.text import shown

REST = "rest"
FOLDER = "models"
"""The folder of an image that is the repository."""
MOST_OWN = 64
"""Number of steps that have a layer each where a repository has more than `MOST_LAYERS`: the largest."""
MOST_LAYERS = 100
"""Number of steps up to which each has a layer. Container runtimes stack at most about 125 layers."""
GROUPS = 16
"""Number of layers that the other steps share, by the first digit of the SHA-256 of their names."""
BLOCK_BYTES = 1 << 20
MOST_KEPT_BYTES = 64 << 20
"""Largest `manifest.json` or `lane.json` of an image, which the checks hold in memory; a thousand heads take 10 MB."""
_FILES, _FOLDERS = (tarfile.REGTYPE, tarfile.AREGTYPE), tarfile.DIRTYPE


class HashingSink:
    """Takes the bytes of a blob, hashes and counts them, and passes them on to `file` if there is one."""

    def __init__(self, file: BinaryIO | None = None) -> None:
        self._file, self._sha256, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._sha256.update(data)
        self.size += len(data)
        return len(data) if self._file is None else self._file.write(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._sha256.hexdigest()}"


class OciLayer(NamedTuple):
    name: str
    files: tuple[str, ...]
    """Paths below the repository, sorted."""


def plan(sizes: Mapping[str, int], *, ensembles: Collection[str]) -> list[OciLayer]:
    """The layers of a repository with files of these sizes in bytes; the same for the same files, on any machine."""
    steps: dict[str, int] = {}
    for path, size in sizes.items():
        step, slash, _ = path.partition("/")
        if slash and step not in ensembles:
            steps[step] = steps.get(step, 0) + size
    own = set(steps)
    if len(steps) > MOST_LAYERS:
        own = set(sorted(steps, key=lambda step: (-steps[step], step))[:MOST_OWN])
    layers: dict[str, list[str]] = {}
    for path in sorted(sizes):
        step = path.partition("/")[0]
        name = REST if step not in steps else step if step in own else f"steps_{sha256_bytes(step.encode())[0]}"
        layers.setdefault(name, []).append(path)
    rest = layers.pop(REST)
    return [*(OciLayer(name, tuple(layers[name])) for name in sorted(layers)), OciLayer(REST, tuple(rest))]


def write_tar(repository: Path, files: Iterable[str], sink: HashingSink) -> None:
    """Write files and their folders, below `FOLDER`, as a tar archive: sorted, of user and group 0, at time 0, in modes
    0644 and 0755.

    Raises:
        OciImageError: a file changes while it is read.
    """
    folders = set[str]()
    with tarfile.TarFile(
        fileobj=cast(BinaryIO, _Writer(sink)), mode="w", format=tarfile.PAX_FORMAT, copybufsize=BLOCK_BYTES
    ) as archive:
        for name in files:
            parts = f"{FOLDER}/{name}".split("/")[:-1]
            for above in ("/".join(parts[: i + 1]) for i in range(len(parts))):
                if above not in folders:
                    folders.add(above)
                    archive.addfile(_entry(above, folder=True))
            with (repository / name).open("rb") as file:
                entry = _entry(f"{FOLDER}/{name}", size=file.seek(0, io.SEEK_END))
                file.seek(0)
                try:
                    archive.addfile(entry, file)
                except OSError as error:
                    if error.errno is not None:
                        raise
                    raise OciImageError(
                        f"{repository / name}: changed while it was read; build the image again"
                    ) from None


def _entry(name: str, *, size: int = 0, folder: bool = False) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = size, 0
    entry.mode, entry.type = (0o755, tarfile.DIRTYPE) if folder else (0o644, tarfile.REGTYPE)
    return entry


class _Writer:
    """A sink as a file."""

    def __init__(self, sink: HashingSink) -> None:
        self._sink = sink

    def write(self, data: bytes) -> int:
        return self._sink.write(data)

    def tell(self) -> int:
        return self._sink.size


class ArchiveError(OciImageError):
    """An archive holds what no repository has."""


class Member(NamedTuple):
    """A file of a layer, whose content is to be read before the next one is asked for."""

    name: str
    """Path below the repository."""
    content: IO[bytes]

    def blocks(self) -> Iterator[bytes]:
        while block := self.content.read(BLOCK_BYTES):
            yield block


def members(file: BinaryIO) -> Iterator[Member]:
    """The files of a layer, in its order.

    Raises:
        ArchiveError: it is damaged, or has a link, a device, a path that leaves the folder, a file twice, or
            one of more bytes than the archive.
    """
    seen = set[str]()
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for entry in archive:
                name = _inside(entry)
                _check(entry, name, seen)
                if entry.type in _FILES:
                    seen.add(name)
                    content = archive.extractfile(entry)
                    assert content is not None
                    yield Member(name, content)
    except (tarfile.TarError, EOFError, UnicodeError, ValueError, OverflowError, RecursionError) as error:
        raise ArchiveError(f"not a tar archive that can be read ({shown(error)})") from None


def _inside(entry: tarfile.TarInfo) -> str:
    """The path below the repository; `.` for its own folder."""
    top, _, path = entry.name.partition("/")
    if top != FOLDER or not (path or entry.type == _FOLDERS):
        raise ArchiveError(
            f"{shown(entry.name)} is not in {FOLDER}, where slipway image build puts all; build it again"
        )
    return path or "."


def _check(entry: tarfile.TarInfo, path: str, seen: Collection[str]) -> None:
    name = shown(path)
    if entry.type not in (*_FILES, _FOLDERS):
        kind = "a link" if entry.islnk() or entry.issym() else "neither a file nor a folder"
        raise ArchiveError(f"{name} is {kind}; an image of a repository has files and folders alone")
    if entry.sparse or entry.size < 0 or _more_headers(entry):
        raise ArchiveError(f"{name} is sparse or has headers of its own, which slipway image build does not write")
    if path in (MANIFEST_FILE, LANE_FILE) and entry.size > MOST_KEPT_BYTES:
        raise ArchiveError(f"{name} has {entry.size:,} bytes; at most {MOST_KEPT_BYTES:,} are read")
    parts = entry.name.split("/")
    if not path.isprintable() or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise ArchiveError(f"{name!r} is a path that could leave the folder, or no plain path")
    if any(part.startswith(".wh.") for part in parts):
        raise ArchiveError(f"{name} removes a file of another layer, which an image of a repository does not")
    if path in seen:
        raise ArchiveError(f"{name} is there twice")


def _more_headers(entry: tarfile.TarInfo) -> bool:
    """Whether it has PAX headers beyond its path and, where a plain header has no room for it, its size."""
    return not entry.pax_headers.keys() <= {"path", *(("size",) if entry.size >= 8**11 else ())}
