"""`slipway labels push` and `pull`: images go to Label Studio, and labels come back. Both may be repeated."""

import math
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slipway.contract import SpecError
from slipway.contract.labels import RESERVED
from slipway.operations.gateway.settings import GatewaySettings, read_secret
from slipway.operations.journal.pictures import data_uri, small_picture
from slipway.operations.journal.store import Store, read_image
from slipway.operations.labels.add_labels import Written, check_new_classes, fault_of_label, write_given
from slipway.operations.labels.label_studio_rest import Rest
from slipway.operations.labels.labelled_classifier import LabelledClassifier
from slipway.operations.labels.locks import only_one
from slipway.operations.labels.projects import Project, StudioTask, suggestion, title_of
from slipway.operations.labels.settings import LabelStudio
from slipway.operations.labels.truth import KNOWN
from slipway.system.targets import told, write_file
from slipway.system.text import command

SIDE = 640
"""Longest side of the copy that annotators see, in pixels."""
BATCH_BYTES, BATCH_TASKS = 4 * 2**20, 50
LOCK, ID = "label-studio.lock", "label-studio.id"


@dataclass(frozen=True)
class Pushed:
    project: str
    made: bool
    """Whether the project is new."""
    tasks: int
    """New tasks."""
    there: int
    """Rows that wait for a label and had a task."""
    removed: int
    """Tasks of rows that are no longer in the journal."""
    unreadable: tuple[int, ...]
    """Rows whose image cannot be shown."""


@dataclass(frozen=True)
class Pulled:
    project: str
    written: dict[str, Written] = field(default_factory=dict)
    """Results of taking in the labels, by annotator."""
    skipped: int = 0
    """Answers of annotators who skipped the task."""
    not_taken: tuple[str, ...] = ()
    """A sentence on each label that was not taken in."""
    removed: int = 0


def connect(settings: GatewaySettings, *, source: Path) -> tuple[Rest, LabelStudio]:
    """Raises SpecError without `label_studio`, or for a file of the token that others may read."""
    studio = settings.labels.label_studio if settings.labels else None
    if studio is None:
        raise SpecError(f"{source}: labels.label_studio: not given; write its url and token_file (docs/labels.md)")
    token = read_secret(Path(studio.token_file), what="labels.label_studio.token_file", source=source).strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise SpecError(
            f"{source}: labels.label_studio.token_file: {studio.token_file} must hold one token in one line"
        )
    return Rest(studio, token), studio


def push(store: Store, served: LabelledClassifier, rest: Rest, settings: LabelStudio) -> Pushed:
    """Make the project if it is missing, and a task for each asked row that nobody has labelled and that has no task.

    Tasks are made in batches, each whole or not at all. A row that has a task gets no second one, so that a push that
    was killed may be repeated; a second push at the same time waits.
    """
    with only_one(store.folder / LOCK):
        project = Project.find(rest, settings, served.classifier)
        made = project is None
        labels = [*served.labels, *sorted({*served.known(store)} - {*served.labels})]
        if project is None:
            project = Project.make(rest, settings, served.classifier, labels)
        else:
            project.offer(labels)
        there, removed = _without_gone(store, project, list(project.tasks(journal_id(store))))
        rows = unlabelled(store, served.classifier)
        unreadable: list[int] = []
        new = [row for row in rows if row.number not in {task.row for task in there}]
        for batch in _batches(store, new, labels, unreadable):
            project.add(batch)
    tasks = len(new) - len(unreadable)
    return Pushed(project.title, made, tasks, len(rows) - len(new), removed, tuple(unreadable))


def pull(
    store: Store, served: LabelledClassifier, rest: Rest, settings: LabelStudio, *, new_classes: Sequence[str] = ()
) -> Pulled:
    """Take in what annotators say. All of it is read before any of it is written, in one transaction.

    An annotator's newest answer to a task counts: one that was changed replaces the label before, and a skip removes
    it. A new class that is not in `new_classes` is named, and not taken in.

    Raises:
        SpecError: no project; push makes it.
    """
    check_new_classes(new_classes, served)
    title = title_of(settings, served.classifier)
    with only_one(store.folder / LOCK):
        project = Project.find(rest, settings, served.classifier)
        if project is None:
            push = command("slipway labels push", store.settings_file)
            raise SpecError(f"{rest.url}: no project {title!r}; {push} makes it")
        tasks = list(project.tasks(journal_id(store)))
        hashes = _hashes(store)
        known = {*served.known(store), *new_classes}
        given: dict[str, dict[int, str]] = {}
        times: dict[str, dict[int, float]] = {}
        skips: list[tuple[int, str, float]] = []
        faults: list[str] = []
        answers = [(task, said) for task in tasks if hashes.get(task.row) == task.sha256 for said in task.said]
        for task, said in sorted(answers, key=lambda one: one[1].at):
            fault = None if said.label is None else fault_of_label(said.label, known=known)
            if said.label is None:
                skips.append((task.row, said.annotator, _unix_s(said.at)))
            elif fault is not None:
                faults.append(f"row {task.row}, {said.annotator}: {fault}")
            else:
                given.setdefault(said.annotator, {})[task.row] = said.label
                times.setdefault(said.annotator, {})[task.row] = _unix_s(said.at)
        now_s = time.time()
        with store.transaction():
            store.write(
                "DELETE FROM labels WHERE row = ? AND annotator = ? AND min(labelled_s, ?) <= ?",
                [(row, annotator, now_s, min(at_s, now_s)) for row, annotator, at_s in skips],
            )
            written = {
                annotator: write_given(store, labels, annotator=annotator, now_s=now_s, labelled_s=times[annotator])
                for annotator, labels in sorted(given.items())
            }
        _, removed = _without_gone(store, project, tasks)
    return Pulled(title, written, len(skips), tuple(faults), removed)


def _hashes(store: Store) -> dict[int, str]:
    """SHA-256 of the image of each asked row."""
    return dict(store.query("SELECT id, sha256 FROM rows WHERE id IN (SELECT row FROM asked)"))


def _without_gone(store: Store, project: Project, tasks: Sequence[StudioTask]) -> tuple[list[StudioTask], int]:
    """Remove the tasks that serve nothing; returns the others, and how many were removed.

    A task goes when its row was forgotten or is too old; when its image is no longer kept and every answer to it is
    taken in; or when nobody has answered it and its row has an older task, since Label Studio took a batch twice.
    """
    hashes = _hashes(store)
    kept = {row for (row,) in store.query("SELECT id FROM rows WHERE kept = 1 AND id IN (SELECT row FROM asked)")}
    ours: list[StudioTask] = []
    removed = 0
    doubled: set[int] = set()
    for task in sorted(tasks, key=lambda one: (not one.said, one.id)):
        is_ours = hashes.get(task.row) == task.sha256 and (task.said or task.row not in doubled)
        if is_ours and (task.row in kept or not _is_taken_in(store, task)):
            ours.append(task)
            doubled.add(task.row)
        elif task.row in hashes and (late := _answered_meanwhile(store, project, task)):
            ours.append(late)
        else:
            project.remove(task)
            removed += 1
    return ours, removed


def _answered_meanwhile(store: Store, project: Project, task: StudioTask) -> StudioTask | None:
    """The task if it was answered since it was read; Label Studio would remove the answer with it."""
    now = project.read(task, journal_id(store))
    return None if now is None or now.said == task.said or _is_taken_in(store, now) else now


def _is_taken_in(store: Store, task: StudioTask) -> bool:
    """Whether `labels` holds each annotator's answer, or a newer one of theirs."""
    found = {
        who: (label, labelled_s)
        for who, label, labelled_s in store.query(
            "SELECT annotator, label, labelled_s FROM labels WHERE row = ?", (task.row,)
        )
    }
    for said in task.said:
        label, labelled_s = found.get(said.annotator, (None, -math.inf))
        if label != said.label and labelled_s < _unix_s(said.at):
            return False
    return True


@dataclass(frozen=True)
class _Row:
    number: int
    sha256: str
    label: str | None
    score: float | None
    bundle: str


def unlabelled(store: Store, classifier: str) -> list[_Row]:
    """Asked rows that nobody has labelled, in the order of their images' hashes.

    People label in the order of the tasks, and that of the journal would make the first labels those of the first
    hours. A known answer is nobody's label: annotators are judged by it.
    """
    found = store.query(
        "SELECT id, sha256, label, score, bundle FROM rows JOIN asked ON asked.row = rows.id WHERE classifier = ? "
        "AND kept = 1 AND NOT EXISTS (SELECT 1 FROM labels WHERE labels.row = rows.id AND annotator != ?) "
        "ORDER BY sha256, id",
        (classifier, KNOWN),
    )
    return [_Row(*row) for row in found]


def _batches(
    store: Store, rows: Sequence[_Row], labels: Sequence[str], unreadable: list[int]
) -> Iterator[list[dict[str, Any]]]:
    """Tasks in batches of limited size; rows whose image cannot be shown are added to `unreadable`."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        task = _task(store, row, labels)
        if task is None:
            unreadable.append(row.number)
            continue
        batch.append(task)
        size += len(task["data"]["image"])
        if size > BATCH_BYTES or len(batch) >= BATCH_TASKS:
            yield batch
            batch, size = [], 0
    yield batch


def _task(store: Store, row: _Row, labels: Sequence[str]) -> dict[str, Any] | None:
    content = read_image(store.folder, row.sha256)
    picture = None if content is None else small_picture(content, side=SIDE)
    if picture is None:
        return None
    data = {"image": data_uri(picture), "row": row.number, "sha256": row.sha256, "journal": journal_id(store)}
    task: dict[str, Any] = {"data": data}
    if row.label is not None and row.label != RESERVED and row.label in labels:
        task["predictions"] = [suggestion(row.label, score=row.score, version=row.bundle[:12])]
    return task


def journal_id(store: Store) -> str:
    """A name of this journal, to distinguish its tasks from those of another journal in the same project."""
    path = store.folder / ID
    with told(path):
        if not path.is_file():
            write_file(path, secrets.token_hex(8))
            path.chmod(0o600)
        return path.read_text(encoding="utf-8")


def _unix_s(text: str) -> float:
    try:
        time_ = datetime.fromisoformat(text)
        return (time_ if time_.tzinfo else time_.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return time.time()


def counted(pulled: Pulled) -> Counter[str]:
    """Labels of all annotators together."""
    total: Counter[str] = Counter()
    for written in pulled.written.values():
        total.update(written.plain())
    return total
