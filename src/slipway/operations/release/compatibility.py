"""Checks whether a candidate may stand beside a stable repository, and what a server really answers with."""

import time
from collections.abc import Collection
from pathlib import Path

from slipway.contract import Lane, ServingError, SpecError
from slipway.contract.lane import FILE_NAME as LANE
from slipway.contract.shared_rules import changed_class
from slipway.operations.gateway.settings import ServerPorts
from slipway.operations.release.record import labels_of
from slipway.operations.release.unjudged import ServedFiles, differing
from slipway.serving.ports import HOST
from slipway.serving.probe import BusyError, over_grpc
from slipway.system.text import few

PROBE_S = 5.0
BUSY_S = 5.0
"""Seconds in which a server that rejects requests, since its queue is full, is asked again."""
BUSY_PAUSE_S = 0.1
MOST_PROBED = 16
"""Classifiers of a server that are asked before it gets requests; a change of more is known by a sample."""


def check_candidate(stable: Path, candidate: Path, *, tried: Collection[str]) -> None:
    """Raises SpecError unless the repository `candidate` can answer every request that `stable` answers, and differs
    from it in the classifiers `tried` alone: in their bundles, and in what serves them."""
    old, new = Lane.read(stable / LANE), Lane.read(candidate / LANE)
    if new.lane != old.lane:
        raise SpecError(f"{candidate}: of the {new.lane} lane, and {stable} is of the {old.lane} lane; use the same")
    if unknown := sorted(new.ensembles.keys() - old.ensembles.keys()):
        raise SpecError(
            f"{candidate}: serves {few(unknown)}, which {stable} does not; assemble the stable fleet with them first"
        )
    if missing := sorted(old.ensembles.keys() - new.ensembles.keys()):
        raise SpecError(
            f"{candidate}: does not serve {few(missing)}, which {stable} does; requests for them would fail"
        )
    changed = sorted(name for name in new.classifiers if new.classifiers[name] != old.classifiers[name])
    if others := [name for name in changed if name not in tried]:
        raise SpecError(
            f"{candidate}: {few(others)} differ from {stable} and are not in release.candidate; assemble the stable "
            "fleet and slipway reload it first, so that only the candidate is judged"
        )
    unjudged = differing(ServedFiles(stable, old), ServedFiles(candidate, new), tried=tried)
    if said := [f"{name} ({parts})" for name, parts in sorted(unjudged.items())]:
        raise SpecError(
            f"{candidate}: {few(said)} are served otherwise than in {stable} (other engines, options, code or "
            "calibration), and are not in release.candidate, so nothing judges them; assemble the stable fleet and "
            "slipway reload it first, then write the candidate again"
        )
    for name in changed:
        _check_class_ids(name, stable, candidate)


def _check_class_ids(name: str, stable: Path, candidate: Path) -> None:
    old, new = labels_of(stable, name), labels_of(candidate, name)
    if changed := changed_class(old, new):
        class_id, before, after = changed
        raise SpecError(
            f"{name}: class id {class_id} is {before!r} and would become {after!r}; clients rely on it: append new "
            "classes, or serve this run under another name"
        )
    if missing := [label for label in old if label not in new]:
        raise SpecError(
            f"{name}: the candidate has {len(new):,} classes and the stable version {len(old):,}; {few(missing)} would "
            "no longer be answered: train it with images of them too, since clients rely on them"
        )


def answering(ports: ServerPorts, bundles: dict[str, str]) -> dict[str, str]:
    """The reason for each classifier that does not answer with its bundle of `bundles`."""
    problems, busy_until = {}, time.monotonic() + BUSY_S
    for name, expected in list(bundles.items())[:MOST_PROBED]:
        try:
            found = _bundle(ports, name, busy_until=busy_until)
        except ServingError as error:
            problems[name] = f"does not answer: {error}"
            continue
        if found != expected:
            problems[name] = f"answers with bundle {found:.12}, and not with {expected:.12}"
    return problems


def _bundle(ports: ServerPorts, name: str, *, busy_until: float) -> str:
    """The bundle that the server answers with; a full queue is tried again until `busy_until` (monotonic)."""
    while True:
        try:
            return str(over_grpc(f"{HOST}:{ports.grpc}", name, timeout_s=PROBE_S)["BUNDLE"])
        except BusyError:
            if time.monotonic() > busy_until:
                raise
        time.sleep(BUSY_PAUSE_S)
