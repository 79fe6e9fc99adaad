"""A small environment for one version of DALI, made once and kept in the user's cache."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest
from filelock import FileLock

from slipway.system.home import user_folder

HELPERS = (
    *("astunparse", "gast", "six", "optree", "packaging", "numpy", "nvtx", "makefun", "libcst"),
    *("simplejpeg", "cykooz-resizer"),
)
"""The pure part of what DALI requires, the decoder of large JPEGs and the resize. Everything runs on the CPU."""
CODECS = {"2.1": "0.7", "2.2": "0.8", "2.3": "0.9", "2.4": "0.9"}
"""Minor version of DALI to the nvImageCodec that its wheel requires."""


def python_with_dali(version: str) -> Path:
    """The interpreter of an environment with that DALI; skips the test where no index has it."""
    folder = user_folder("XDG_CACHE_HOME", ".cache") / "slipway" / f"dali-{version}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        python, complete = folder / "bin/python", folder / "complete"
        if not complete.is_file() or complete.read_text() != str(HELPERS):
            venv.create(folder, with_pip=True, clear=True)
            codec = CODECS[version.rpartition(".")[0]]
            _install(python, f"nvidia-dali-cuda130=={version}", f"nvidia-nvimgcodec-cu13=={codec}.*", "--no-deps")
            _install(python, *HELPERS)
            complete.write_text(str(HELPERS))
    return python


def _install(python: Path, *what: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2]
        pytest.skip(f"pip install {' '.join(what)} on {sys.platform}: {last}")
