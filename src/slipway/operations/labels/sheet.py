"""`slipway labels sheet`: the images that wait for a label as files, with a table that people fill in."""

import csv
import io
import shutil
from pathlib import Path

from slipway.contract import SpecError
from slipway.operations.journal.store import Store, read_image
from slipway.operations.labels.studio import unlabelled
from slipway.system.targets import check_folder, told
from slipway.system.text import command, to_cell

TABLE = "labels.csv"
COLUMNS = ("row", "image", "answer", "label")


def write_sheet(store: Store, classifier: str, out: Path) -> tuple[int, list[int]]:
    """Write a file for each image that was asked and has no label, named by its row, and `labels.csv`.

    The column `label` is empty, and `slipway labels add` reads the table when people have written into it. The rows are
    in the order of their images' SHA-256, as Label Studio shows them. Only this user may read the folder.

    Returns:
        The number of images, and the rows whose image is damaged, or was forgotten meanwhile.

    Raises:
        SpecError: no image waits for a label, or `out` exists: people may have written labels there.
        StorageError: it cannot be written.
    """
    if out.exists():
        raise SpecError(f"{out} exists, and may hold labels that people wrote; give another folder")
    check_folder(out, kind="sheet of labels")
    rows = unlabelled(store, classifier)
    formats = dict(store.query("SELECT id, format FROM rows WHERE id IN (SELECT row FROM asked)"))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    written, left_out = 0, list[int]()
    with told(out):
        out.mkdir(parents=True, mode=0o700)
        try:
            for row in rows:
                name = f"{row.number}.{(formats.get(row.number) or 'image').lower()}"
                content = read_image(store.folder, row.sha256)
                if content is None:
                    left_out.append(row.number)
                    continue
                (out / name).write_bytes(content)
                writer.writerow((row.number, name, to_cell(row.label or ""), ""))
                written += 1
            if not written:
                select = command("slipway labels select", store.settings_file)
                raise SpecError(f"{classifier}: no image waits for a label; {select} chooses some")
            (out / TABLE).write_text(table.getvalue(), encoding="utf-8", newline="")
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            raise
    return written, left_out
