"""`slipway reload`, as a user calls it."""

import os
import subprocess
import sys
from typing import Any


def reload(launched: Any) -> tuple[int, str]:
    """Its exit code and words, for a launcher that a test started."""
    done = subprocess.run(
        [sys.executable, "-m", "slipway", "reload", f"--status-port={launched.ports.status}"],
        env={**os.environ, "XDG_STATE_HOME": str(launched.temporary.parent / "state")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
