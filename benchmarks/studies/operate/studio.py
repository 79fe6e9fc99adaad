"""Runs a real Label Studio, and an annotator who uses its REST API as its web page does."""

import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from xml.etree import ElementTree

from benchmarks.studies.study import ROOT
from slipway.errors import SlipwayError

INSTALLED = ROOT / ".venv/label-studio/installed"
"""`make label-studio` writes this file last."""
_PAGE = 500


class Studio:
    """A running Label Studio, with the token of its one user."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.url = folder, f"http://127.0.0.1:{port}"

    @classmethod
    @contextmanager
    def started(cls, folder: Path, port: int) -> Iterator[Self]:
        """Start Label Studio beside the block with its data in `folder`, and end it afterwards."""
        folder.mkdir(parents=True, exist_ok=True)
        program = ROOT / "build/label_studio/start.py"
        command = [sys.executable, str(program), "--data", str(folder), "--port", str(port)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield cls(folder, port)
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def token_file(self) -> Path:
        return self.folder / "token"

    def ask(self, method: str, path: str, content: object = None) -> Any:
        """Send a request; returns the JSON of the answer, or None for an empty body."""
        headers = {"Authorization": f"Token {self.token_file.read_text().strip()}", "Content-Type": "application/json"}
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def version(self) -> str | None:
        """Return the release of Label Studio; None while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/api/version", timeout=5) as answer:
                release: str = json.load(answer)["release"]
                return release
        except OSError:
            return None

    def answers(self) -> bool:
        return self.version() is not None

    def project(self, title: str) -> int:
        return int(self.ask("GET", f"/api/projects/?title={title}")["results"][0]["id"])

    def tasks(self, project: int) -> dict[int, Any]:
        """Return the tasks by the journal's row."""
        found = self.ask("GET", f"/api/tasks/?project={project}&fields=all&page_size={_PAGE}")["tasks"]
        rows = [task["data"]["row"] for task in found]
        if len(rows) != len(set(rows)):
            raise SlipwayError(f"{self.url}: a row has two tasks")
        return dict(zip(rows, found, strict=True))

    def offered(self, project: int) -> set[str]:
        """Return the classes that annotators may click on; they type others."""
        config = self.ask("GET", f"/api/projects/{project}/")["label_config"]
        return {one.get("value", "") for one in ElementTree.fromstring(config).iter("Choice")}

    def say(self, task: Mapping[str, Any], label: str | None, *, new: str | None = None, by: int | None = None) -> int:
        """Answer a task with a class that is offered, or with a `new` one; without both, skip it.

        Args:
            by: number of another user who gives the answer.

        Returns:
            the number of the annotation.
        """
        results: list[dict[str, Any]] = []
        if label is not None:
            results.append({"from_name": "class", "to_name": "image", "type": "choices", "value": {"choices": [label]}})
        if new is not None:
            results.append({"from_name": "new_class", "to_name": "image", "type": "textarea", "value": {"text": [new]}})
        content: dict[str, Any] = {"result": results, "was_cancelled": not results}
        if by is not None:
            content["completed_by"] = by
        return int(self.ask("POST", f"/api/tasks/{task['id']}/annotations/", content)["id"])

    def annotate(self, project: int, truth: Callable[[int], str]) -> Counter[str]:
        """Answer every task without an answer, by the truth of its row.

        Returns how many were `answered`, with a class that had to be `typed`, after a class was `suggested`, and how
        many of these were `right`.
        """
        offered, done = self.offered(project), Counter[str](answered=0, typed=0, suggested=0, right=0)
        for row, task in self.tasks(project).items():
            if task["annotations"]:
                continue
            label = truth(row)
            is_offered = label in offered
            self.say(task, label if is_offered else None, new=None if is_offered else label)
            suggested = [one["result"][0]["value"]["choices"] for one in task["predictions"]]
            done.update(answered=1, typed=not is_offered, suggested=bool(suggested), right=[label] in suggested)
        return done
