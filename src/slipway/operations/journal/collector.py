"""Empties the spool: a tap file, a replay, one transaction, and the file goes. A kill at any moment does no harm."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slipway.client.result import Result
from slipway.errors import StorageError
from slipway.operations.journal.pictures import Picture, measure
from slipway.operations.journal.replay import NotYetError, Replayer
from slipway.operations.journal.rows import Row, row_of
from slipway.operations.journal.spool import TapFile, UnfinishedFiles, tap_files
from slipway.operations.journal.store import Counts, Store, sha256_of
from slipway.operations.journal.tapped import TapError, Tapped, TappedAnswer, read_tapped

ROWS, PARITY, FILES = "rows", "parity", "files"
"""Counters: rows by classifier and arm; replays by classifier and parity; tap files by result."""
_ALERTS = 20
"""Sentences on differing replays in one round; more are counted alone."""
_AGAIN_S = 60.0
_LOOK_S = 5.0
"""Longest look, so that counters, alerts and pruning do not wait for a full spool."""
Say = Callable[[str], None]


@dataclass
class Round:
    """Result of one look at the spool."""

    taken: int = 0
    rows: int = 0
    left: int = 0
    """Files that are not whole yet, or whose server cannot be asked now."""
    waits_for: str = ""
    """Reason why files were left, if it is not their age."""
    differ: list[str] = field(default_factory=list)


class Collector:
    """Takes tap files into a journal."""

    def __init__(self, spool: Path, store: Store, replayer: Replayer, *, say: Say) -> None:
        self._spool, self._store, self._replayer, self._say = spool, store, replayer, say
        self._unfinished = UnfinishedFiles()
        self._said: dict[str, float] = {}

    def look(self, is_ended: Callable[[], bool] = lambda: False) -> Round:
        """Take in what the spool has now, or a part of it; stops between two files where `is_ended()`.

        Raises:
            StorageError: the journal cannot be written; the file at work stays in the spool.
        """
        done, until = Round(), time.monotonic() + _LOOK_S
        files = tap_files(self._spool)
        self._unfinished.forget_others(file.path for file in files)
        self._replayer.forget_others(file.request for file in files)
        try:
            self._take_all(files, done, is_over=lambda: is_ended() or time.monotonic() > until)
        finally:  # what was found before an error is in the journal, and is not found again
            for sentence in done.differ[:_ALERTS]:
                self._say(f"alert: {sentence}")
        if done.waits_for:
            self.say_once(f"waits, and {done.left} tap files with it: {done.waits_for}", kind="waits")
        return done

    def _take_all(self, files: Sequence[TapFile], done: Round, *, is_over: Callable[[], bool]) -> None:
        for file in sorted(files, key=lambda file: self._replayer.order(file.request)):
            if is_over():
                break
            try:
                rows = self._take(file)
            except NotYetError as error:
                done.left += 1
                done.waits_for = done.waits_for or str(error)
                continue
            if rows is None:
                done.left += 1
                continue
            done.taken += 1
            done.rows += len(rows)
            done.differ += [_difference(row) for row in rows if row.parity == "differs"]

    def say_once(self, sentence: str, *, kind: str) -> None:
        """Say a sentence, unless one of its kind was said in the last minute."""
        now = time.monotonic()
        if now - self._said.get(kind, -_AGAIN_S) >= _AGAIN_S:
            self._said[kind] = now
            self._say(sentence)

    def _take(self, file: TapFile) -> Sequence[Row] | None:
        """Take in one file; returns its new rows, or None if it is not whole yet.

        Raises:
            NotYetError: its server cannot be asked now.
        """
        if self._store.is_done(file.request):  # killed between the commit and the removal
            return self._remove(file, [])
        try:
            tapped = read_tapped(file.path.read_bytes())
        except FileNotFoundError:  # the gateway's bound, or `forget`, was faster
            return []
        except OSError as error:
            raise StorageError(f"{file.path}: {error.strerror}") from None
        except TapError as error:
            if error.kind == "unfinished" and not self._unfinished.is_given_up(file):
                return None
            if error.kind not in ("failed", "unfinished"):
                self.say_once(f"alert: a tap file is not taken in ({error.kind}): {error}", kind=error.kind)
            return self._commit(file, [], {}, result=error.kind)
        rows, images = self._rows(file, tapped)
        return self._commit(file, rows, images, result="taken")

    def _rows(self, file: TapFile, tapped: Tapped) -> tuple[list[Row], dict[str, bytes]]:
        pictures: dict[int, Picture] = {}
        images: dict[str, bytes] = {}
        rows = []
        time_s = tapped.time_s if tapped.time_s is not None else file.modified_ns / 1e9
        for classifier, answers in tapped.answers.items():
            again: Sequence[Result | None] = self._replayer.ask(
                file.request, classifier, tapped.images, arm=tapped.arm, bundles=[one.bundle for one in answers]
            )
            for place, (served, content, replayed) in enumerate(zip(answers, tapped.images, again, strict=True)):
                sha256 = None
                if _is_accepted(served, replayed):
                    sha256 = sha256_of(content)
                    images[sha256] = content
                    if place not in pictures:
                        pictures[place] = measure(content)
                rows.append(
                    row_of(
                        served,
                        replayed,
                        key=(file.request, place, classifier),
                        model=tapped.model,
                        client_id=tapped.client_id,
                        time_s=time_s,
                        sampled_with=tapped.sampled_with,
                        arm=tapped.arm,
                        picture=pictures.get(place, Picture()),
                        content=content,
                        sha256=sha256,
                    )
                )
        return rows, images

    def _commit(self, file: TapFile, rows: list[Row], images: dict[str, bytes], *, result: str) -> Sequence[Row]:
        def counts(new: Sequence[Row]) -> Counts:
            found: Counter[tuple[str, tuple[str, ...]]] = Counter({(FILES, (result,)): 1})
            for row in new:
                found[ROWS, (row.classifier, row.arm)] += 1
                found[PARITY, (row.classifier, row.parity)] += 1
            return found

        new = self._store.add(file.request, rows, images, counts=counts, now_s=time.time())
        return self._remove(file, new)

    def _remove(self, file: TapFile, rows: Sequence[Row]) -> Sequence[Row]:
        file.path.unlink(missing_ok=True)
        return rows


def _is_accepted(served: TappedAnswer, replayed: Result | None) -> bool:
    status = served.status if served.status is not None else replayed.status if replayed else None
    return status == 0


def _difference(row: Row) -> str:
    return (
        f"{row.classifier} answered request {row.request}, image {row.image}, otherwise when it was asked again "
        f"(served: {row.label}, {row.score}, status {row.status}; bundle {row.bundle!s:.12})"
    )
