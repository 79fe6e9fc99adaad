"""Names a candidate, or an active run, in the fleet file, and leaves the rest of it unchanged."""

import stat
from collections.abc import Sequence
from pathlib import Path

from slipway.contract import Fleet, SpecError
from slipway.system.targets import told, write_file
from slipway.system.yaml_edit import with_block, with_value
from slipway.system.yaml_json import dump_yaml


def name_candidate(fleet_file: Path, classifier: str, run: str) -> bool:
    """Let `release.candidate` name `run` for the classifier; returns whether the file changed.

    Raises:
        SpecError: the file cannot be changed safely; the message says what to write.
        StorageError: it cannot be written.
    """
    release, text = Fleet.read(fleet_file).release, _read(fleet_file)
    block = {"release": {"candidate": {classifier: run}}}
    if release is None:
        changed = with_block(text, block, source=str(fleet_file))
    elif release.candidate == {classifier: run}:
        return False
    elif release.candidate.keys() == {classifier}:
        changed = with_value(text, ("release", "candidate", classifier), run, source=str(fleet_file))
    else:
        changed = None
    if changed is None:
        raise SpecError(
            f"{fleet_file}: cannot be changed safely; write this into it, and run the same command again:\n"
            + dump_yaml(block).rstrip()
        )
    _write(fleet_file, changed)
    return True


def make_active(fleet_file: Path, path: Sequence[str], run: str) -> bool:
    """Let the keys `path` name `run`; returns whether the file changed.

    Raises:
        SpecError, StorageError: as `name_candidate`.
    """
    text = _read(fleet_file)
    changed = with_value(text, path, run, source=str(fleet_file))
    if changed == text:
        return False
    if changed is None:
        raise SpecError(f"{fleet_file}: cannot be changed safely; write {run} at {'.'.join(path)}")
    _write(fleet_file, changed)
    return True


def _read(path: Path) -> str:
    with told(path):
        return path.read_bytes().decode("utf-8-sig")


def _write(path: Path, text: str) -> None:
    file = path.resolve()  # behind a link
    with told(path):
        mode = stat.S_IMODE(file.stat().st_mode)
    write_file(file, text, mode=mode)
