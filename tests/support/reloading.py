"""`slipway reload`, as a user calls it."""

from typing import Any

from tests.support.scripts import run_slipway


def reload(launched: Any) -> tuple[int, str]:
    """Its exit code and words, for a launcher that a test started."""
    state = str(launched.temporary.parent / "state")
    done = run_slipway("reload", f"--status-port={launched.ports.status}", XDG_STATE_HOME=state)
    return done.returncode, done.stdout + done.stderr
