"""`slipway labels push` and `pull` with the real Label Studio, which `make label-studio` installs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.studies.operate.box import wait_until
from benchmarks.studies.operate.studio import INSTALLED, Studio
from slipway.operations.labels.projects import Project, StudioTask
from slipway.serving import Ports
from tests.support.labelled_journals import LabelledJournal, labelled_journal
from tests.support.noise import noise

START_S = 240
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not INSTALLED.is_file(), reason="Label Studio is not installed: make label-studio"),
]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with Studio.started(tmp_path_factory.mktemp("studio"), Ports.free().http) as started:
        wait_until(started.answers, what="Label Studio answers", timeout_s=START_S)
        yield started


@pytest.fixture
def journal(studio: Studio, tmp_path: Path, request: pytest.FixtureRequest) -> LabelledJournal:
    classifier = f"t{abs(hash(request.node.name)) % 10**8}"
    token = {"url": studio.url, "token_file": str(studio.token_file)}
    settings = {"per_day": 100, "label_studio": {**token, "annotators": 2, "project": "t{classifier}"}}
    made = labelled_journal(tmp_path, classes=('a <"&"> é', "one"), classifier=classifier, labels=settings)
    made.add_images([noise(seed) for seed in range(12)], classifier=classifier, label="one")
    made.run("select")
    return made


def test_images_go_there_and_labels_come_back_however_often(studio: Studio, journal: LabelledJournal) -> None:
    first = journal.run("push")
    assert (first["made"], first["tasks"]) == (True, 12)
    assert journal.run("push")["tasks"] == 0
    project = studio.project(first["project"])
    tasks = studio.tasks(project)
    assert [task["predictions"][0]["result"][0]["value"]["choices"] for task in tasks.values()] == [["one"]] * 12
    assert all(task["data"]["image"].startswith("data:image/jpeg;base64,") for task in tasks.values())
    rows = sorted(tasks)
    changed = studio.say(tasks[rows[0]], "one")
    studio.say(tasks[rows[1]], 'a <"&"> é')
    studio.say(tasks[rows[2]], None)
    studio.say(tasks[rows[3]], None, new="cat")
    found = journal.run("pull")
    assert (found["new"], found["skipped"]) == (2, 1)
    assert f"row {rows[3]}" in found["not_taken"][0]
    assert "give --new-class 'cat'" in found["not_taken"][0]
    assert (journal.run("pull", "--new-class", "cat")["new"], journal.run("pull")["same"]) == (1, 3)
    result = [{"from_name": "class", "to_name": "image", "type": "choices", "value": {"choices": ['a <"&"> é']}}]
    studio.ask("PATCH", f"/api/annotations/{changed}/", {"result": result})
    assert journal.run("pull")["changed"] == 1
    assert dict(journal.query("SELECT row, label FROM labels")) == {
        **dict.fromkeys(rows[:2], 'a <"&"> é'),
        rows[3]: "cat",
    }
    journal.run("push")
    assert 'value="cat"' in studio.ask("GET", f"/api/projects/{project}/")["label_config"]
    with journal.open() as store:
        store.forget(str(rows[4]))
    assert journal.run("pull")["removed"] == 1
    assert sorted(studio.tasks(project)) == [row for row in rows if row != rows[4]]


def test_a_push_that_is_killed_makes_no_task_twice(studio: Studio, journal: LabelledJournal) -> None:
    command = [sys.executable, "-m", "slipway", "labels", "push", str(journal.settings)]
    for pause_s in (0.3, 0.6, 0.9, 1.2):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(pause_s)
            os.kill(process.pid, signal.SIGKILL)
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert len(studio.tasks(studio.project(journal.run("push")["project"]))) == 12


def test_two_pulls_at_once_take_each_label_in_once(studio: Studio, journal: LabelledJournal) -> None:
    for task in studio.tasks(studio.project(journal.run("push")["project"])).values():
        studio.say(task, "one")
    command = [sys.executable, "-m", "slipway", "labels", "pull", str(journal.settings), "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [json.loads(process.communicate(timeout=120)[0].splitlines()[-1]) for process in both]
    assert sorted((one["new"], one["same"]) for one in said) == [(0, 12), (12, 0)]
    assert journal.query("SELECT count(*) FROM labels") == [(12,)]


def test_tasks_of_others_and_another_configuration_are_left_alone(studio: Studio, journal: LabelledJournal) -> None:
    project = studio.project(journal.run("push")["project"])
    other = {"image": "data:,", "row": 1, "sha256": "0", "journal": "another"}
    studio.ask("POST", f"/api/projects/{project}/import", [{"data": other}])
    assert journal.run("push")["removed"] == 0
    view = '<View><Image name="image" value="$image"/><Choices name="k" toName="image">%s</Choices></View>'
    view %= '<Choice value="x"/><Choice value="y"/>'
    studio.ask("PATCH", f"/api/projects/{project}/", {"label_config": view})
    assert "has another labelling configuration" in journal.done("push").stderr


def test_a_token_that_is_wrong_is_told(studio: Studio, journal: LabelledJournal, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 40)
    wrong.chmod(0o600)
    text = journal.settings.read_text()
    journal.settings.write_text(text.replace(str(studio.folder / "token"), str(wrong)))
    assert "refuses the token (401" in journal.done("push").stderr
    wrong.chmod(0o644)
    assert "chmod 600" in journal.done("push").stderr


def test_an_answer_that_is_given_while_pull_removes_tasks_is_taken_in(
    studio: Studio, journal: LabelledJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = studio.tasks(studio.project(journal.run("push")["project"]))
    with journal.open() as store:
        store.write("UPDATE rows SET kept = 0", [()])
    late = sorted(tasks)[3]
    read = Project.tasks

    def answered_afterwards(project: Project, journal_id: str) -> Iterator[StudioTask]:
        yield from read(project, journal_id)
        studio.say(tasks[late], "one")

    monkeypatch.setattr(Project, "tasks", answered_afterwards)
    assert journal.run("pull")["removed"] == len(tasks) - 1
    monkeypatch.setattr(Project, "tasks", read)
    found = journal.run("pull")
    assert (found["new"], found["removed"]) == (1, 1)
    assert journal.query("SELECT row, label FROM labels") == [(late, "one")]


def test_two_annotators_who_contradict_each_other_give_no_label_until_a_known_answer_decides(
    studio: Studio, journal: LabelledJournal
) -> None:
    tasks = studio.tasks(studio.project(journal.run("push")["project"]))
    (first, second, *_), email = sorted(tasks), f"{journal.folder.name.lower()}@localhost.localdomain"
    other = studio.ask("POST", "/api/users/", {"email": email, "username": email, "password": "a-password-of-tests"})
    for row, labels in ((first, ("one", 'a <"&"> é')), (second, ("one", "one"))):
        for who, label in zip((None, other["id"]), labels, strict=True):
            studio.say(tasks[row], label, by=who)
    assert journal.run("pull")["new"] == 4
    found = journal.run("status")
    assert (found["labelled"], found["waiting"]) == (1, 10)
    assert len(found["annotators"]) == 2
    assert email in found["undecided"][0]
    journal.run("add", journal.table(("row", "label"), (first, "one")), "--known")
    found = journal.run("status")
    assert (found["labelled"], found["undecided"]) == (2, [])
    assert f"row {first} is 'one'" in found["contradicted"][0]
    assert {one["name"]: (one["right"], one["known"]) for one in found["annotators"]}[email] == (0, 1)
