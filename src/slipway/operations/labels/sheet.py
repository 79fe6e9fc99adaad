"""`slipway labels sheet`: the images that wait for a label as files, with a table that people fill in."""

import csv
import io
import shutil
from pathlib import Path

from slipway.contract import SpecError
from slipway.operations.journal.store import Store, image_path
from slipway.operations.labels.studio import unlabelled
from slipway.system.targets import told
from slipway.system.text import to_cell

TABLE = "labels.csv"
COLUMNS = ("row", "image", "answer", "label")


def write_sheet(store: Store, classifier: str, out: Path) -> int:
    """Write a file for each image that was asked and has no label, named by its row, and `labels.csv`; returns their
    number.

    The column `label` is empty, and `slipway labels add` reads the table when people have written into it. The rows are
    in the order of their images' SHA-256, as Label Studio shows them. Only this user may read the folder.

    Raises:
        SpecError: no image waits for a label, or `out` exists: people may have written labels there.
        StorageError: it cannot be written.
    """
    if out.exists():
        raise SpecError(f"{out} exists, and may hold labels that people wrote; give another folder")
    rows = unlabelled(store, classifier)
    formats = dict(store.query("SELECT id, format FROM rows WHERE id IN (SELECT row FROM asked)"))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    written = 0
    with told(out):
        out.mkdir(parents=True, mode=0o700)
        try:
            for row in rows:
                name = f"{row.number}.{(formats.get(row.number) or 'image').lower()}"
                try:
                    shutil.copyfile(image_path(store.folder, row.sha256), out / name)
                except FileNotFoundError:  # forgotten meanwhile
                    continue
                writer.writerow((row.number, name, to_cell(row.label or ""), ""))
                written += 1
            if not written:
                raise SpecError(f"{classifier}: no image waits for a label; slipway labels select chooses some")
            (out / TABLE).write_text(table.getvalue(), encoding="utf-8", newline="")
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            raise
    return written
