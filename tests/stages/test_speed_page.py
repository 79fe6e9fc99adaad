"""The speed page: every kind of file in any company, true to its histograms, and safe with anybody's words."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from slipway.benchmark.page import cards, read_files, render
from slipway.benchmark.page.comparisons import share_interval
from slipway.benchmark.page.files import SHOWN
from slipway.benchmark.page.plots import tail
from slipway.benchmark.page.rates import rates
from slipway.benchmark.page.series import all_series
from slipway.contract import SpecError
from slipway.contract.evidence.studies import EfficiencyResult, PeersResult, RobustnessResult, VerdictResult
from slipway.contract.prices import Priced
from slipway.pages.wording import figures
from tests.support import benchmark_results as made
from tests.support.report_builds import Page

RESULTS = Path(__file__).parents[2] / "benchmarks/results"
PRICE = Priced("An example.", 0.09, "USD", cores=2)
SECTIONS = {
    "gate": {"latency", "steps"},
    "capacity": {"latency", "rates", "steps"},
    "perf_analyzer": {"latency", "steps"},
    "efficiency": {"comparisons"},
    "peers": {"comparisons"},
    "robustness": {"rates", "comparisons"},
    "verdict": {"comparisons"},
}
ALWAYS = {"cost", "provenance"}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return made.write_all(tmp_path_factory.mktemp("results"))


def page_of(paths: list[Path]) -> Page:
    return Page(render(read_files(paths), price=PRICE, utilisation=0.5))


def test_the_page_shows_the_figures_of_every_file_and_names_it(paths: dict[str, Path]) -> None:
    page = page_of(list(paths.values()))
    gate, capacity = made.gate(), json.loads(paths["capacity"].read_text())
    assert all(path.name in page.text for path in paths.values())
    assert f"P99 {gate.latency.p99_ms:.1f} ms of 50 ms at 50 requests/s" in page.text
    assert gate.reason in page.text
    assert f"{capacity['passed_per_s']:.1f} requests/s, under {capacity['not_passed_per_s']:.1f}" in page.text
    efficiency = EfficiencyResult.read(paths["efficiency"])
    shares = {
        (share.mean, share.least, share.most)
        for c in efficiency.classifiers.values()
        for share in c.share_of_pool.values()
    }
    assert all(f"{mean:.2f} ({least:.2f} to {most:.2f})" in page.text for mean, least, most in shares)
    peers = PeersResult.read(paths["peers"]).times_the_capacity.values()
    assert all(f"{times.mean:.2f} ({times.low:.2f} to {times.high:.2f})" in page.text for times in peers)
    kills = RobustnessResult.read(paths["robustness"]).kills or {}
    assert all(f"{sum(kill.lost.values()):,} of {kill.requests:,}" in page.text for kill in kills.values())
    verdict = VerdictResult.read(paths["verdict"])
    passed = verdict.servers[0].passes["at the limit"].rule
    low, high = share_interval(passed, of=verdict.runs)
    assert f"{passed:.2%} ({low:.2%} to {high:.2%})" in page.text
    assert "a <processor>, 2 cores" in page.text
    assert "seed 0" in page.text


@pytest.mark.parametrize("kinds", [*combinations(SECTIONS, 1), *combinations(SECTIONS, 2)], ids="+".join)
def test_any_subset_of_files_makes_a_page_of_its_parts(paths: dict[str, Path], kinds: tuple[str, ...]) -> None:
    page = page_of([paths[kind] for kind in kinds])
    sections = {attributes["id"] for attributes in page.all("section") if "id" in attributes}
    assert sections == ALWAYS.union(*(SECTIONS[kind] for kind in kinds)) | (
        {"rates"} if {"gate", "capacity"} <= set(kinds) else set()
    )
    links = {str(attributes["href"])[1:] for attributes in page.all("a")}
    assert links == sections


def test_a_missed_target_and_a_peer_that_was_left_out_are_said(tmp_path: Path, paths: dict[str, Path]) -> None:
    efficiency = EfficiencyResult.read(paths["efficiency"])
    efficiency.model_copy(update={"targets": {"fused": 9.0}}).write(tmp_path / "efficiency.json")
    peers = PeersResult.read(paths["peers"])
    peers.model_copy(update={"left_out": {"ray": "GateError: it did not start\nits log"}}).write(
        tmp_path / "peers.json"
    )
    page = page_of([tmp_path / "efficiency.json", tmp_path / "peers.json"])
    assert "target missed" in page.text
    assert "ray was left out: GateError: it did not start" in page.text


@pytest.mark.parametrize("text", ['{"good": 1}', "[1]", "7"])
def test_a_file_of_an_unknown_kind_is_told_the_kinds_there_are(tmp_path: Path, text: str) -> None:
    path = tmp_path / "soak.json"
    path.write_text(text)
    with pytest.raises(SpecError, match=r"soak.json: not a result file of a known kind") as error:
        read_files([path])
    assert all(kind in str(error.value) for kind in SHOWN)


def test_a_file_that_lacks_a_figure_or_is_no_json_is_named(tmp_path: Path, paths: dict[str, Path]) -> None:
    broken, text = tmp_path / "gate.json", json.loads(paths["gate"].read_text())
    del text["blocks"][0]["histogram"]
    broken.write_text(json.dumps(text))
    with pytest.raises(SpecError, match=r"gate.json: blocks.0.histogram: required"):
        read_files([broken])
    broken.write_text("{")
    with pytest.raises(SpecError, match=r"gate.json: not valid JSON"):
        read_files([broken])
    with pytest.raises(SpecError, match="cannot be read"):
        read_files([tmp_path / "missing.json"])
    with pytest.raises(SpecError, match="given twice"):
        read_files([paths["gate"], paths["gate"]])


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("before", "after"):
        (tmp_path / folder).mkdir()
        made.gate().write(tmp_path / folder / "gate.json")
    files = read_files([tmp_path / "before/gate.json", tmp_path / "after/gate.json"])
    assert [file.name for file in files] == ["before/gate.json", "after/gate.json"]


def test_what_must_not_be_published_says_so_and_what_failed_is_red(paths: dict[str, Path]) -> None:
    files = read_files([paths["busy"], paths["gate"], paths["peers"]])
    busy, gate, peers = cards(files, [])
    assert (busy.tone, busy.verdict, gate.tone, peers.verdict) == ("bad", "fail", "good", "")
    text = page_of([paths["busy"], paths["gate"], paths["perf_analyzer"]]).text
    assert "3 distinct images; publication takes 256 or more" in text
    assert "not interleaved" in text
    assert "2 kinds of machine" in text
    assert "accuracy not given" in text


def test_the_line_of_the_tail_goes_through_the_percentiles(paths: dict[str, Path]) -> None:
    (one,) = all_series(read_files([paths["gate"]]))
    shares, values_ms = tail(one)
    assert (np.diff(shares) >= 0).all()
    assert (np.diff(values_ms) >= 0).all()
    for share, ms in ((0.5, one.latency.p50_ms), (0.9, one.latency.p90_ms), (0.99, one.latency.p99_ms)):
        assert np.interp(share, shares, values_ms) == pytest.approx(ms, rel=0.01)
    assert shares[-1] == pytest.approx(one.requests / (one.requests + 1))
    assert values_ms[-1] == pytest.approx(one.latency.max_ms, rel=0.01)
    drawings = Page(render(read_files([paths["gate"]]))).drawings
    drawing = drawings["Latency in ms by percentile; the numbers are in the table below"]
    assert [text for text in drawing if text.startswith("P")] == ["P50", "P90", "P99", "P99.9"]
    assert "limit 50 ms" in drawing


def test_the_rates_are_those_that_were_tried_and_the_band_holds_the_capacity(paths: dict[str, Path]) -> None:
    files = read_files([paths["gate"], paths["busy"], paths["capacity"]])
    found, capacity = rates(files), made.capacity()
    assert found is not None
    gates, search = found.ladders
    assert [rate.rate_per_s for rate in gates.rates] == [50.0, 150.0]
    assert sorted(rung.rate_per_s for rung in capacity.rungs) == [rate.rate_per_s for rate in search.rates]
    assert sum(rate.whole for rate in search.rates) == sum(rung.confirms for rung in capacity.rungs)
    ((low, high),) = found.intervals
    assert low == capacity.passed_per_s < high == capacity.not_passed_per_s
    for rate in search.rates:
        assert f"<title>{rate.rate_per_s:.1f}/s: P99 {figures(rate.p99_ms)} ms; {rate.says}</title>" in found.chart


def test_a_page_loads_nothing_and_runs_nothing(paths: dict[str, Path]) -> None:
    page = Page(render(read_files(list(paths.values()))))
    page.assert_loads_and_runs_nothing()
    assert "nan" not in page.markup.lower().split()


def test_words_of_files_are_text_whatever_they_say(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>{{ 7 * 7 }}'
    made.gate(model=evil).model_copy(update={"server": evil, "caveats": (evil,)}).write(tmp_path / "<b>.json")
    page = page_of([tmp_path / "<b>.json"])
    assert not page.all("script")
    assert not page.all("b")
    assert page.text.count(evil) >= 3


def test_equal_files_give_equal_pages(paths: dict[str, Path]) -> None:
    first, second = (render(read_files(list(paths.values())), price=PRICE) for _ in range(2))
    assert first == second


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert share_interval(0.0, of=100) == pytest.approx((0.0, 0.0370), abs=1e-4)
    assert share_interval(0.5, of=100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
