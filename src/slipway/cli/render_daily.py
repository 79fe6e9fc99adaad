"""Chooses the classifiers for which timers run verbs each day, and says of the others why not."""

from collections.abc import Sequence
from pathlib import Path

from slipway.cli.turn_run import active_run
from slipway.contract import Fleet, Lane, SpecError
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.labels.labelled_classifier import with_several_labels
from slipway.operations.rendering.systemd import Daily
from slipway.system.text import few


def daily_of(
    settings: GatewaySettings, lane: Lane, repository: Path, *, source: Path, fleet_file: Path | None
) -> tuple[Daily, list[str]]:
    """Return the classifiers, and a sentence on each thing that no timer does.

    Args:
        source: the file of the settings.

    Raises:
        SpecError: the fleet file is wrong, or is given without a journal.
    """
    if settings.observe is None:
        if fleet_file is not None:
            raise SpecError(
                f"--fleet {fleet_file}: the reasons for a turn come from the journal, and {source} keeps none; "
                "add observe: {}, or leave out --fleet"
            )
        return Daily(), []
    several = with_several_labels(repository)
    single = [name for name, bundle in sorted(lane.classifiers.items()) if bundle not in several]
    notes: list[str] = []
    if left := sorted(lane.classifiers.keys() - set(single)):
        notes.append(f"No timer is for {few(left)}: labels and turns are for one label an image.")
    if settings.labels is None:
        notes.append("No timer chooses rows for labels: the settings have no labels: (labels: {} takes every default).")
    turned: list[str] = []
    if fleet_file is None:
        notes.append("No timer looks for reasons for a turn: give --fleet, the repository's fleet file.")
    else:
        turned, refused = _turned(fleet_file, single)
        notes += [f"No timer looks for reasons for this turn: {said}." for said in refused]
    return Daily(tuple(single) if settings.labels is not None else (), tuple(turned)), notes


def _turned(fleet_file: Path, classifiers: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the classifiers for which a turn can be made, and why it cannot be for the others."""
    fleet = Fleet.read(fleet_file)
    turned, refused = [], dict[str, None]()
    for name in classifiers:
        try:
            active_run(fleet, fleet_file, name)
        except SpecError as error:
            refused[str(error)] = None
        else:
            turned.append(name)
    return turned, [*refused]
