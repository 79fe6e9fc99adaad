"""`slipway watch run`: looks at the journal every two seconds until it is told to end."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from slipway.contract import Lane
from slipway.contract.lane import FILE_NAME as LANE
from slipway.errors import DataError, SlipwayError, SpecError, StorageError
from slipway.operations.endpoint import endpoint
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.journal.folders import only_process
from slipway.operations.journal.store import DATABASE, Store
from slipway.operations.turn.waiting import waits_for_a_person
from slipway.operations.watch.facts import Facts, GatewayLatency
from slipway.operations.watch.follow import Following, Say, begin, count_rows, feed, restarted
from slipway.operations.watch.latency import LatencyReader
from slipway.operations.watch.metrics import WatchMetrics
from slipway.operations.watch.page import LivePage, MachinePrice
from slipway.operations.watch.restarts import read_restarts
from slipway.operations.watch.row_numbers import newest_ever
from slipway.operations.watch.settings import WatchSettings
from slipway.operations.watch.state import WatchState, lock_of
from slipway.operations.watch.test_split import FILE, FOLDER, folder_of, read_reference
from slipway.operations.watch.view import Sources, facts_of, rate_of
from slipway.system.targets import told
from slipway.system.text import command

LOOK_S = 2.0
GONE_S = 300.0
"""Seconds since its last row after which a classifier that the repository does not have is no longer served."""
AGAIN_S = 600.0
"""Seconds after which a fault that lasts is said again."""


def run_watch(
    settings: GatewaySettings,
    *,
    ended: threading.Event,
    say: Say,
    once: bool = False,
    price: MachinePrice | None = None,
) -> tuple[Facts, ...]:
    """Watch every classifier of the journal until `ended`; returns what is known at the end.

    Args:
        once: end after the first look.
        price: of the machine, for the page.

    Raises:
        SpecError: another watch has the journal, or another release wrote it.
        StorageError: with `once`, the journal cannot be read. Otherwise it is waited for.
        ServingError: the port of the metrics is in use.
    """
    assert settings.watch is not None, "the verb has checked it"
    metrics, waits = WatchMetrics(), Often(say)
    port = settings.watch.metrics_port
    with contextlib.ExitStack() as stack:
        is_open = False
        while not ended.is_set():
            if not once and not (settings.journal / DATABASE).is_file():
                waits.say(
                    f"{settings.journal}: no journal yet; waits for {command('slipway journal run', settings.file)}"
                )
                ended.wait(LOOK_S)
                continue
            try:
                with only_watch(settings), Store.of(settings, make=False) as store:
                    if not is_open:
                        page = LivePage(lambda: metrics.facts, price=price)
                        stack.enter_context(endpoint(port, metrics, setting="watch.metrics_port", say=say, page=page))
                        address = f"http://127.0.0.1:{port}/"
                        say(f"{settings.journal}: is watched; the page is {address}, the metrics are {address}metrics")
                        is_open = True
                    watch = Watch(store, settings, say=say)
                    _looks(watch, metrics, ended=ended, say=waits, once=once)
            except StorageError as error:
                if once:
                    raise
                waits.say(f"alert: the journal cannot be opened; waits: {error}")
                ended.wait(LOOK_S)
            if once:
                break
    return metrics.facts


def _looks(watch: "Watch", metrics: WatchMetrics, *, ended: threading.Event, say: "Often", once: bool) -> None:
    """Look until the end, or until another journal stands instead of this one."""
    path = watch.store.folder / DATABASE
    inode = path.stat().st_ino
    while not ended.is_set():
        try:
            if path.stat().st_ino != inode:
                raise FileNotFoundError
            metrics.facts, metrics.looked_s = watch.look(), time.time()
            metrics.turns_waiting = watch.turns_waiting(metrics.facts)
            with told(path):
                os.utime(lock_of(watch.store.folder))
        except FileNotFoundError:
            if once:
                raise SpecError(f"{path}: removed meanwhile") from None
            say.say(f"{path}: removed or replaced; begins again")
            return
        except StorageError as error:
            if once:
                raise
            say.say(f"alert: the journal cannot be read; waits: {error}")
        if once:
            return
        ended.wait(LOOK_S)


class Often:
    """Says a sentence that is given again and again once in ten minutes."""

    def __init__(self, say: Say) -> None:
        self._say, self._said = say, dict[str, float]()

    def say(self, sentence: str) -> None:
        now = time.monotonic()
        if now - self._said.get(sentence, -AGAIN_S) >= AGAIN_S:
            self._said[sentence] = now
            self._say(sentence)


@contextlib.contextmanager
def only_watch(settings: GatewaySettings) -> Iterator[None]:
    """Raises SpecError if another watch has this journal, or if it is not there."""
    journal = settings.journal
    if not (journal / DATABASE).is_file():
        raise SpecError(f"{journal}: no journal; {command('slipway journal run', settings.file)} makes one")
    lock = lock_of(journal)
    with told(lock):
        lock.parent.mkdir(mode=0o700, exist_ok=True)
    with only_process(lock, f"{journal}: another slipway watch run has this journal; one is enough"):
        yield


class Watch:
    """The classifiers of an open journal."""

    def __init__(self, store: Store, settings: GatewaySettings, *, say: Say) -> None:
        self.store = store
        self._settings, self._say = settings, say
        self._of: dict[str, WatchedClassifier] = {}
        self._newest = 0
        self._latency = LatencyReader(settings)

    def look(self) -> tuple[Facts, ...]:
        """Take in what the journal has now; returns what is known of each classifier, in alphabetical order.

        Raises:
            StorageError: the journal cannot be read.
        """
        assert self._settings.watch is not None, "the verb has checked it"
        names, self._newest = classifiers(self.store, after=self._newest)
        for name in names - self._of.keys():
            self._of[name] = WatchedClassifier(name, self.store, self._settings.watch, say=self._say)
        latency, labels = self._latency.latest(), self._labels()
        known = [self._of[name].look(latency=latency.get(name), labels=labels) for name in sorted(self._of)]
        return tuple(still_served(known, self._settings))

    def turns_waiting(self, known: Sequence[Facts]) -> set[str]:
        """The classifiers of which a proposal or an open turn waits for a person."""
        return {one.classifier for one in known if waits_for_a_person(self._settings, one.classifier)}

    def _labels(self) -> object:
        """Return a value that changes when labels or selections do."""
        return self.store.query(
            "SELECT (SELECT count(*) FROM labels), (SELECT max(labelled_s) FROM labels), (SELECT count(*) FROM asked), "
            "(SELECT max(selection) FROM considered)"
        )


def classifiers(store: Store, *, after: int = 0) -> tuple[set[str], int]:
    """The classifiers that have a reference, or rows after this number; and the newest row's number."""
    ((newest,),) = store.query("SELECT coalesce(max(id), 0) FROM rows")
    found = {name for (name,) in store.query("SELECT DISTINCT classifier FROM rows WHERE id > ?", (after,))}
    found |= {path.parent.name for path in (store.folder / FOLDER).glob(f"*/{FILE}")}
    return found, max(newest, after)


def still_served(known: Sequence[Facts], settings: GatewaySettings) -> list[Facts]:
    """The classifiers that the settings' repository has, or that were asked a moment ago; all if it cannot be read.

    The rows of a classifier that was removed stay in the journal for a year, and nobody could make its reference.
    """
    if settings.repository is None:
        return list(known)
    try:
        names = Lane.read(Path(settings.repository) / LANE).classifiers.keys()
    except (SlipwayError, OSError):
        return list(known)
    since_s = time.time() - GONE_S
    return [one for one in known if one.classifier in names or (one.last_s or 0) >= since_s]


class WatchedClassifier:
    """One classifier, followed from look to look."""

    def __init__(self, name: str, store: Store, settings: WatchSettings, *, say: Say) -> None:
        self.name = name
        self._store, self._settings, self._say = store, settings, say
        self._state: WatchState | None = None
        self._following: Following | None = None
        self._reference_file: tuple[int, int] | None = None
        self._facts: Facts | None = None
        self._signature: object = None
        self._unsaved = ""
        self._told: set[str] = set()

    def look(self, *, latency: GatewayLatency | None, labels: object) -> Facts:
        """Follow the rows, and say what is new. A fault of this classifier's files harms no other classifier.

        Args:
            labels: differs when labels or selections do.
        """
        now_s, problem, latest = time.time(), "", self._facts
        try:
            state = self._follow()
        except (SpecError, DataError) as error:
            state, problem = self._state or WatchState(classifier=self.name), str(error)
        signature: object = (state.seen, state.current, problem, self._unsaved, labels)
        if latest is None or signature != self._signature:
            try:
                latest = self._known(state, problem, now_s=now_s)
            except (SpecError, DataError) as error:
                latest = self._known(state, str(error), now_s=now_s)
                signature = None  # the rows may be mended by the next look
            for sentence in latest.told:
                if sentence not in self._told:
                    self._say(f"{self.name}: {sentence}")
            self._told, self._facts, self._signature = set(latest.told), latest, signature
        rate = rate_of(state.seen, now_s=now_s)
        return latest.model_copy(update={"looked_s": now_s, "rows_per_second": rate, "latency": latency})

    def _known(self, state: WatchState, problem: str, *, now_s: float) -> Facts:
        """The facts; with a problem, only those that need no reference."""
        said = f"alert: {self.name} is not watched: {problem}" if problem else self._unsaved
        sources = Sources(self._store, None if problem else self._following, said)
        return facts_of(state, sources, looked_s=now_s, latency=None)

    def _follow(self) -> WatchState:
        journal = self._store.folder
        if self._state is None:
            self._state = WatchState.load(journal, self.name)
        state = self._of_this_journal(self._state)
        if self._unsaved:
            self._keep(state)
        state = count_rows(self._store, state, keep=self._keep)
        self._read_reference()
        if self._following is not None:
            before = state
            state = begin(state, self._following, say=self._say)
            assert state.current is not None, "begin has made it"
            entries = read_restarts(journal, self.name)
            current = restarted(state.current, entries, store=self._store, classifier=self.name)
            state = state.model_copy(update={"current": current})
            if state != before:
                self._keep(state)
            state = feed(self._store, state, self._following, keep=self._keep, say=self._say)
        self._state = state
        return state

    def _of_this_journal(self, state: WatchState) -> WatchState:
        """A new state if the journal has never had the rows of the one that was kept."""
        most = newest_ever(self._store)
        if state.seen.last_row <= most:
            return state
        self._say(f"{self.name}: the journal is a new one, with {most:,} rows; the watch begins anew")
        return WatchState(classifier=self.name)

    def _keep(self, state: WatchState) -> None:
        """Write the state. If that fails the watch goes on in memory, and after a kill takes the same rows again."""
        self._state = state  # also where the rest of this look fails, so that no row is counted by every look
        try:
            state.keep(self._store.folder)
            self._unsaved = ""
        except StorageError as error:
            self._unsaved = f"alert: the state cannot be written, and is kept in memory alone: {error}"

    def _read_reference(self) -> None:
        """Read the reference if its file is another one than before."""
        path = folder_of(self._store.folder, self.name) / FILE
        status = path.stat() if path.exists() else None
        found = None if status is None else (status.st_ino, status.st_mtime_ns)
        if found != self._reference_file:
            self._following = None
            reference = read_reference(self._store.folder, self.name)
            self._following = None if reference is None else Following.of(reference, self._settings)
            self._reference_file = found
