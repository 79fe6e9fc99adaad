"""A head that is served, a journal with labelled images of a class that it does not know, and a turn for it."""

import json
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import yaml

from slipway.contract import Bundle
from slipway.operations.gateway.settings import read_settings
from slipway.operations.journal.store import Store, sha256_of
from slipway.serving import Ports
from tests.support.gateways import free_beside, write_gateway
from tests.support.journal_rows import add_rows, made_row
from tests.support.scripts import run_here
from tests.support.shades import COLOURS, base_with_int8, coloured, write_colours

LENIENT = {"max_loss_points": 40, "max_class_loss_points": 100, "max_flip_points": 60, "prove_classes": False}
FOREIGN = ("amber", (240, 200, 20))
"""A class that comes first in the alphabet, and must get the last class id."""
FLEET = """\
# The shades of our fleet.
bases:
  tiny:
    base: base
    heads: {shades: runs/shades}  # the active run
turn: {new_labels: 30}
"""


@dataclass(frozen=True)
class TurnFolder:
    """`base`, `data`, `runs/shades`, `fleet.yaml`, `cpu` and `gateway/gateway.yaml`, with `files` relative to it."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, **spec: Any) -> "TurnFolder":
        base_with_int8(folder / "base")
        write_colours(folder / "data")
        text = {"name": "shades", "data": {"root": "data"}, "accuracy": LENIENT} | spec
        (folder / "shades.yaml").write_text(yaml.safe_dump(text))
        (folder / "fleet.yaml").write_text(FLEET)
        run_here("head", "shades.yaml", "--base", "base", cwd=folder)
        run_here("assemble", "fleet.yaml", "--out", "cpu", cwd=folder)
        return cls(folder)

    def write_gateway(self, *, stable: Ports | None = None, candidate: Ports | None = None, **settings: Any) -> None:
        """`gateway/gateway.yaml`, for these servers."""
        served = stable or Ports.free()
        tried = candidate or free_beside(served)
        observe = {"journal": "journal", "spool": "spool", "metrics_port": free_beside(served, tried).http}
        settings = {"candidate": dict(vars(tried)), "repository": "../cpu", "observe": observe} | settings
        write_gateway(self.folder / "gateway", ports=served, tls=stable is not None, **settings)

    @property
    def bundle(self) -> Bundle:
        return Bundle.open(self.folder / "runs/shades/bundle")

    @property
    def new_bundle(self) -> Bundle:
        return Bundle.open(self.folder / "runs/shades-2/bundle")

    def open(self) -> Any:
        return Store.of(read_settings(self.folder / "gateway/gateway.yaml"), make=True)

    def label_asked(self) -> int:
        """Label what is asked, as it is; returns how many rows that were."""
        with self.open() as store:
            asked = store.query("SELECT row FROM asked WHERE row NOT IN (SELECT row FROM labels)")
            store.write("INSERT INTO labels VALUES (?, 'ann', ?, 1.0)", [(row, FOREIGN[0]) for (row,) in asked])
        return len(asked)

    def add_rows(
        self, *, known: int = 12, foreign: int = 40, labelled: bool = True, seed: int = 5, labelled_s: float = 1.0
    ) -> None:
        """Rows that the active run answered: known colours rightly, and foreign ones as one that it knows."""
        rng = np.random.default_rng(seed)
        truths = [[*COLOURS][number % 3] for number in range(known)] + [FOREIGN[0]] * foreign
        images = [coloured({**COLOURS, FOREIGN[0]: FOREIGN[1]}[truth], rng) for truth in truths]
        values = {"classifier": "shades", "model": "shades", "bundle": self.bundle.id}
        rows = [
            made_row(f"{seed}-{number}", label=truth if truth in COLOURS else "red", sha256=sha256_of(image), **values)
            for number, (truth, image) in enumerate(zip(truths, images, strict=True))
        ]
        with self.open() as store:
            numbers = add_rows(store, rows, images=images)
            if labelled:
                said = [(row, "ann", truth, labelled_s) for row, truth in zip(numbers, truths, strict=True)]
                store.write("INSERT INTO labels VALUES (?, ?, ?, ?)", said)

    def done(self, action: str, *words: str) -> "CompletedProcess[str]":
        """`slipway turn ACTION` for this fleet, in this process."""
        files = ("gateway/gateway.yaml", "fleet.yaml", "shades")
        return run_here("turn", action, *files, *words, cwd=self.folder, check=False)

    def run(self, *words: str, action: str = "run") -> tuple[int, Any]:
        """Its exit code and JSON line."""
        done = self.done(action, *words, "--json")
        return done.returncode, json.loads(done.stdout.splitlines()[-1])
