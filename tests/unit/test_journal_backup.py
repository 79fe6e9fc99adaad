"""A backup of a journal: of one moment while others write, without what was forgotten, and checked byte for byte."""

import json
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from slipway.contract import SlipwayError, SpecError, StorageError
from slipway.operations.journal.backup import INDEX, back_up, restore
from slipway.operations.journal.store import DATABASE, image_path, only_collector, sha256_of
from slipway.operations.watch import latency as latencies
from slipway.operations.watch.facts import Facts
from tests.support.damage import flip_byte
from tests.support.gateways import write_gateway
from tests.support.journal_rows import add_rows, journal_in, made_row
from tests.support.scripts import run_here
from tests.support.watch_looks import look
from tests.support.watch_rows import add_drawn, drawn, made_reference


def fill(journal: Path, numbers: range) -> None:
    with journal_in(journal, make=True) as store:
        for number in numbers:
            image = b"image %d" % number
            add_rows(store, [made_row(str(number), sha256=sha256_of(image), bytes=len(image))], images=[image])


def backed_up(journal: Path, target: Path) -> int:
    """Images that were copied."""
    with journal_in(journal, make=False) as store:
        return back_up(store, target, progress=lambda _: None)[1]


def restored(backup: Path, journal: Path) -> list[str]:
    """The requests of the rows, each of which has its image."""
    restore(backup, journal, progress=lambda _: None)
    with journal_in(journal, make=False) as store:
        rows = store.query("SELECT request, sha256, kept FROM rows ORDER BY id")
    for request, sha256, kept in rows:
        assert kept
        assert image_path(journal, sha256).read_bytes() == f"image {request}".encode()
    return [request for request, _, _ in rows]


def test_a_backup_is_of_one_moment_while_a_collector_writes_and_people_remove(tmp_path: Path) -> None:
    journal, over = tmp_path / "journal", threading.Event()
    fill(journal, range(5))

    def write() -> None:
        for number in range(5, 10_000):
            if over.wait(0.005):  # often, and not all the time of a core
                return
            fill(journal, range(number, number + 1))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for turn in range(4):
            backed_up(journal, tmp_path / "backup")
            requests = restored(tmp_path / "backup", tmp_path / f"restored{turn}")
            assert requests == [str(number) for number in range(len(requests))]
    finally:
        over.set()
        writer.join()
    assert len(requests) > 5


def test_a_second_backup_copies_what_is_new_and_leaves_out_what_was_forgotten(tmp_path: Path) -> None:
    journal, backup = tmp_path / "journal", tmp_path / "backup"
    fill(journal, range(3))
    for name in ("watch/digits/reference.json", "label-studio.id", "watch/watch.lock", "watch/.state.17"):
        (journal / name).parent.mkdir(parents=True, exist_ok=True)
        (journal / name).write_text(name)
    assert backed_up(journal, backup) == 3
    fill(journal, range(3, 4))
    with journal_in(journal, make=False) as store:
        store.forget(sha256_of(b"image 1"))
    assert backed_up(journal, backup) == 1
    forgotten = sha256_of(b"image 1")
    assert not any(path.name == forgotten for path in backup.rglob("*"))
    assert restored(backup, tmp_path / "restored") == ["0", "2", "3"]
    files = [path for path in (tmp_path / "restored").rglob("*") if path.is_file() and "images" not in path.parts]
    assert {path.name for path in files} == {DATABASE, "reference.json", "label-studio.id", "collector.lock"}
    for path in [backup, *backup.rglob("*"), tmp_path / "restored", *(tmp_path / "restored").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_the_watch_of_a_restored_journal_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latencies, "read_counts", lambda _: {})

    def goes_on(journal: Path) -> Facts:
        with journal_in(journal, make=True) as store:
            add_drawn(store, drawn(300, seed=8), name="after")
            return look(store).model_copy(update={"looked_s": 0.0, "rows_per_second": 0.0})

    with journal_in(tmp_path / "journal", make=True) as store:
        made_reference(store.folder)
        add_drawn(store, drawn(300, seed=7), name="before")
        look(store)
        back_up(store, tmp_path / "backup", progress=lambda _: None)
    restore(tmp_path / "backup", tmp_path / "restored", progress=lambda _: None)
    facts = goes_on(tmp_path / "restored")
    assert facts == goes_on(tmp_path / "journal")
    assert facts.rows == 600


def test_an_image_that_is_pruned_meanwhile_is_marked_so(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    fill(journal, range(2))
    image_path(journal, sha256_of(b"image 0")).unlink()
    backed_up(journal, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "restored", progress=lambda _: None)
    with journal_in(tmp_path / "restored", make=False) as store:
        assert store.query("SELECT request, kept FROM rows ORDER BY id") == [("0", 0), ("1", 1)]


def a_changed_row(backup: Path) -> str:
    flip_byte(backup / DATABASE, -7)
    return rf"{DATABASE}: damaged: its SHA-256 is not the one that was recorded"


def a_changed_image(backup: Path) -> str:
    name = sha256_of(b"image 1")
    image_path(backup, name).write_bytes(b"image !")
    return rf"{name}: damaged"


def a_missing_image(backup: Path) -> str:
    name = sha256_of(b"image 1")
    image_path(backup, name).unlink()
    return rf"{name}: missing; give another backup, or restore --without-damaged"


def an_image_that_is_a_link(backup: Path) -> str:
    path = image_path(backup, sha256_of(b"image 1"))
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    return rf"{path.name}: missing"


def a_list_without_the_database(backup: Path) -> str:
    index = json.loads((backup / INDEX).read_text())
    (backup / INDEX).write_text(json.dumps(index | {"files": {}}))
    return rf"does not name {DATABASE}"


def a_list_of_other_rows(backup: Path) -> str:
    index = json.loads((backup / INDEX).read_text())
    (backup / INDEX).write_text(json.dumps(index | {"rows": 99}))
    return r"has 3 rows and 3 images, and .* says 99 rows and 3 images; give another backup"


def a_missing_file(backup: Path) -> str:
    (backup / "label-studio.id").unlink()
    return r"label-studio\.id: missing; give another backup"


def a_way_out(backup: Path) -> str:
    index = json.loads((backup / INDEX).read_text())
    index["files"]["../out"] = "0" * 64
    (backup / INDEX).write_text(json.dumps(index))
    return r"leads out of the folder"


def changed_rows(backup: Path, statement: str) -> None:
    """Change the database of a backup, and the list so that it names the new one."""
    index = json.loads((backup / INDEX).read_text())
    with closing(sqlite3.connect(backup / DATABASE)) as rows:
        rows.execute(statement)
        rows.commit()
    index["files"][DATABASE] = sha256_of((backup / DATABASE).read_bytes())
    (backup / INDEX).write_text(json.dumps(index))


def a_way_out_of_the_images(backup: Path) -> str:
    changed_rows(backup, "UPDATE rows SET sha256 = '../../../out' WHERE id = 1")
    return r"'../../../out' is not an image's SHA-256; give another backup"


def a_name_of_bytes(backup: Path) -> str:
    changed_rows(backup, "UPDATE rows SET sha256 = x'00ff' WHERE id = 1")
    return r"is not an image's SHA-256; give another backup"


def another_version(backup: Path) -> str:
    changed_rows(backup, "PRAGMA user_version = 999")
    return r"of version 999, and this release reads \d+; give another backup"


def no_index(backup: Path) -> str:
    (backup / INDEX).unlink()
    return rf"backup: not a backup, without {INDEX}; give a folder that slipway journal backup wrote"


FAULTS = [
    a_changed_row,
    a_changed_image,
    a_missing_image,
    an_image_that_is_a_link,
    a_missing_file,
    a_list_without_the_database,
    a_list_of_other_rows,
    a_way_out,
    a_way_out_of_the_images,
    a_name_of_bytes,
    another_version,
    no_index,
]


def test_a_backup_heals_an_image_that_the_one_before_has_damaged(tmp_path: Path) -> None:
    journal, backup = tmp_path / "journal", tmp_path / "backup"
    fill(journal, range(3))
    backed_up(journal, backup)
    a_changed_image(backup)  # of the same size
    assert backed_up(journal, backup) == 1
    assert image_path(backup, sha256_of(b"image 1")).read_bytes() == b"image 1"


@pytest.mark.parametrize("fault", [a_changed_image, a_missing_image, an_image_that_is_a_link])
def test_without_a_damaged_image_its_row_is_restored_all_the_same(tmp_path: Path, fault: Callable[[Path], str]) -> None:
    journal, backup = tmp_path / "journal", tmp_path / "backup"
    fill(journal, range(3))
    backed_up(journal, backup)
    fault(backup)
    _, left_out = restore(backup, tmp_path / "restored", progress=lambda _: None, without_damaged=True)
    with journal_in(tmp_path / "restored", make=False) as store:
        assert store.query("SELECT request, kept FROM rows ORDER BY id") == [("0", 1), ("1", 0), ("2", 1)]
    assert left_out == [sha256_of(b"image 1")]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_backup_is_named_and_no_journal_comes_of_it(tmp_path: Path, fault: Callable[[Path], str]) -> None:
    journal, backup, whole = tmp_path / "journal", tmp_path / "backup", tmp_path / "whole"
    fill(journal, range(3))
    (journal / "label-studio.id").write_text("1234")
    backed_up(journal, backup)
    shutil.copytree(backup, whole)
    message = fault(backup)
    with pytest.raises(SlipwayError, match=message):
        restore(backup, tmp_path / "restored", progress=lambda _: None)
    assert not (tmp_path / "restored" / DATABASE).exists()
    assert restored(whole, tmp_path / "restored") == ["0", "1", "2"]


def test_the_log_of_another_journal_is_not_taken_for_that_of_a_restored_one(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    fill(journal, range(3))
    backed_up(journal, tmp_path / "backup")
    with journal_in(journal, make=False) as store:
        fill(journal, range(3, 6))
        log = (journal / f"{DATABASE}-wal").read_bytes()  # what a collector that is killed leaves
        assert store.query("SELECT count(*) FROM rows") == [(6,)]
    (journal / DATABASE).unlink()
    (journal / f"{DATABASE}-wal").write_bytes(log)
    with pytest.raises(SpecError, match=rf"{DATABASE}-wal of another journal is there"):
        restore(tmp_path / "backup", journal, progress=lambda _: None)
    assert not (journal / DATABASE).exists()


def test_nothing_is_written_over_a_journal_or_another_folder(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    fill(journal, range(3))
    backed_up(journal, tmp_path / "backup")
    with pytest.raises(SpecError, match="a journal is there, and nothing is written over it; move it away first"):
        restore(tmp_path / "backup", journal, progress=lambda _: None)
    with only_collector(journal), pytest.raises(SpecError, match="has this journal; end it before you restore"):
        restore(tmp_path / "backup", journal, progress=lambda _: None)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter").write_text("1")
    for target, message in (("thesis", "not empty"), ("journal/backup", "lies in")):
        with pytest.raises(SpecError, match=message):
            backed_up(journal, tmp_path / target)


def test_the_verb_says_that_what_was_forgotten_since_is_there_again(tmp_path: Path) -> None:
    fill(tmp_path / "journal", range(3))
    backed_up(tmp_path / "journal", tmp_path / "backup")
    write_gateway(tmp_path / "new", tls=False, observe={"journal": "journal"})
    said = run_here("journal", "restore", "gateway.yaml", tmp_path / "backup", cwd=tmp_path / "new").stdout
    assert "3 rows and 3 images, as of " in said
    assert (
        "repeat slipway journal forget gateway.yaml ID for it, by the id of the request or the SHA-256 of the image"
        in said
    )


def test_an_image_of_the_journal_that_was_damaged_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "journal", range(3))
    image_path(tmp_path / "journal", sha256_of(b"image 2")).write_bytes(b"image ?")
    with pytest.raises(StorageError, match=f"{sha256_of(b'image 2')}: damaged"):
        backed_up(tmp_path / "journal", tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
