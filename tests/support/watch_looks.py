"""A watch that looks once at a made journal; a test file takes the fixtures that it needs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.operations.journal.store import Store
from slipway.operations.watch import latency as latencies
from slipway.operations.watch.facts import Drift, DriftAlarm, Facts, Watched
from slipway.operations.watch.run import Watch
from slipway.operations.watch.state import WatchState
from tests.support.journal_rows import journal_in
from tests.support.watch_rows import made_reference, watch_settings


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Store]:
    """A journal without a reference."""
    with journal_in(tmp_path / "journal", make=True) as store:
        yield store


@pytest.fixture
def store(bare: Store) -> Store:
    """A journal with a reference of the bundle of made rows."""
    made_reference(bare.folder)
    return bare


@pytest.fixture(autouse=True)
def no_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look asks no gateway."""
    monkeypatch.setattr(latencies, "read_counts", lambda _: {})


def look(store: Store, said: list[str] | None = None, **watch: Any) -> Facts:
    """What a watch that has just been started knows of `digits` after one look."""
    return {one.classifier: one for one in looks(store, said, **watch)}["digits"]


def looks(store: Store, said: list[str] | None = None, **watch: Any) -> tuple[Facts, ...]:
    say = (said if said is not None else []).append
    return Watch(store, watch_settings(store.folder, **watch), say=say).look()


def watched_in(facts: Facts) -> Watched:
    assert facts.watched is not None
    return facts.watched


def drift_in(facts: Facts) -> Drift:
    drift = watched_in(facts).drift
    assert drift is not None
    return drift


def alarm_in(facts: Facts) -> DriftAlarm:
    alarm = drift_in(facts).alarm
    assert alarm is not None
    return alarm


def kept(store: Store) -> dict[str, Any]:
    state = WatchState.load(store.folder, "digits").plain()
    state["current"].pop("since_s")
    if state["current"]["live"] is not None:
        state["current"]["live"].pop("taken_s")
    found: dict[str, Any] = state
    return found
