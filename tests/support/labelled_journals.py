"""A journal behind gateway settings, with the files of a repository that the verbs for labels read."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np

from slipway.contract import Lane
from slipway.operations.gateway.settings import read_settings
from slipway.operations.journal.rows import Row
from slipway.operations.journal.store import Store, sha256_of
from tests.support.gateways import write_gateway
from tests.support.journal_rows import BUNDLE, add_rows, made_row
from tests.support.labelled_files import unique
from tests.support.scripts import run_here


@dataclass(frozen=True)
class LabelledJournal:
    """`gateway.yaml`, and the journal and the repository that it names."""

    folder: Path

    @property
    def settings(self) -> Path:
        return self.folder / "gateway.yaml"

    @contextmanager
    def open(self) -> Iterator[Store]:
        with Store.of(read_settings(self.settings), make=True) as store:
            yield store

    def add(self, rows: Sequence[Row], images: Sequence[bytes] = ()) -> list[int]:
        with self.open() as store:
            return add_rows(store, rows, images=images)

    def add_images(self, images: Sequence[bytes], **changes: Any) -> list[int]:
        """A row for each image; its confidence and its embedding differ from those of the others."""
        numbers = np.random.default_rng(len(images))
        ((before,),) = self.query("SELECT count(*) FROM rows")
        rows = [
            made_row(
                f"{before + place:08x}",
                sha256=sha256_of(image),
                **{
                    **{"score": float(numbers.uniform(0.4, 1)), "class_id": place % 2},
                    **{"label": ("zero", "one")[place % 2], "embedding": numbers.normal(size=3).astype(np.float32)},
                    **changes,
                },
            )
            for place, image in enumerate(images)
        ]
        return self.add(rows, images)

    def add_rows(self, count: int, **changes: Any) -> list[int]:
        ((before,),) = self.query("SELECT count(*) FROM rows")
        return self.add_images([unique(before + place) for place in range(count)], **changes)

    def query(self, text: str, *values: object) -> list[tuple[Any, ...]]:
        with self.open() as store:
            return store.query(text, values)

    def table(self, *rows: Sequence[object], name: str = "labels.csv") -> Path:
        path = self.folder / name
        path.write_text("".join(f"{','.join(map(str, row))}\n" for row in rows), encoding="utf-8")
        return path

    def run(self, verb: str, *words: object) -> dict[str, Any]:
        """The JSON line of `slipway labels VERB`."""
        done = self.done(verb, *words)
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    def done(self, verb: str, *words: object) -> CompletedProcess[str]:
        arguments = (verb, str(self.settings), *map(str, words), "--json")
        return run_here("labels", *arguments, cwd=self.folder, check=False)


def labelled_journal(
    folder: Path, *, classes: Sequence[str] = ("zero", "one"), classifier: str = "digits", **settings: Any
) -> LabelledJournal:
    """An empty journal of a classifier with these labels."""
    repository = folder / "repository"
    (repository / f"{classifier}_full").mkdir(parents=True)
    (repository / f"{classifier}_full" / "labels.txt").write_text("".join(f"{label}\n" for label in classes))
    Lane(lane="cpu", classifiers={classifier: BUNDLE}, shm_default_bytes=2**20).write(repository / "lane.json")
    changes = {"repository": "repository", "observe": {"journal": "journal", "spool": "spool"}, **settings}
    write_gateway(folder, tls=False, **changes)
    found = LabelledJournal(folder)
    with found.open():
        pass
    return found
