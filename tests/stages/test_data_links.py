"""Links and names of files in a data set: what leaves the tree is refused by name."""

import os
from pathlib import Path

import pytest

from slipway.contract import DataError
from slipway.training.data.dataset import scan
from tests.support.labelled_files import data, unique, write_table


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for label, first in (("cat", 0), ("dog", 20)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(first, first + 20):
            (tmp_path / "data" / label / f"{number}.png").write_bytes(unique(number))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.png").write_bytes(unique(99))
    return tmp_path / "data"


LINKS = {
    "a link to a file outside": ("cat/x.png", "../../outside/secret.png", "cat/x.png: a link that leaves data.root"),
    "a link to a folder outside": ("cat/more", "../../outside", "cat/more: a link to a folder; put the folder itself"),
    "a class that is a link": ("owl", "../outside", "owl: a link to a folder; put the folder itself there"),
    "a link to nothing": ("cat/x.png", "nowhere", "cat/x.png: a broken link"),
    "a link to itself": ("cat/x.png", "x.png", "cat/x.png: "),
}


@pytest.mark.parametrize("link", LINKS)
def test_links_that_leave_the_tree_are_refused_by_name(link: str, folders: Path) -> None:
    place, target, message = LINKS[link]
    (folders / place).symlink_to(target)
    with pytest.raises(DataError, match=message):
        scan(data(folders))


def test_a_link_of_a_table_that_leaves_the_tree_is_refused_and_one_inside_is_read(folders: Path) -> None:
    (folders / "out.png").symlink_to("../outside/secret.png")
    (folders / "in.png").symlink_to("cat/0.png")
    table = [["path", "label"], ["out.png", "cat"], ["in.png", "dog"]]
    path = write_table(folders.parent / "table.csv", table)
    with pytest.raises(DataError, match=r"^1 rows .*\n  line 2: .*out\.png: a link that leaves data\.root$"):
        scan(data(folders, csv=str(path)))


def test_a_root_that_is_a_link_is_followed(folders: Path) -> None:
    (folders.parent / "link").symlink_to("data")
    assert len(scan(data(folders.parent / "link")).images) == 40


def test_a_file_name_that_is_not_utf_8_is_an_error_that_can_be_printed(folders: Path) -> None:
    Path(os.fsdecode(bytes(folders / "cat") + b"/\xff.png")).write_bytes(unique(50))
    with pytest.raises(DataError, match=r"a name that is not UTF-8; rename it") as error:
        scan(data(folders))
    str(error.value).encode()
