"""A classifier's project in Label Studio: its labelling configuration, its tasks, and what annotators said."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from slipway.contract import SpecError
from slipway.operations.labels.label_studio_rest import Rest
from slipway.operations.labels.settings import PLACE, LabelStudio

CHOICES, IMAGE, NEW = "class", "image", "new_class"
"""Names of the tags in the labelling configuration."""
PAGE_TASKS = 50
MANY = 20
"""Classes from which they are a list to choose from, and not buttons."""


@dataclass(frozen=True)
class Said:
    """An annotator's answer to a task."""

    annotator: str
    label: str | None
    """Label that the annotator gave; None for a skipped task."""
    new: bool
    """Whether the label was typed as a new class."""
    at: str
    """Time of the answer, as Label Studio writes it: ISO 8601, UTC."""


@dataclass(frozen=True)
class StudioTask:
    """A task that Slipway made."""

    id: int
    row: int
    sha256: str
    said: tuple[Said, ...]


class Project:
    """An existing project."""

    def __init__(self, rest: Rest, id_: int, title: str) -> None:
        self._rest, self.id, self.title = rest, id_, title
        self._emails: dict[int, str] | None = None

    @classmethod
    def find(cls, rest: Rest, settings: LabelStudio, classifier: str) -> "Project | None":
        """The classifier's project; raises SpecError if several have its title."""
        title = title_of(settings, classifier)
        found = rest.get("/api/projects/", title=title, page_size=1000)
        same = [one for one in rest.field(found, "results", list) if rest.field(one, "title", str) == title]
        if len(same) > 1:
            raise SpecError(f"{rest.url}: {len(same)} projects are called {title!r}; rename all but one")
        return cls(rest, rest.field(same[0], "id", int), title) if same else None

    @classmethod
    def make(cls, rest: Rest, settings: LabelStudio, classifier: str, labels: Collection[str]) -> "Project":
        title = title_of(settings, classifier)
        made = rest.post(
            "/api/projects/",
            {
                "title": title,
                "description": f"Images of the journal of {classifier}, made by slipway labels push.",
                "label_config": label_config(labels),
                "maximum_annotations": settings.annotators,
                "show_skip_button": True,
                "enable_empty_annotation": False,
            },
        )
        return cls(rest, rest.field(made, "id", int), title)

    def offer(self, labels: Collection[str]) -> None:
        """Add labels that the project does not offer yet.

        Raises:
            SpecError: its labelling configuration is not one of ours.
        """
        config = self._rest.field(self._rest.get(f"/api/projects/{self.id}/"), "label_config", str)
        try:
            view = ElementTree.fromstring(config)
        except ElementTree.ParseError as error:
            raise self._rest.otherwise(f"the labelling configuration is not XML: {error}") from None
        choices = next((one for one in view.iter("Choices") if one.get("name") == CHOICES), None)
        if choices is None or not any(one.get("name") == IMAGE for one in view.iter("Image")):
            raise SpecError(
                f"{self._rest.url}: the project {self.title!r} has another labelling configuration: it needs <Image "
                f'name="{IMAGE}"> and <Choices name="{CHOICES}">; restore them, or give another label_studio.project'
            )
        offered = {one.get("value") for one in choices.iter("Choice")}
        missing = [label for label in labels if label not in offered]
        for label in missing:
            ElementTree.SubElement(choices, "Choice", value=label)
        if missing:
            self._rest.patch(f"/api/projects/{self.id}/", {"label_config": ElementTree.tostring(view, "unicode")})

    def tasks(self, journal: str) -> Iterator[StudioTask]:
        """The tasks of a journal; foreign tasks of the project are left out."""
        page, seen = 1, 0
        while True:
            answer = self._rest.get("/api/tasks/", project=self.id, fields="all", page=page, page_size=PAGE_TASKS)
            tasks = self._rest.field(answer, "tasks", list)
            yield from (task for one in tasks if (task := self._task(one, journal)) is not None)
            page, seen = page + 1, seen + len(tasks)
            if not tasks or seen >= self._rest.field(answer, "total", int):
                return

    def add(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Make tasks: all of them, or none."""
        if tasks:
            made = self._rest.post(f"/api/projects/{self.id}/import", tasks)
            if self._rest.field(made, "task_count", int) != len(tasks):
                raise self._rest.otherwise(f"{made['task_count']} tasks made of {len(tasks)}")

    def read(self, task: StudioTask, journal: str) -> StudioTask | None:
        """The task in its present state; None if it no longer exists."""
        found = self._rest.find(f"/api/tasks/{task.id}/")
        return None if found is None else self._task(found, journal)

    def remove(self, task: StudioTask) -> None:
        self._rest.delete(f"/api/tasks/{task.id}/")

    def _task(self, one: Any, journal: str) -> StudioTask | None:
        data = self._rest.field(one, "data", dict)
        row, sha256 = data.get("row"), data.get("sha256")
        if (
            not isinstance(row, int)
            or not 0 < row < 2**63
            or not isinstance(sha256, str)
            or data.get("journal") != journal
        ):
            return None
        annotations = self._rest.field(one, "annotations", list)
        self._emails = self._users() if self._emails is None else self._emails
        number = self._rest.field(one, "id", int)
        try:
            said = sorted(filter(None, map(self._said, annotations)), key=lambda said: said.at)
        except (AttributeError, TypeError) as error:  # a part of another kind than that of 1.23
            raise self._rest.otherwise(f"an annotation of task {number}: {error}") from None
        newest = {one.annotator: one for one in said}
        return StudioTask(number, row, sha256, tuple(newest.values()))

    def _said(self, annotation: Any) -> Said | None:
        """Return the label of an annotation; None if it has no class."""
        at = self._rest.field(annotation, "updated_at", str)
        who = annotation.get("completed_by")
        number = who.get("id") if isinstance(who, Mapping) else who  # a list of tasks has the number alone
        annotator = (self._emails or {}).get(number or 0) or f"label studio user {number}"
        if annotation.get("was_cancelled"):
            return Said(annotator, None, False, at)
        typed = _value(annotation, NEW, "text")
        label = typed or _value(annotation, CHOICES, "choices")
        return Said(annotator, label, typed is not None, at) if label else None

    def _users(self) -> dict[int, str]:
        """Email address by the number of a user."""
        users = self._rest.get("/api/users/")
        if not isinstance(users, list):
            raise self._rest.otherwise("/api/users/ gives no list")
        return {self._rest.field(one, "id", int): self._rest.field(one, "email", str) for one in users}


def title_of(settings: LabelStudio, classifier: str) -> str:
    """Raises SpecError: the title is longer than Label Studio takes."""
    title = settings.project.replace(PLACE, classifier)
    if len(title) > 50:
        raise SpecError(f"label_studio.project: {title!r} has {len(title)} characters; Label Studio takes at most 50")
    return title


def label_config(labels: Collection[str]) -> str:
    """The labelling configuration: an image, a choice for each label, and a field for a class that is missing."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name=IMAGE, value=f"${IMAGE}", zoom="true")
    layout = "select" if len(labels) > MANY else "inline"
    choices = ElementTree.SubElement(
        view, "Choices", name=CHOICES, toName=IMAGE, choice="single-radio", layout=layout, required="false"
    )
    for label in labels:
        ElementTree.SubElement(choices, "Choice", value=label)
    ElementTree.SubElement(
        view, "TextArea", name=NEW, toName=IMAGE, maxSubmissions="1", placeholder="a class that is missing above"
    )
    return ElementTree.tostring(view, "unicode")


def suggestion(label: str, *, score: float | None, version: str) -> dict[str, Any]:
    """A pre-annotation: the answer of the classifier."""
    result = {"from_name": CHOICES, "to_name": IMAGE, "type": "choices", "value": {"choices": [label]}}
    return {"model_version": version, "score": score, "result": [result]}


def _value(annotation: Mapping[str, Any], name: str, kind: str) -> str | None:
    """The first value that an annotation gives under a name."""
    for result in annotation.get("result") or ():
        if isinstance(result, Mapping) and result.get("from_name") == name:
            values = result.get("value", {}).get(kind)
            value = values[0] if isinstance(values, list) and values else values
            if isinstance(value, str) and value.strip():
                return value.strip()
    return None
