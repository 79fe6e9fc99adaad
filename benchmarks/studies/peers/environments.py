"""Makes the environment of each peer: the packages of its lock file, by hash, and nothing else."""

import subprocess
import sys
from pathlib import Path

from slipway.contract import GateError
from slipway.system.files import sha256_file

ROOT = Path(__file__).parents[3]
LOCKS = Path(__file__).parent / "requirements"


def python_of(name: str) -> Path:
    """Return the interpreter of the environment of `requirements/<name>.lock`, which is installed if it is missing.

    Raises:
        GateError: pip's own reason.
    """
    lock, folder = LOCKS / f"{name}.lock", ROOT / ".venv/peers" / name
    python, installed = folder / "bin/python", folder / "installed"
    locked = sha256_file(lock)
    if installed.is_file() and installed.read_text() == locked:
        return python
    print(f"{name}: installing {lock.relative_to(ROOT)}", flush=True)
    _run(sys.executable, "-m", "venv", "--clear", str(folder))
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes")
    _run(str(python), *pip, "-r", str(lock))
    installed.write_text(locked)
    return python


def versions_of(name: str) -> dict[str, str]:
    """Return every pinned version of the lock file."""
    lines = (LOCKS / f"{name}.lock").read_text(encoding="utf-8").splitlines()
    pins = (line.split(" ")[0].split("==") for line in lines if "==" in line and not line.startswith((" ", "#")))
    return {package: version.rstrip(";") for package, version in pins}


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise GateError(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
