"""The images of `make operate`."""

import csv
import random
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.studies.operate.__main__ import verdict
from benchmarks.studies.operate.digits import KNOWN, NEW, divide, photographed, shuffled, spoil_data, write_data
from benchmarks.studies.operate.result import OperateResult

PUBLISHED = Path(__file__).parents[2] / "benchmarks/results/operate.json"


def _digits(folder: Path, *, count: int) -> Path:
    for digit in KNOWN + NEW:
        (folder / digit).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (number, int(digit), 0)).save(folder / digit / f"{number}.png")
    return folder


def test_no_scan_is_learnt_and_sent_or_sent_before_and_after_the_turn(tmp_path: Path) -> None:
    scans = divide(_digits(tmp_path / "digits", count=10), seed=0)
    parts = [{path for paths in part.values() for path in paths} for part in (scans.learnt, scans.before, scans.after)]
    assert [len(part) for part in parts] == [54, 23, 23]
    assert len(set.union(*parts)) == 100
    assert not scans.learnt[NEW]
    assert write_data(scans, tmp_path / "data", seed=0) == 54
    assert not (tmp_path / "data" / NEW).exists()


def test_the_new_digit_comes_as_often_as_asked_and_from_its_part(tmp_path: Path) -> None:
    scans = divide(_digits(tmp_path / "digits", count=10), seed=0)
    sent = [digit for digit, _ in islice(shuffled(scans.before, new_share=0.15, seed=1), 1000)]
    assert 110 < sent.count(NEW) < 190
    assert photographed(scans.after[NEW][0], random.Random(0)) == photographed(scans.after[NEW][0], random.Random(0))


def test_every_label_of_the_spoilt_table_is_another_and_the_split_stays(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    (tmp_path / "data.csv").write_text("path,label,split\n1,a,train\n2,b,test\n3,c,train\n")
    spoil_data(tmp_path, tmp_path / "spoilt.csv")
    with (tmp_path / "spoilt.csv").open(newline="") as file:
        assert [tuple(row.values()) for row in csv.DictReader(file)] == [
            ("1", "b", "train"),
            ("2", "c", "test"),
            ("3", "a", "train"),
        ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"recovered_share": 0.79}, "79% of the loss is back"),
        ({"labels": 201}, "201 labels, at most 200 allowed"),
        ({"failed": 1}, "1 requests failed"),
        ({"parity": {"equal": 7613, "differs": 1}}, "1 replays of the journal differ and 7613 are equal"),
        ({"parity": {"other_bundle": 9}}, "0 replays of the journal differ and 0 are equal"),
        ({"seconds": 1200.0}, "1200 s, at most 300 allowed"),
    ],
)
def test_each_missed_bar_is_an_exit_status_of_1_and_a_line(
    changes: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = OperateResult.read(PUBLISHED).model_copy(update=changes)
    assert verdict(result) == bool(changes)
    missed = capsys.readouterr().out.splitlines()
    assert len(missed) == bool(changes)
    assert said in "".join(missed)
