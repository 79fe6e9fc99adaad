"""People who label, played by the truth that the clients know: in Label Studio, or by CSV files."""

import csv
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.studies.operate.box import Box, wait_until
from benchmarks.studies.operate.result import OperateStudio
from benchmarks.studies.operate.studio import Studio
from slipway.contract.evidence.studies import Part
from slipway.errors import SlipwayError
from slipway.operations.journal.store import Store

PERSON = "the truth"
STUDIO_S = 240.0
"""Longest wait for Label Studio, which starts beside the first training."""


class Pushed(Part):
    """The JSON line of `slipway labels push`."""

    project: str


class Pulled(Part):
    """The JSON line of `slipway labels pull`."""

    new: int = 0
    """Number of new labels."""


class Labelling:
    """Labels the images that the journal asks for, and counts them."""

    def __init__(self, box: Box, *, truth: Callable[[str], str]) -> None:
        """`truth` gives the digit of an image by the id that the client gave its request."""
        self._box, self._truth = box, truth
        self._gateway = f"{box.folder}/gateway.yaml"
        self._answered: Counter[str] = Counter()
        self.labels = 0

    def wait(self) -> None:
        """Wait for Label Studio, if the box has one."""
        if self._box.studio is not None:
            seconds = wait_until(self._box.studio.answers, what="Label Studio answers", timeout_s=STUDIO_S)
            self._box.steps["waiting for Label Studio"] = round(seconds, 1)

    def answer(self, *, new_class: str | None) -> None:
        """Label every image that is asked for and has no label."""
        with Store.open(self._box.folder / "journal", make=False, settings_file=Path(self._gateway)) as store:
            asked = store.query(
                "SELECT rows.id, rows.client_id FROM asked JOIN rows ON rows.id = asked.row "
                "WHERE rows.id NOT IN (SELECT row FROM labels) ORDER BY rows.id"
            )
        if not asked:
            return
        truth = {row: self._truth(client_id) for row, client_id in asked}
        options = "" if new_class is None else f" --new-class {new_class}"
        if self._box.studio is None:
            self._add(truth, options=options)
        else:
            self._annotate(self._box.studio, truth, options=options)
        self.labels += len(truth)

    def in_studio(self) -> OperateStudio | None:
        """Return the facts of the labelling in Label Studio; None if labels came by CSV files."""
        if self._box.studio is None:
            return None
        version = self._box.studio.version()
        assert version is not None, "it has taken all answers"
        return OperateStudio(version=version, **self._answered)

    def _add(self, truth: Mapping[int, str], *, options: str) -> None:
        path = self._box.folder / f"labels-{self.labels}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("row", "label"))
            writer.writerows(truth.items())
        self._box.verb(f"{len(truth)} labels", f'labels add {self._gateway} {path} --annotator "{PERSON}"{options}')

    def _annotate(self, studio: Studio, truth: Mapping[int, str], *, options: str) -> None:
        """Send the images to Label Studio, let an annotator answer there, and fetch the labels.

        Raises:
            SlipwayError: other labels came back than the annotator gave.
        """
        many = len(truth)
        line = self._box.verb(f"push of {many} images", f"labels push {self._gateway}")
        pushed = Pushed.parse(line, source="slipway labels push")
        started = time.monotonic()
        answered = studio.annotate(studio.project(pushed.project), truth.__getitem__)
        self._box.steps[f"{many} answers in Label Studio"] = round(time.monotonic() - started, 1)
        self._answered += answered
        line = self._box.verb(f"pull of {many} labels", f"labels pull {self._gateway}{options}")
        new = Pulled.parse(line, source="slipway labels pull").new
        if not many == answered["answered"] == new:
            raise SlipwayError(f"{many} images: {answered['answered']} were answered, {new} came back")
