"""Asks the candidate for images of the journal that stable has answered, and asks people where the two differ."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from slipway.client import Client, Options, Result
from slipway.client.errors import DeadlineError, GoneError, OverloadedError, ServerError
from slipway.contract import ServingError, SpecError
from slipway.operations.journal.store import Store, read_image
from slipway.operations.release.disagreements import ASK, OPEN, Pair
from slipway.serving.ports import HOST
from slipway.system.text import command

DEADLINE_S = 10.0
WAIT_S = 30.0
"""Seconds for which an image waits for a candidate that is gone or busy."""
PAUSE_S = 0.5
FLUSH_S = 1.0
"""Seconds of answers that a kill may cost; they are asked again."""
PROGRESS_S = 10.0
_ROWS = """
    SELECT max(id), sha256 FROM rows WHERE classifier = :classifier AND bundle = :stable AND kept = 1 AND status = 0
      AND sha256 IS NOT NULL AND label IS NOT NULL AND parity NOT IN ('differs', 'other_bundle')
    GROUP BY sha256 ORDER BY max(id) DESC LIMIT :most"""
"""The latest row of each image. An image that was sent often counts once."""
_KNOWN = """
    SELECT DISTINCT rows.sha256 FROM compared JOIN rows ON rows.id = compared.row
    WHERE rows.classifier = :classifier AND rows.bundle = :stable AND compared.bundle = :candidate
      AND (rows.kept = 1 OR EXISTS (SELECT 1 FROM labels WHERE labels.row = rows.id))"""
"""Images that are compared, and that people can see or have labelled."""
_INSERT = "INSERT OR IGNORE INTO compared SELECT id, ?, ?, ?, ?, ? FROM rows WHERE id = ?"
Say = Callable[[str], None]


@dataclass
class Compared:
    """Result of one call for one pair."""

    chosen: int = 0
    """Images of the journal that are to be compared."""
    before: int = 0
    """Images that an earlier call compared."""
    new: int = 0
    trained: int = 0
    """Number of images that were looked at and left out, since the candidate was trained or tuned on them."""
    gone: int = 0
    """Images that were removed meanwhile, or are damaged."""
    failed: int = 0
    """Images for which the candidate gave an error instead of an answer."""


def compare(
    store: Store, pair: Pair, *, port: int, images: int, without: Collection[str], per_second: float, say: Say
) -> Compared:
    """Ask the candidate at `port` for the latest `images` distinct images of the journal that stable answered.

    One image at a time, `per_second` at most, since the candidate may have users. Answers are written each second; a
    call that was killed is continued by the next.

    Args:
        without: SHA-256 of images that are left out, since the candidate was trained on them.

    Raises:
        ServingError: the candidate is gone, busy for half a minute, or answers with another bundle.
        StorageError: the journal cannot be read or written.
    """
    found = store.query(_ROWS, {**pair.names, "most": images + len(without)})
    chosen = list(islice(((row, sha256) for row, sha256 in found if sha256 not in without), images))
    known = {sha256 for (sha256,) in store.query(_KNOWN, pair.names)}
    left = [(row, sha256) for row, sha256 in chosen if sha256 not in known]
    done = Compared(len(chosen), before=len(chosen) - len(left), trained=sum(sha256 in without for _, sha256 in found))
    answers: list[tuple[object, ...]] = []
    flushed = told = time.monotonic()
    options = Options(deadline_s=DEADLINE_S, concurrency=1)
    with closing(Client(f"grpc://{HOST}:{port}", model=pair.classifier, options=options)) as client:
        try:
            for row, sha256 in _paced(left, per_second=per_second):
                content = read_image(store.folder, sha256)
                answer = None if content is None else _ask(client, content, pair, row)
                if answer is None:
                    done.gone += 1
                elif answer.error is not None:
                    done.failed += 1
                else:
                    answers.append((pair.candidate, answer.status, answer.label, answer.class_id, answer.score, row))
                now = time.monotonic()
                if answers and now - flushed >= FLUSH_S:
                    done.new, flushed = done.new + store.write(_INSERT, answers), now
                    answers.clear()
                if now - told >= PROGRESS_S:
                    told = now
                    say(f"{pair.classifier}: {done.before + done.new:,} of {done.chosen:,} images compared")
        finally:
            if answers:
                done.new += store.write(_INSERT, answers)
    return done


def images_there(store: Store, pair: Pair, *, without: Collection[str]) -> tuple[int, int]:
    """Return the number of images of the journal that may be compared, and of those that are not compared yet.

    Args:
        without: as for `compare`.
    """
    there = {sha256 for _, sha256 in store.query(_ROWS, {**pair.names, "most": -1})}.difference(without)
    return len(there), len(there.difference(sha256 for (sha256,) in store.query(_KNOWN, pair.names)))


def ask_people(store: Store, pair: Pair, *, most: int) -> int:
    """Ask for labels of differing images until `most` questions of this kind are open; returns how many are new."""
    (opened,) = store.query(OPEN, pair.names)[0]
    return store.write(ASK, [{**pair.names, "time": time.time(), "most": max(0, most - opened)}])


def _paced(rows: Sequence[tuple[int, str]], *, per_second: float) -> Iterator[tuple[int, str]]:
    """The rows, at most so many a second; time that an answer took longer is not made up."""
    due = time.monotonic()
    for row in rows:
        time.sleep(max(0.0, due - time.monotonic()))
        due = max(due, time.monotonic()) + 1 / per_second
        yield row


def _ask(client: Client, content: bytes, pair: Pair, row: int) -> Result:
    """The answer for one image, or an error of this image alone.

    Raises:
        ServingError: the candidate is gone or busy, or another bundle answers.
    """
    until = time.monotonic() + WAIT_S
    while True:
        answer = _once(client, content, row)
        waits = isinstance(answer.error, DeadlineError | OverloadedError | GoneError)
        if not waits or time.monotonic() > until:
            break
        time.sleep(PAUSE_S)
    if waits or isinstance(answer.error, ServerError):
        raise ServingError(
            f"{pair.classifier}: the candidate does not answer: {answer.error}; what is compared is kept: start its "
            "server, and run the same command again"
        )
    if answer.error is None and answer.bundle != pair.candidate:
        raise ServingError(
            f"{pair.classifier}: the candidate answers with bundle {answer.bundle!s:.12}, and not with "
            f"{pair.candidate:.12}; slipway reload it, and run the same command again"
        )
    return answer


def _once(client: Client, content: bytes, row: int) -> Result:
    request_id = f"compare-{row}"
    try:
        return next(client.classify_many([content], full=True, request_id=request_id))
    except ServerError as error:
        return Result(content, request_id, error=error)


def require_rows(store: Store, done: Compared, pair: Pair) -> None:
    """Raises SpecError if the journal has no image to compare."""
    if not done.chosen:
        collect = command("slipway journal run", store.settings_file)
        raise SpecError(
            f"{pair.classifier}: the journal keeps no image that stable bundle {pair.stable:.12} answered and the "
            f"candidate was not trained on; let {collect} collect some first"
        )
