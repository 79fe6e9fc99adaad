"""The search for the best `serving`, on servers whose capacity is known; and how it is written into a fleet file."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway.benchmark.tuning import (
    HIGHEST,
    NONE,
    changed,
    climb,
    climb_rounds,
    in_turns,
    ratio,
    rung_at,
    settings,
    tune,
)
from slipway.benchmark.tuning_fleet import replace_text, with_serving
from slipway.cli import tune as script
from slipway.cli import tune_measure
from slipway.contract import Fleet, SpecError
from slipway.contract.evidence.latency import STEP, rate_at
from slipway.contract.evidence.tuning import RateRatio
from slipway.contract.serving import Serving, settle
from tests.support.colours import copy_colours
from tests.support.played_bench import PlayedBench

FLEET = """# ours
lane: cpu
classifiers:
  digits:   # the name
    active: {bundle: digits/bundle, engine: [digits/engine]}
    serving:
      instances: 1   # one is enough
  letters:
    active: runs/letters
    serving: {threads: 2}
  pets: {active: runs/pets, serving: {}}
  cars:
    # no serving here
    active: runs/cars
"""


def known(serving: Serving) -> int:
    """The highest rung that a server like this holds."""
    batch = {0: 0, 1: 1, 2: 3, 4: 2}[serving.preferred_batch_size]
    processes = 2 * serving.pinned + (2 if (serving.instances, serving.threads) == (2, 1) else 0)
    return 10 + batch + processes + (4 if serving.layout == "fused" else 0) - serving.max_queue_delay_us // 500


def served(**given: Any) -> Serving:
    """A start of the search, in which nothing is left to choose."""
    return settle(Serving(**{"layout": "steps", **given}), cores=2, classifiers=1)


class Asked(list):
    def __call__(self, serving: Serving, rung: int) -> bool:
        self.append((serving, rung))
        return rung <= known(serving)


def tuned(start: Serving, asked: Asked, *, rung: int = 10, runs: int = 100):
    return tune(start, asked, lane="cpu", cores=2, rung=rung, in_budget=lambda: len(asked) < runs)


@pytest.mark.parametrize("start", [0, 3, 12, 13, 14, 60])
@pytest.mark.parametrize("stride", [1, 4])
def test_a_climb_ends_at_the_highest_rung_that_is_held(start: int, stride: int) -> None:
    end = in_turns({"only": climb(start, stride=stride)}, lambda _, rung: rung <= 13)["only"]
    assert 13 - stride < end <= 13


def test_a_side_that_holds_nothing_is_said_to() -> None:
    assert in_turns({"only": climb(7, stride=4)}, lambda *_: False) == {"only": NONE}


def test_a_climb_ends_where_the_grid_does() -> None:
    assert in_turns({"only": climb(HIGHEST - 6, stride=4)}, lambda *_: True)["only"] == HIGHEST - 2
    assert in_turns({"only": climb(HIGHEST + 6)}, lambda *_: True)["only"] == HIGHEST


def test_sides_take_turns_and_every_round_begins_with_another_one() -> None:
    limits, asked = {"a": 3, "b": 6}, []

    def held(number: int, side: str, rung: int) -> bool:
        asked.append((number, side))
        return rung <= limits[side]

    assert list(climb_rounds({"a": 3, "b": 3}, held, rounds=2)) == [limits, limits]
    first, second = ([side for number, side in asked if number == round_] for round_ in (1, 2))
    assert first[:4] == ["b", "a", "b", "a"]
    assert second == ["a", "b", "a", "b"]


def test_rungs_are_rates() -> None:
    assert rate_at(rung_at(80)) == pytest.approx(80, rel=STEP - 1)
    assert rung_at(0.1) == 0


def test_a_ratio_has_a_spread_and_one_round_is_beyond_none() -> None:
    found = ratio([5, 6, 5], to=[4, 4, 4])
    assert (found.least, found.most) == pytest.approx((STEP, STEP**2))
    assert found.mean == pytest.approx(STEP ** (4 / 3))
    assert found.beyond_spread
    assert not ratio([5, 3, 6, 2], to=[4, 4, 4, 4]).beyond_spread
    assert not ratio([3, 3, 3], to=[4, 4, 4]).beyond_spread
    assert not ratio([4, 4], to=[4, 4]).beyond_spread
    alone = ratio([9], to=[4])
    assert not alone.beyond_spread
    assert RateRatio.parse(json.loads(alone.to_json()), source="test") == alone, "one round's is written as JSON has it"


@pytest.mark.parametrize(
    "start",
    [served(), served(instances=1, threads=2), served(layout="fused", preferred_batch_size=4, max_queue_delay_us=2000)],
)
def test_the_search_finds_the_best_in_few_runs_from_anywhere(start: Serving) -> None:
    asked = Asked()
    found = tuned(start, asked)
    assert found.complete
    assert (found.serving.layout, found.serving.preferred_batch_size, found.serving.max_queue_delay_us) == (
        "fused",
        2,
        0,
    )
    assert (found.serving.instances, found.serving.threads) == (2, 1)
    assert found.rung == known(found.serving) == 21
    assert len(asked) <= 30  # a grid of the same values has 144 points with a climb each


def test_what_is_no_better_costs_one_measurement() -> None:
    best = served(layout="auto")
    asked = Asked()
    assert tuned(best, asked, rung=21).serving == best
    others = [serving for serving, _ in asked if serving != best]
    assert len(others) == len(set(others))


def test_the_search_ends_with_its_budget_and_says_so() -> None:
    asked = Asked()
    found = tuned(served(), asked, runs=0)
    assert (found.serving, found.complete) == (served(), False)
    assert found.rung == known(served())


def test_no_batch_is_preferred_that_is_over_the_largest() -> None:
    _, _, batches, *_ = settings("cpu", cores=2, max_batch_size=2)
    assert [change["preferred_batch_size"] for change in batches] == [2, 1, 0]


@pytest.mark.parametrize("cores", [1, 2, 3, 16, 256])
def test_every_value_that_a_search_may_try_is_one_that_the_spec_takes(cores: int) -> None:
    for lane in ("cpu", "gpu"):
        for values in settings(lane, cores=cores, max_batch_size=8):
            assert values
            for change in values:
                Serving.parse(changed(Serving(), change).model_dump(mode="json"), source="test")


CHANGES = {"layout": "fused", "instances": 3}


@pytest.mark.parametrize("name", ["digits", "letters", "pets", "cars"])
def test_one_classifiers_serving_changes_and_every_comment_stays(name: str) -> None:
    edited = with_serving(FLEET, name, CHANGES)
    before, after = yaml.safe_load(FLEET), yaml.safe_load(edited)
    assert after["classifiers"][name].pop("serving") == {**before["classifiers"][name].pop("serving", {}), **CHANGES}
    assert after == before
    assert [line.split("#")[1] for line in edited.splitlines() if "#" in line] == [
        line.split("#")[1] for line in FLEET.splitlines() if "#" in line
    ]
    assert with_serving(edited, name, CHANGES) == edited


SHARED = {
    "an anchor": "classifiers:\n  a: {active: x, serving: &s {instances: 1}}\n  b: {active: y, serving: *s}\n",
    "an alias": "classifiers:\n  a: &a {active: x, serving: {instances: 1}}\n  b: *a\n",
    "a merge key": "classifiers:\n  a: &a {active: x, serving: {threads: 2}}\n  b: {<<: *a, active: y}\n",
}


@pytest.mark.parametrize("text", SHARED.values(), ids=SHARED)
def test_what_others_share_is_not_changed(text: str) -> None:
    with pytest.raises(SpecError, match=r"write by hand: serving: \{layout: fused, instances: 3\}"):
        with_serving(text, "b", CHANGES)


def test_a_file_is_replaced_whole_and_stays_what_it_was(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "fleet.yaml"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    replace_text(link, "new\r\n")
    assert real.read_bytes() == b"new\r\n"
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fleet.yaml", "real.yaml"]


class Bench(PlayedBench):
    def known(self, serving: Serving) -> int:
        return known(serving)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy_colours(tmp_path / "digits")
    monkeypatch.setattr(tune_measure, "Bench", Bench)
    monkeypatch.setattr(script.os, "sched_getaffinity", lambda _: {0, 1})
    (tmp_path / "images").mkdir()
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET)
    return path


def run(*options: str | Path) -> None:
    script.main(script.parser().parse_args([str(option) for option in options]))


def test_the_winner_is_written_with_its_evidence(fleet: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(Bench, "gain", None)
    run(fleet, "--images", fleet.parent / "images", "--classifier", "digits", "--json")
    serving = Fleet.read(fleet).serving_of("digits", Serving())
    assert (serving.layout, serving.preferred_batch_size, serving.instances) == ("fused", 2, 2)
    assert "# one is enough" in fleet.read_text()
    evidence = json.loads((fleet.parent / "fleet.digits.tuning.json").read_text())
    assert evidence["better"]
    assert evidence["changes"] == {
        "layout": "fused",
        "pinned": True,
        "preferred_batch_size": 2,
        "instances": 2,
        "preprocess_instances": 2,
    }
    assert len(evidence["measurements"]) == evidence["search"]["runs"]
    *lines, last = capsys.readouterr().out.splitlines()
    assert json.loads(last) == evidence
    assert any(
        line.startswith("BETTER: fused, 2 processes of 1 thread, pinned, batches of up to 2 holds") for line in lines
    )


def test_a_dry_run_writes_nothing(fleet: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(Bench, "gain", None)
    before = sorted(path.name for path in fleet.parent.iterdir())
    run(fleet, "--images", fleet.parent / "images", "--classifier", "digits", "--dry-run")
    assert fleet.read_text() == FLEET
    assert sorted(path.name for path in fleet.parent.iterdir()) == before
    assert "would write to" in capsys.readouterr().out


def test_a_winner_of_the_search_that_is_no_better_when_compared_is_not_taken(fleet: Path, capsys) -> None:
    run(fleet, "--images", fleet.parent / "images", "--classifier", "digits")
    assert fleet.read_text() == FLEET
    assert "KEPT: the best of the search holds 1.00 times the rate" in capsys.readouterr().out
    assert not json.loads((fleet.parent / "fleet.digits.tuning.json").read_text())["changes"]


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (("", ""), [], "--classifier is not given; the classifiers are digits, letters, pets, cars"),
        (("", ""), ["--classifier", "birds"], "--classifier birds; the classifiers are"),
        (("lane: cpu", "lane: gpu"), ["--classifier", "digits"], r"this machine shows none \(.*\); tune there"),
        (("lane: cpu", "multi: {page: [digits, cars]}"), ["--classifier", "digits"], "must be equal; take it out"),
        (("", ""), ["--classifier", "digits", "--requests", "458"], "give 459 or more"),
        (("", ""), ["--classifier", "digits", "--limit-ms", "0"], "limit_ms"),
    ],
)
def test_what_cannot_be_tuned_is_said_at_once(fleet: Path, change, options, said: str) -> None:
    fleet.write_text(FLEET.replace(*change) if change[0] else FLEET)
    with pytest.raises(SpecError, match=said):
        run(fleet, "--images", fleet.parent / "images", *options)
