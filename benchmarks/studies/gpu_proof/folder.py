"""The folder `.gpu-proof`, which is prepared on a full machine, carried to a bare one, and brought back.

    inputs/       prepared.json and what the proofs read: carried
    pieces/<n>/   the wheels as one stream of bytes, cut so that each piece can be carried
    kept/         what only `judge` needs: stays
    results/      one JSON file a proof, and the logits of `precision`: brought back
    site/         wheels, unpacked where they are needed

This module imports only the standard library and numpy, since a bare machine has nothing else of ours.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, TypeVar
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[3]
DEFAULT = ROOT / ".gpu-proof"
PREPARED = "prepared.json"
Described = dict[str, str | int]
"""Facts about one kind of input, for readers of `prepared.json`."""
CODE = ("benchmarks/studies/gpu_proof/*.py", "src/slipway/steps/*.py", "src/slipway/repository/backends/*/*.py")


class ProofError(Exception):
    """A proof cannot be run; the text says what to do."""


@dataclass(frozen=True)
class CorpusFile:
    """A file of `corpus.npz`."""

    encoding: str
    damage: str | None
    """Kind of damage; None for a good file."""


@dataclass(frozen=True)
class Photograph:
    """A file of `photographs.npz`."""

    encoding: str
    side: int
    """Width and height in pixels."""


@dataclass(frozen=True)
class Expected:
    """The CPU's answer to an image of `server/questions.npz`."""

    label: str
    score: float


Fact = TypeVar("Fact", CorpusFile, Photograph, Expected)


@dataclass(frozen=True)
class Wheel:
    """One packed wheel in the stream of bytes."""

    name: str
    file: str
    size: int
    """Size in bytes."""
    sha256: str


@dataclass(frozen=True)
class Carried:
    """The wheels in the order of the stream, and the size in bytes of each piece that it was cut into."""

    wheels: tuple[Wheel, ...] = ()
    pieces: tuple[int, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """`prepared.json`, which `prepare` writes for `run`. A bare machine has no pydantic to check it with."""

    commit: str | None
    code_sha256: str
    seed: int
    small: bool
    versions: Mapping[str, str]
    """Versions of the carried wheels."""
    wheels: Carried
    inputs: Mapping[str, object]
    """Number of inputs of each kind, for readers of the file."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the file. Raises ProofError: not there, or written by another commit's prepare."""
        path = folder / "inputs" / PREPARED
        content = read_json(path)
        try:
            carried = content.pop("wheels")
            wheels = tuple(Wheel(**wheel) for wheel in carried["wheels"])
            return cls(**content, wheels=Carried(wheels, tuple(carried["pieces"])))
        except (KeyError, TypeError) as error:
            raise ProofError(f"{path}: not what this commit's prepare writes ({error}); prepare again") from None

    def write(self, folder: Path) -> None:
        write_json(folder / "inputs" / PREPARED, asdict(self))


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write the file whole or not at all, so that a proof that crashes leaves its earlier measurements."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.half")
    half.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    half.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ProofError: not there, cut short, or not an object."""
    if not path.is_file():
        raise ProofError(
            f"{path}: missing; prepare it on a machine with the full .venv (run prepare), and carry it here"
        )
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ProofError(f"{path}: not JSON ({error}); carry it again") from None
    if not isinstance(content, dict):
        raise ProofError(f"{path}: not an object with keys and values; carry it again")
    return content


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def code_sha256() -> str:
    """Return one hash of all code that runs in the proofs."""
    paths = sorted(path for pattern in CODE for path in ROOT.glob(pattern))
    return sha256(b"".join(path.name.encode() + b"\0" + path.read_bytes() for path in paths))


def write_files(path: Path, files: Sequence[bytes], facts: Sequence[Fact]) -> None:
    """Write many small files into one `.npz`, each with facts about it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        data=np.frombuffer(b"".join(files), np.uint8),
        ends=np.cumsum([len(file) for file in files], dtype=np.int64),
        facts=np.frombuffer(json.dumps([asdict(fact) for fact in facts]).encode(), np.uint8),
    )


def read_files(path: Path, kind: type[Fact]) -> tuple[list[bytes], list[Fact]]:
    """Read what `write_files` wrote. Raises ProofError: not there."""
    arrays: dict[str, npt.NDArray[Any]] = read_arrays(path)
    ends = [0, *arrays["ends"].tolist()]
    data = arrays["data"].tobytes()
    files = [data[start:end] for start, end in pairwise(ends)]
    return files, [kind(**fact) for fact in json.loads(arrays["facts"].tobytes())]


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of an `.npz`. Raises ProofError: not there, or damaged."""
    if not path.is_file():
        raise ProofError(f"{path}: missing; prepare writes what is in inputs/, run what is in results/: carry it here")
    try:
        with path.open("rb") as file, np.load(file) as loaded:
            return dict(loaded)
    except (BadZipFile, EOFError, OSError, ValueError, zlib.error) as error:
        raise ProofError(f"{path}: damaged ({error}); carry it again") from None
