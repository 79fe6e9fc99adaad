"""`slipway labels push` and `pull` with the real Label Studio, which `make label-studio` installs."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slipway.serving import Ports
from tests.support.labelled_journals import LabelledJournal, labelled_journal
from tests.support.noise import noise
from tests.support.scripts import ROOT

PROGRAM = ROOT / ".venv/label-studio/bin/label-studio"
START_S = 240
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not PROGRAM.is_file(), reason="Label Studio is not installed: make label-studio"),
]


class Studio:
    """A running Label Studio; asked as its web page asks."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.url = folder, f"http://127.0.0.1:{port}"

    @property
    def settings(self) -> dict[str, Any]:
        return {"url": self.url, "token_file": str(self.folder / "token"), "annotators": 2, "project": "t{classifier}"}

    def ask(self, method: str, path: str, content: object = None) -> Any:
        token = (self.folder / "token").read_text().strip()
        headers = {"Authorization": f"Token {token}", "Content-Type": "application/json"}
        body = None if content is None else json.dumps(content).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, body, headers, method=method)) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def tasks(self, project: int) -> dict[int, Any]:
        found = self.ask("GET", f"/api/tasks/?project={project}&fields=all&page_size=500")["tasks"]
        rows = [task["data"]["row"] for task in found]
        assert len(rows) == len(set(rows)), "a row has two tasks"
        return dict(zip(rows, found, strict=True))

    def project(self, title: str) -> int:
        return int(self.ask("GET", f"/api/projects/?title={title}")["results"][0]["id"])

    def say(self, task: Any, label: str | None, *, new: str | None = None) -> int:
        results = []
        if label is not None:
            results.append({"from_name": "class", "to_name": "image", "type": "choices", "value": {"choices": [label]}})
        if new is not None:
            results.append({"from_name": "new_class", "to_name": "image", "type": "textarea", "value": {"text": [new]}})
        content = {"result": results, "was_cancelled": not results}
        return int(self.ask("POST", f"/api/tasks/{task['id']}/annotations/", content)["id"])


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder, port = tmp_path_factory.mktemp("studio"), Ports.free().http
    command = [sys.executable, str(ROOT / "build/label_studio/start.py"), "--data", str(folder), "--port", str(port)]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            end = time.monotonic() + START_S
            while not _answers(port):
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                assert time.monotonic() < end, "Label Studio did not start"
                time.sleep(1)
            yield Studio(folder, port)
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/version", timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture
def journal(studio: Studio, tmp_path: Path, request: pytest.FixtureRequest) -> LabelledJournal:
    classifier = f"t{abs(hash(request.node.name)) % 10**8}"
    settings = {"per_day": 100, "label_studio": studio.settings}
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
