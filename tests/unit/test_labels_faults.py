"""Label Studio dead, slow, of another version or something else: a sentence, and nothing half done."""

import json
import os
import runpy
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from slipway.operations.gateway.settings import read_settings
from slipway.operations.labels.labelled_classifier import LabelledClassifier
from slipway.operations.labels.locks import only_one
from slipway.operations.labels.studio import LOCK, Pulled, Pushed, connect, pull, push, unlabelled
from tests.support.journals import until
from tests.support.labelled_journals import LabelledJournal, labelled_journal
from tests.support.noise import noise
from tests.support.scripts import ROOT

VERSION = {"release": "1.23.2"}
USERS = [{"id": 3, "email": "ann@x.org"}]


class Faulty(ThreadingHTTPServer):
    """Answers as `answers` says, by method and path: content, a status, a function, or one after another."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"GET /api/version": VERSION, "GET /api/users/": USERS}
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Faulty

    def do_GET(self) -> None:
        key = f"{self.command} {self.path.partition('?')[0]}"
        self.server.asked.append(key)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.answers.get(key, 404)
        answer = next(answer) if isinstance(answer, Iterator) else answer
        if callable(answer):
            answer(self)
            return
        status, body = (answer, b"no") if isinstance(answer, int) else (200, json.dumps(answer).encode())
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://example.com/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PATCH = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def faulty() -> Iterator[Faulty]:
    with Faulty() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def journal(faulty: Faulty, tmp_path: Path) -> LabelledJournal:
    (tmp_path / "token").write_text("a-token\n")
    (tmp_path / "token").chmod(0o600)
    url = f"http://127.0.0.1:{faulty.server_address[1]}"
    studio = {"url": url, "token_file": "token", "timeout_s": 0.5}
    made = labelled_journal(tmp_path, labels={"per_day": 100, "label_studio": studio})
    made.add_images([noise(seed) for seed in range(3)])
    made.run("select")
    return made


def hang(_: _Handler) -> None:
    time.sleep(1.5)


def drip(handler: _Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(15):
        try:
            handler.wfile.write(b" ")
        except OSError:
            return
        time.sleep(0.1)


OURS = {"id": 7, "data": {"row": 1, "sha256": "", "journal": "mine"}, "annotations": []}
PROJECTS = {"results": [{"id": 1, "title": "slipway-digits"}]}
CHOICES = '<Choices name="class"><Choice value="zero"/><Choice value="one"/></Choices>'
CONFIG = {"label_config": f'<View><Image name="image"/>{CHOICES}</View>'}


def breaks_off(handler: _Handler) -> None:
    handler.send_response(500)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()


def nested(handler: _Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"[" * 200_000)


def annotated(**annotation: Any) -> dict[str, Any]:
    """Answers with one task, and one annotation of it."""
    task = {**OURS, "annotations": [{"updated_at": "2026-01-01T00:00:00Z", **annotation}]}
    return {"GET /api/projects/": PROJECTS, "GET /api/tasks/": {"tasks": [task], "total": 1}}


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"GET /api/projects/": breaks_off}, "Label Studio 1.23.2 answers 500 to GET /api/projects/"),
        ({"GET /api/projects/": nested}, "GET /api/projects/ gives no JSON"),
        (annotated(completed_by={"id": [3]}), "an annotation of task 7"),
        (annotated(result=3), "an annotation of task 7"),
        (annotated(result=[{"from_name": "class", "value": None}]), "an annotation of task 7"),
        ({"GET /api/version": hang}, "does not answer within 0.5 s"),
        ({"GET /api/version": drip}, "does not answer within 0.5 s"),
        ({"GET /api/version": 404}, "not a Label Studio: it has no /api/version"),
        ({"GET /api/version": {"name": "another"}}, "not a Label Studio: /api/version names no release"),
        ({"GET /api/version": {"release": "1.24.0"}}, "Label Studio 1.24.0; this was tried with 1.23 alone"),
        ({"GET /api/version": {"release": "2.0.0"}}, "Label Studio 2.0.0; this was tried with 1.23 alone"),
        ({"GET /api/version": {"release": "1"}}, "Label Studio 1; this was tried with 1.23 alone"),
        ({"GET /api/projects/": 401}, "refuses the token (401 to GET /api/projects/)"),
        ({"GET /api/projects/": 302}, "is redirected to http://example.com/; give that address"),
        ({"GET /api/projects/": 500}, "Label Studio 1.23.2 answers 500 to GET /api/projects/: no"),
        ({"GET /api/projects/": []}, "answers otherwise than 1.23, with which this was tried: results is missing"),
        ({"GET /api/projects/": {"results": PROJECTS["results"] * 2}}, "2 projects are called 'slipway-digits'"),
        (
            {"GET /api/projects/": PROJECTS, "GET /api/tasks/": {"tasks": [{"id": 1}], "total": 1}},
            "data is missing in an answer",
        ),
        (
            {"GET /api/projects/": PROJECTS, "GET /api/tasks/": {"tasks": [OURS], "total": 1}, "GET /api/users/": {}},
            "answers otherwise than 1.23, with which this was tried: /api/users/ gives no list",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["push", "pull"])
def test_each_fault_is_one_sentence_and_writes_nothing(
    journal: LabelledJournal, faulty: Faulty, answers: dict[str, Any], words: str, verb: str
) -> None:
    faulty.answers |= {"GET /api/projects/1/": CONFIG, **answers}
    (journal.folder / "journal/label-studio.id").write_text("mine")
    done = journal.done(verb)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert not [asked for asked in faulty.asked if not asked.startswith("GET")]
    assert journal.query("SELECT count(*) FROM labels") == [(0,)]


@pytest.mark.parametrize("release", ["1.23.0", "1.23.9", "1.23.2.post1"])
def test_a_patch_release_is_taken(journal: LabelledJournal, studio: Faulty, release: str) -> None:
    studio.answers |= {"GET /api/version": {"release": release}, "GET /api/tasks/": {"tasks": [], "total": 0}}
    assert journal.run("pull")["project"] == "slipway-digits"


def test_a_dead_one_is_told(journal: LabelledJournal, faulty: Faulty) -> None:
    text = journal.settings.read_text()
    journal.settings.write_text(text.replace(str(faulty.server_address[1]), "9"))
    assert "does not answer ([Errno 111] Connection refused)" in journal.done("push").stderr


def test_labels_before_a_page_that_fails_are_not_written(journal: LabelledJournal, faulty: Faulty) -> None:
    faulty.answers |= {"GET /api/projects/": PROJECTS, "GET /api/projects/1/": {"label_config": ""}}
    (journal.folder / "journal/label-studio.id").write_text("mine")
    page = {"tasks": [task(journal, 7, 1, ("one", "2026-01-01T00:00:00Z"))], "total": 1}
    faulty.answers["GET /api/tasks/"] = iter([{**page, "total": 2}, 500, page])
    assert "answers 500 to GET /api/tasks/" in journal.done("pull").stderr
    assert journal.query("SELECT count(*) FROM labels") == [(0,)]
    assert journal.run("pull")["new"] == 1
    assert journal.query("SELECT row, annotator, label FROM labels") == [(1, "ann@x.org", "one")]


def task(journal: LabelledJournal, id_: int, row: int, *said: tuple[str, str]) -> dict[str, Any]:
    """A task with (label, time) of Ann."""
    ((sha256,),) = journal.query("SELECT sha256 FROM rows WHERE id = ?", row)
    annotations = [
        {"result": [{"from_name": "class", "value": {"choices": [label]}}], "completed_by": 3, "updated_at": at}
        for label, at in said
    ]
    return {"id": id_, "data": {"row": row, "sha256": sha256, "journal": "mine"}, "annotations": annotations}


@pytest.fixture
def studio(journal: LabelledJournal, faulty: Faulty) -> Faulty:
    """A project of ours; tasks are removed in `asked`."""
    faulty.answers |= {"GET /api/projects/": PROJECTS, "GET /api/projects/1/": CONFIG}
    faulty.answers |= {f"DELETE /api/tasks/{number}/": {} for number in range(9)}
    faulty.answers["POST /api/projects/1/import"] = {"task_count": 0}
    (journal.folder / "journal/label-studio.id").write_text("mine")
    return faulty


def removed(studio: Faulty) -> list[str]:
    return [asked.split("/")[-2] for asked in studio.asked if asked.startswith("DELETE")]


def test_a_task_whose_image_is_gone_stays_until_every_answer_is_taken_in(
    journal: LabelledJournal, studio: Faulty
) -> None:
    answered = task(journal, 5, 1, ("one", "2026-01-02T00:00:00Z"))
    studio.answers["GET /api/tasks/"] = {"tasks": [answered], "total": 1}
    with journal.open() as store:
        store.write("UPDATE rows SET kept = 0 WHERE id = ?", [(1,)])
        store.write("DELETE FROM asked WHERE row != ?", [(1,)])
        store.write("INSERT INTO labels VALUES (?, ?, ?, ?)", [(1, "bob", "zero", 1.0)])
    assert journal.run("push")["removed"] == 0, "Ann's answer was not read yet"
    studio.answers["DELETE /api/tasks/5/"] = 500
    assert "answers 500" in journal.done("pull").stderr
    assert journal.query("SELECT annotator, label FROM labels ORDER BY annotator") == [
        *(("ann@x.org", "one"), ("bob", "zero"))
    ], "labels are written before a task is removed"
    studio.answers["DELETE /api/tasks/5/"] = {}
    assert journal.run("pull")["removed"] == 1


def test_an_older_answer_replaces_no_newer_label(journal: LabelledJournal, studio: Faulty) -> None:
    answered = task(journal, 5, 1, ("one", "2026-01-02T00:00:00Z"))
    studio.answers["GET /api/tasks/"] = {"tasks": [answered], "total": 1}
    journal.run("pull")
    journal.run("add", journal.table(("row", "label"), (1, "zero")), "--annotator", "ann@x.org")
    assert journal.run("pull")["same"] == 1
    assert journal.query("SELECT label FROM labels") == [("zero",)]


def test_of_two_tasks_of_a_row_the_younger_one_without_an_answer_goes(journal: LabelledJournal, studio: Faulty) -> None:
    said = ("one", "2026-01-02T00:00:00Z")
    tasks = [task(journal, 3, 1), task(journal, 4, 1), task(journal, 5, 2), task(journal, 6, 2, said)]
    studio.answers["GET /api/tasks/"] = {"tasks": tasks, "total": 4}
    assert journal.run("pull")["removed"] == 2
    assert sorted(removed(studio)) == ["4", "5"]


def test_an_answer_that_is_given_while_tasks_are_removed_keeps_its_task_until_it_is_taken_in(
    journal: LabelledJournal, studio: Faulty
) -> None:
    answered = task(journal, 5, 1, ("one", "2026-01-02T00:00:00Z"))
    pruned, gone = task(journal, 5, 1), task(journal, 6, 2)
    studio.answers |= {"GET /api/tasks/": {"tasks": [pruned, gone], "total": 2}, "GET /api/tasks/5/": answered}
    with journal.open() as store:
        store.write("UPDATE rows SET kept = 0", [()])
    assert journal.run("pull")["removed"] == 1
    assert removed(studio) == ["6"], "somebody has answered task 5 since the tasks were read"
    studio.answers["GET /api/tasks/"] = {"tasks": [answered], "total": 1}
    found = journal.run("pull")
    assert (found["new"], found["removed"]) == (1, 1)
    assert journal.query("SELECT row, label FROM labels") == [(1, "one")]


def test_a_task_that_somebody_has_removed_meanwhile_is_no_error(journal: LabelledJournal, studio: Faulty) -> None:
    studio.answers |= {"GET /api/tasks/": {"tasks": [task(journal, 5, 1)], "total": 1}, "DELETE /api/tasks/5/": 404}
    with journal.open() as store:
        store.forget("1")
    assert journal.run("pull")["removed"] == 1


def waited_for(lock: Path) -> bool:
    """Whether somebody waits for the lock, by the kernel."""
    locks = Path("/proc/locks").read_text(encoding="utf-8").splitlines()
    return any(" -> " in line and f":{lock.stat().st_ino} " in line for line in locks)


@pytest.mark.parametrize("exchange", [push, pull])
def test_a_second_exchange_waits_for_the_first(
    journal: LabelledJournal, studio: Faulty, exchange: Callable[..., Pushed | Pulled]
) -> None:
    studio.answers |= {"GET /api/tasks/": {"tasks": [], "total": 0}, "POST /api/projects/1/import": {"task_count": 3}}
    settings = read_settings(journal.settings)
    lock = settings.journal / LOCK

    def second() -> Pushed | Pulled:
        rest, options = connect(settings, source=journal.settings)
        with journal.open() as store:
            served = LabelledClassifier.of(settings, source=journal.settings, classifier=None)
            return exchange(store, served, rest, options)

    with ThreadPoolExecutor() as pool:
        with only_one(lock):
            done = pool.submit(second)
            until(lambda: done.done() or waited_for(lock))
            assert studio.asked == ["GET /api/version"], "nothing of the project is read or written meanwhile"
        assert done.result(timeout=30).project == "slipway-digits"
    assert "GET /api/tasks/" in studio.asked


def test_an_answer_by_a_clock_that_is_ahead_is_of_now(journal: LabelledJournal, studio: Faulty) -> None:
    answered = task(journal, 5, 1, ("one", "2099-01-02T00:00:00Z"))
    studio.answers["GET /api/tasks/"] = {"tasks": [answered], "total": 1}
    journal.run("pull")
    assert journal.query("SELECT label, labelled_s < 4e9 FROM labels") == [("one", 1)]
    skipped = {"was_cancelled": True, "completed_by": 3, "updated_at": "2099-01-03T00:00:00Z"}
    studio.answers["GET /api/tasks/"] = {"tasks": [{**answered, "annotations": [skipped]}], "total": 1}
    assert journal.run("pull")["skipped"] == 1
    assert journal.query("SELECT count(*) FROM labels") == [(0,)]


def test_an_image_with_a_known_answer_goes_to_annotators_all_the_same(journal: LabelledJournal) -> None:
    rows = journal.table(("row", "label"), (1, "zero"), (2, "zero"))
    journal.run("add", rows, "--known")
    journal.run("add", journal.table(("row", "label"), (2, "one")), "--annotator", "ann")
    with journal.open() as store:
        assert sorted(row.number for row in unlabelled(store, "digits")) == [1, 3]


def test_tasks_come_in_the_order_of_their_hashes(journal: LabelledJournal) -> None:
    journal.add_images([noise(seed) for seed in range(20, 30)])
    chosen = journal.run("select")["rows"]
    with journal.open() as store:
        rows = [row.number for row in unlabelled(store, "digits")]
        by_hash = [row for (row,) in store.query("SELECT id FROM rows ORDER BY sha256")]
    assert rows == by_hash
    assert chosen == [row for row in by_hash if row in chosen]
    assert chosen != sorted(chosen)


def test_neither_password_nor_token_is_in_the_list_of_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *given: found.extend(given))
    start = runpy.run_path(str(ROOT / "build/label_studio/start.py"))
    start["main"](start["parser"]().parse_args(["--data", str(tmp_path)]))
    _, words, environment = found
    for name in ("token", "password"):
        text = (tmp_path / name).read_text().strip()
        assert not [word for word in words if text in word]
        assert text in environment.values()


@pytest.mark.parametrize("settings", [{}, {"labels": {}}])
def test_without_label_studio_in_the_settings_push_says_what_to_write(tmp_path: Path, settings: dict[str, Any]) -> None:
    journal = labelled_journal(tmp_path, **settings)
    assert "label_studio: not given; write its url and token_file" in journal.done("push").stderr
