"""A candidate whose other classifiers are served otherwise is refused, since nothing would judge them."""

import shutil
from pathlib import Path

import pytest

from slipway.contract import SpecError
from slipway.operations.release.compatibility import check_candidate
from slipway.repository import assemble
from slipway.repository import heads as heads_of_a_base
from tests.support.colours import copy_colours, reseal
from tests.support.heads import open_heads, write_base, write_head, write_heads
from tests.support.releases import SERVING, tempered


def assembled(folder: Path, *, temperature: float = 1.0, batch: int = 8) -> Path:
    """A repository of `cats` with this temperature, and of `dogs` with this batch size."""
    change = tempered(temperature)
    cats = copy_colours(folder / "cats", spec={"name": "cats", "serving": SERVING}, bundle=change, engine=change)
    dogs = copy_colours(folder / "dogs", spec={"name": "dogs", "serving": SERVING | {"max_batch_size": batch}})
    assemble([cats, dogs], folder / "cpu")
    return folder / "cpu"


def test_a_change_of_the_tried_classifier_alone_is_a_candidate(tmp_path: Path) -> None:
    stable, candidate = assembled(tmp_path / "old"), assembled(tmp_path / "new", temperature=2.0)
    check_candidate(stable, candidate, tried=("cats",))


def test_another_classifier_with_other_serving_options_is_refused_by_name(tmp_path: Path) -> None:
    stable, candidate = assembled(tmp_path / "old"), assembled(tmp_path / "new", temperature=2.0, batch=4)
    with pytest.raises(
        SpecError, match=r"dogs \(.*engine.*\), dogs_full \(.*\) are served otherwise than in .*; assem"
    ):
        check_candidate(stable, candidate, tried=("cats",))


def test_a_step_with_other_code_under_its_old_name_is_refused(tmp_path: Path) -> None:
    stable = assembled(tmp_path / "old")
    candidate = tmp_path / "candidate"
    shutil.copytree(stable, candidate)
    for step in candidate.glob("preprocess_*"):
        (step / "1/model.py").write_text("changed = True\n")
    reseal(candidate)
    with pytest.raises(SpecError, match=r"dogs \(preprocess\), dogs_full \(preprocess\) are served otherwise"):
        check_candidate(stable, candidate, tried=("cats",))


@pytest.mark.parametrize("changed", ["h0003", "h0004"])
def test_a_head_is_compared_by_its_own_files_and_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    monkeypatch.setattr(heads_of_a_base, "GROUP", 4)
    base = write_base(tmp_path / "base")
    runs = write_heads(tmp_path / "heads", base, 12)
    stable, candidate = tmp_path / "cpu", tmp_path / "cpu-candidate"
    assemble([], stable, bases=open_heads(base, runs))
    labels = (stable / f"{changed}_full/labels.txt").read_text().split()
    run = next(run for run in runs if run.name == changed)
    shutil.rmtree(run)
    write_head(run, base, name=changed, labels=labels, seed=99)
    assemble([], candidate, bases=open_heads(base, runs))
    check_candidate(stable, candidate, tried=(changed,))
    for group in candidate.glob("heads_*"):
        other = next(head for head in sorted((group / "1/heads").iterdir()) if head.name != changed)
        (other / "decision.json").write_text("{}")
    reseal(candidate)
    with pytest.raises(SpecError, match=r"h\d{4} \(heads\).* are served otherwise"):
        check_candidate(stable, candidate, tried=(changed,))


def test_the_base_of_an_untried_head_may_not_change(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    runs = write_heads(tmp_path / "heads", base, 3)
    stable, candidate = tmp_path / "cpu", tmp_path / "cpu-candidate"
    assemble([], stable, bases=open_heads(base, runs))
    shutil.copytree(stable, candidate)
    for step in candidate.glob("base_*"):
        (step / "1/model.py").write_text("changed = True\n")
    reseal(candidate)
    with pytest.raises(SpecError, match=r"h0001 \(base\), h0001_full \(base\).* are served otherwise"):
        check_candidate(stable, candidate, tried=("h0000",))
