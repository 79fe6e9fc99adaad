"""Sentences on what a person must know of a classifier, or do about it."""

from pathlib import Path

from slipway.operations.journal.status import time_text
from slipway.operations.watch.facts import DriftAlarm, Watched
from slipway.operations.watch.follow import Following
from slipway.operations.watch.reference import MIN_ROWS
from slipway.operations.watch.state import WatchState
from slipway.system.text import command, shown


def sentences(
    state: WatchState, found: Watched | None, settings_file: Path, *, following: Following | None, problem: str
) -> tuple[str, ...]:
    """Faults first, then alarms with their remedy, then what is not watched."""
    said = [problem] if problem else []
    if found is None or following is None:
        return (*said, *([] if problem else [_unwatched(state, settings_file, following)]))
    if found.drift is not None and found.drift.alarm is not None:
        said.append(_drift(found.drift.alarm, state.classifier, settings_file))
    if found.accuracy.alarm:
        said.append(
            f"alarm: the accuracy is shown to be over {found.accuracy.points:g} points lower than on the test split; "
            "train with the new labels"
        )
    lost = [shown(one.label) for one in found.recalls if one.alarm]
    if lost:
        said.append(f"alarm: the recall of {', '.join(lost)} is shown to be lower than on the test split")
    if following.reference.means is None:
        said.append(
            "the network has no embedding: drift is watched by confidence, brightness and classes alone, and a foreign "
            "class that it answers surely is not found"
        )
    if found.drift is None and following.reference.drift is not None:
        said.append("drift is not watched until there are enough live rows for a reference, as the restart says")
    elif found.drift is None:
        said.append(
            f"the test split has {found.test_rows} usable images, and drift needs {MIN_ROWS}: it is watched once there "
            "is a live reference"
        )
    if found.accuracy.estimate is None:
        said.append("no label yet, so the accuracy of live answers is unknown")
    return tuple(said)


def _unwatched(state: WatchState, settings_file: Path, following: Following | None) -> str:
    bundle = state.seen.bundle
    if bundle is None:
        return "no row yet"
    make = f"{command('slipway watch reference', settings_file)} RUN --classifier {state.classifier}"
    if following is None:
        return f"not watched: no reference of the bundle {bundle:.12}; with the run that made it: {make}"
    return (
        f"not watched: the bundle {bundle:.12} answers now, and the reference is of {following.reference.bundle:.12}; "
        f"with the new run: {make}"
    )


def _drift(alarm: DriftAlarm, classifier: str, settings_file: Path) -> str:
    since = f" since about {time_text(alarm.since_s)}" if alarm.since_s is not None else ""
    restart = command("slipway watch restart", settings_file)
    return (
        f"alarm: images or answers have changed{since}: {shown(alarm.event)}; look at the newest images, and when the "
        f"cause is dealt with: {restart} {classifier} --reason TEXT (with --live if live traffic is as it should be)"
    )
