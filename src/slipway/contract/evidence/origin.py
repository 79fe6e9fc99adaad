"""Origin of a result: time, commit, machine and library versions."""

import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Self

from slipway import __version__
from slipway.contract.typed_file import Contract


class Machine(Contract):
    cpu: str
    cores: int
    """Number of cores that this process may use."""
    memory_gib: float
    system: str
    python: str

    @classmethod
    def this(cls) -> Self:
        return cls(
            cpu=_processor(),
            cores=len(os.sched_getaffinity(0)),
            memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            system=platform.platform(),
            python=platform.python_version(),
        )


class Origin(Contract):
    """Origin of the numbers in a result file."""

    created: str
    """Time of the measurement, in UTC."""
    commit: str | None
    """Commit of the code that ran, with `-dirty` if that was changed; None if git does not track it."""
    machine: Machine
    versions: dict[str, str]

    @classmethod
    def here(cls, libraries: Iterable[str]) -> "Origin":
        """The origin of a result. Call this before writing the result into the clone, which makes the commit dirty."""
        return Origin(created=now(), commit=commit(), machine=Machine.this(), versions=versions(libraries))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Installed version of each distribution. A missing one is an error, since it was used."""
    names = sorted({"slipway", "numpy", *libraries})
    # An editable installation keeps the version of the day on which it was made.
    return {name: __version__ if name == "slipway" else metadata.version(name) for name in names}


@cache
def commit() -> str | None:
    """Commit of the working tree of this code, with `-dirty` if changed; None if git does not track it.

    Git is asked once in a process: the code that runs was loaded then, whatever is committed later.
    """
    here = Path(__file__)
    try:
        # An installed copy may lie inside an unrelated working tree, whose commit says nothing about this code.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def _processor() -> str:
    """The processor's name, as Linux gives it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
