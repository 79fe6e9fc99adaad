"""The wheels that the proofs need, downloaded on a full machine and cut into pieces that can be carried."""

import io
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.studies.gpu_proof.folder import ROOT, Carried, ProofError, Wheel, sha256

CODEC = ("nvidia-nvimgcodec-cu13", "nvidia-nvjpeg", "nvidia-nvjpeg2k-cu13", "nvidia-nvtiff-cu13")
NVCOMP = ("nvidia-libnvcomp-cu13",)  # nvTIFF and DALI load it
DALI = (
    "simplejpeg",
    "cykooz-resizer",
    "nvidia-dali-cuda130",
    "astunparse",
    "gast",
    "six",
    "optree",
    "packaging",
    "nvtx",
    "makefun",
    "libcst",
    "pyyaml",
)
SERVER = ("nvidia-pytriton", "numpy")
ORDER = (*CODEC, *NVCOMP, *DALI, *SERVER)
"""Wheels in the order of the pieces: a piece that completes a proof is carried first."""
NEEDED: Mapping[str, tuple[str, ...]] = {
    "codec": (*CODEC, *NVCOMP),
    "precision": (),
    "dali": (*CODEC, *NVCOMP, *DALI),
    "server": ORDER,
    "heads": ORDER,
}
"""Distributions that each proof needs besides torch. Those that the machine has are used, except for numpy in the
server."""
PLATFORMS = tuple(f"manylinux_2_{minor}_x86_64" for minor in (35, 34, 31, 28, 27, 24, 17))
PYTHON = "3.12"
NOT_NEEDED = re.compile(
    r"\.cpython-3(?!12-)\d+t?-|python_backend_stubs/3\.(?!12/)|/libpython3-[^/]*\.13\.so|/bin/nvlzcat$|\.(a|h|hpp)$"
)
"""Parts of wheels for other Pythons, and for compilers: a seventh of all bytes."""


def download(names: Sequence[str], folder: Path) -> list[Path]:
    """Download the wheel of each distribution, in the version that requirements.lock names.

    Raises:
        ProofError: a distribution that the lock file does not name, or that pip cannot get.
    """
    folder.mkdir(parents=True, exist_ok=True)
    versions = locked(names)
    there = {name: _found(folder, name, versions[name]) for name in names}
    missing = [f"{name}=={versions[name]}" for name in names if there[name] is None]
    platforms = [
        word
        for platform in (*PLATFORMS, "manylinux2014_x86_64", "manylinux1_x86_64")
        for word in ("--platform", platform)
    ]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--python-version", PYTHON, "--implementation", "cp", *platforms, "--dest", str(folder), *missing]
    if missing and (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
        raise ProofError(f"pip cannot download {', '.join(missing)}: {done.stderr.strip().splitlines()[-1]}")
    wheels = [_found(folder, name, versions[name]) for name in names]
    return [wheel for wheel in wheels if wheel is not None]


def locked(names: Iterable[str]) -> dict[str, str]:
    """Read the versions of the lock file. Raises ProofError: it does not name one of the distributions."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    matches = (re.match(r"([a-zA-Z0-9_.-]+)==([^ ]+)", line) for line in lines)
    found = {match[1]: match[2] for match in matches if match}
    if missing := [name for name in names if name not in found]:
        raise ProofError(f"requirements.lock does not name {', '.join(missing)}, so their versions are open; add them")
    return {name: found[name] for name in names}


def _found(folder: Path, name: str, version: str) -> Path | None:
    return next(iter(folder.glob(f"{re.sub('[-.]+', '_', name)}-{version}-*.whl")), None)


def pack(wheel: Path, folder: Path) -> Path:
    """Pack the wheel without its unneeded parts, as `.tar.xz`: two thirds of its bytes."""
    packed = folder / f"{wheel.stem}.tar.xz"
    if not packed.is_file():
        half = packed.with_suffix(".half")
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as source, tarfile.open(half, "w:xz", preset=1) as target:
            for info in source.infolist():
                if not info.is_dir() and not NOT_NEEDED.search(info.filename):
                    entry = tarfile.TarInfo(info.filename)
                    entry.size, entry.mode = info.file_size, (info.external_attr >> 16) & 0o777 or 0o644
                    target.addfile(entry, io.BytesIO(source.read(info)))
        half.replace(packed)
    return packed


def cut(wheels: Mapping[str, Path], pieces: Path, *, first: int, each: int) -> Carried:
    """Write the wheels, one after another, as files `<pieces>/<n>/part`: `first` bytes in the first, then `each`.

    Returns what `carried.unpack` needs to put them together again.
    """
    stream = b"".join(path.read_bytes() for path in wheels.values())
    bounds = [0, *range(min(first, len(stream)), len(stream), each), len(stream)]
    sizes = []
    for number, (start, end) in enumerate(pairwise(bounds), start=1):
        part = pieces / str(number) / "part"
        part.parent.mkdir(parents=True)
        part.write_bytes(stream[start:end])
        sizes.append(end - start)
    carried = (
        Wheel(name, file=path.name, size=path.stat().st_size, sha256=sha256(path.read_bytes()))
        for name, path in wheels.items()
    )
    return Carried(tuple(carried), tuple(sizes))


def completes(carried: Carried) -> dict[int, list[str]]:
    """Return the proofs that can run with a piece and those before it."""
    ends: dict[str, int] = {}
    end = 0
    for wheel in carried.wheels:
        end += wheel.size
        ends[wheel.name] = end
    found: dict[int, list[str]] = {}
    for proof, names in NEEDED.items():
        needed, reached, number = max((ends[name] for name in names), default=0), 0, 0
        while number == 0 or reached < needed:
            reached += carried.pieces[number]
            number += 1
        found.setdefault(number, []).append(proof)
    return found
