"""Several bases assembled again: a base of which nothing changed does not hide the steps that another one runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from slipway.contract import Fleet
from slipway.contract.lane import LaneName
from slipway.contract.serving import Serving
from slipway.lint import lint
from slipway.repository import BaseHeads, assemble, open_bases
from slipway.repository import heads as heads_of_a_base
from tests.support.colours import contents
from tests.support.gpu_bases import base_plan, gpu_heads, head_form
from tests.support.gpu_lanes import gpu_classifier
from tests.support.heads import open_heads, write_base, write_head

COUNT = 4


class TwoBases:
    """Two bases with equal preprocessing and runs of heads for each, on one of the lanes."""

    def __init__(self, folder: Path, lane: LaneName) -> None:
        self.lane, self.heads = lane, list[list[Path]]()
        self._runs = [write_base(folder / f"base{number}", name=f"base{number}", seed=number) for number in range(2)]
        self._plans = [base_plan(run) if lane == "gpu" else None for run in self._runs]
        self.heads = [[self.head(folder, place, f"h{place}{number}") for number in range(COUNT)] for place in range(2)]

    def head(self, folder: Path, place: int, name: str) -> Path:
        head = write_head(folder / "heads" / name, self._runs[place], name=name, seed=len(name) + place)
        plan = self._plans[place]
        if plan is not None:
            head_form(head, plan)
        return head

    def open(self) -> list[BaseHeads]:
        opens = gpu_heads if self.lane == "gpu" else open_heads
        return [own for run, heads in zip(self._runs, self.heads, strict=True) for own in opens(run, heads)]


@pytest.mark.parametrize("group", [2, 256])
@pytest.mark.parametrize("lane", ["cpu", "gpu"])
def test_a_head_of_either_base_is_added_or_removed(
    lane: LaneName, group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads_of_a_base, "GROUP", group)
    two, out = TwoBases(tmp_path, lane), tmp_path / "out"
    assemble([], out, bases=two.open(), lane=lane)
    for place, heads in enumerate(two.heads):
        removed = heads.pop()
        assemble([], out, bases=two.open(), lane=lane)
        heads.append(two.head(tmp_path, place, f"new{place}"))
        assemble([], out, bases=two.open(), lane=lane)
        assert not (out / removed.name).exists()
    assemble([], tmp_path / "anew", bases=two.open(), lane=lane)
    assert contents(out) == contents(tmp_path / "anew")
    assert lint(out) == []


def test_two_bases_on_one_run_share_its_step(tmp_path: Path) -> None:
    run = write_base(tmp_path / "base")
    heads = {name: str(write_head(tmp_path / name, run, name=name)) for name in ("a", "b", "c", "d", "e")}

    def opened(**of_bases: str) -> list[BaseHeads]:
        given = {
            name: {"base": str(run), "heads": {head: heads[head] for head in names}} for name, names in of_bases.items()
        }
        return open_bases(Fleet.parse({"bases": given}, source="test"), root=tmp_path)

    out = tmp_path / "out"
    for names in ({"one": "ab", "two": "cd"}, {"one": "ab", "two": "cde"}, {"one": "a", "two": "cde"}):
        assemble([], out, bases=opened(**names))
    assert len([*out.glob("base_*")]) == 1
    assert lint(out) == []


def test_a_classifier_is_added_that_runs_a_step_of_an_unchanged_base(tmp_path: Path) -> None:
    whole = replace(gpu_classifier(tmp_path, "9.0"), settings=Serving.parse({"warmup_batches": 1}, source="test"))
    run = write_base(tmp_path / "base", preprocess=whole.preprocess)
    plan, head = base_plan(run), write_head(tmp_path / "pets", run, name="pets")
    head_form(head, plan)
    bases, out = gpu_heads(run, [head]), tmp_path / "out"
    assemble([], out, bases=bases, lane="gpu")
    assemble([whole], out, bases=bases, lane="gpu")
    assert len([*out.glob("preprocess_*")]) == 1
    assert lint(out) == []
