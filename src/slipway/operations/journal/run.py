"""`slipway journal run`: looks at the spool until it is told to end."""

import threading
import time
from collections.abc import Callable

from slipway.errors import StorageError
from slipway.operations.endpoint import endpoint
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.journal.collector import Collector, Round, Say
from slipway.operations.journal.metrics import JournalMetrics
from slipway.operations.journal.replay import Replayer, ports_behind
from slipway.operations.journal.retention import PruningSchedule, prune, put_off
from slipway.operations.journal.settings import Observe
from slipway.operations.journal.spool import DROPPED, read_dropped, tap_files
from slipway.operations.journal.store import Store, only_collector

LOOK_S = 0.25
"""Seconds between two looks at an empty spool."""
PAUSE_S = 2.0
"""Seconds until the next look where something waits."""
PROGRESS_S = 60.0


def run_collector(settings: GatewaySettings, *, ended: threading.Event, say: Say, once: bool = False) -> dict[str, int]:
    """Take in what is tapped until `ended`; returns what this run has taken in.

    Args:
        once: end when the spool is empty.

    Raises:
        SpecError: another collector has the journal.
        StorageError: the journal cannot be opened. Later a journal that cannot be written is waited for.
        ServingError: the port of the metrics is in use.
    """
    observe = _observe(settings)
    dropped_in = settings.folder / DROPPED
    metrics = JournalMetrics(settings.spool, dropped_in=dropped_in)
    with (
        only_collector(settings.journal),
        Store.of(settings, make=True) as store,
        endpoint(observe.metrics_port, metrics, setting="observe.metrics_port", say=say),
        Replayer(lambda: ports_behind(settings.folder, otherwise=_ports(settings))) as replayer,
    ):
        metrics.counters = store.counters()
        say(
            f"{settings.journal}: takes in what {settings.spool} gets; the metrics are http://127.0.0.1:{observe.metrics_port}/metrics"
        )
        collector = Collector(settings.spool, store, replayer, say=say)
        return _loop(settings, store, collector, metrics, ended=ended, say=say, once=once)


def _loop(
    settings: GatewaySettings,
    store: Store,
    collector: Collector,
    metrics: JournalMetrics,
    *,
    ended: threading.Event,
    say: Say,
    once: bool,
) -> dict[str, int]:
    total = {"files": 0, "rows": 0, "differ": 0}
    pruning = PruningSchedule(now_s=time.time(), monotonic_s=time.monotonic())
    progress = _Progress(say, dropped=lambda: read_dropped(settings.folder / DROPPED))
    while not ended.is_set():
        try:
            done = collector.look(ended.is_set)
            metrics.counters, metrics.looked_s = store.counters(), time.time()
            if pruning.is_due(now_s=time.time(), monotonic_s=time.monotonic()):
                prune_if_sure(store, settings, say=say)
        except StorageError as error:  # the spool keeps what it has, and its bound does the rest
            collector.say_once(f"alert: the journal cannot be written; waits: {error}", kind="journal")
            if once:
                raise
            ended.wait(PAUSE_S)
            continue
        for name, value in (("files", done.taken), ("rows", done.rows), ("differ", len(done.differ))):
            total[name] += value
        progress.tell(total, done)
        if once and not tap_files(settings.spool):
            break
        ended.wait(PAUSE_S if done.waits_for else LOOK_S)
    say(f"took in {total['files']:,} tap files: {total['rows']:,} rows, {total['differ']:,} of them differ")
    return total


class _Progress:
    """A line each minute, and one for each time that the spool's bound has removed something."""

    def __init__(self, say: Say, *, dropped: Callable[[], int]) -> None:
        self._say, self._dropped = say, dropped
        self._dropped_before, self._next = dropped(), time.monotonic() + PROGRESS_S

    def tell(self, total: dict[str, int], done: Round) -> None:
        now, dropped = time.monotonic(), self._dropped()
        if now < self._next:
            return
        self._next = now + PROGRESS_S
        self._say(f"{total['rows']:,} rows, {total['differ']:,} differ; {done.left} tap files wait")
        if new := dropped - self._dropped_before:
            self._say(f"alert: the spool was full; {new:,} tap files were dropped")
            self._dropped_before = dropped


def prune_now(store: Store, settings: GatewaySettings) -> dict[str, int]:
    """Remove what is older than its days; returns the numbers of rows and images."""
    observe = _observe(settings)
    spooled = {file.request for file in tap_files(settings.spool)}
    return prune(store, image_days=observe.image_days, row_days=observe.row_days, now_s=time.time(), spooled=spooled)


def prune_if_sure(store: Store, settings: GatewaySettings, *, say: Say) -> None:
    """Prune, unless the machine's clock may be wrong; then say so."""
    if why := put_off(store, image_days=_observe(settings).image_days, now_s=time.time()):
        say(f"alert: {why}")
    else:
        prune_now(store, settings)


def _observe(settings: GatewaySettings) -> Observe:
    assert settings.observe is not None, "the verb has checked it"
    return settings.observe


def _ports(settings: GatewaySettings) -> dict[str, int]:
    servers = {"stable": settings.stable, "candidate": settings.candidate}
    return {arm: server.grpc for arm, server in servers.items() if server is not None}
