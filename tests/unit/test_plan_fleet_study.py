"""The simulation of planned fleets, its published result, and the example of the documentation."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.plan_fleet.__main__ import RESULT, PlanFleetResult, table
from benchmarks.studies.plan_fleet.boxes import Traffic, _divided, _queued, p99_ms, served, shape
from benchmarks.studies.plan_fleet.fleets import SERVICE_MS, capacities, planned, traffic_of
from benchmarks.studies.plan_fleet.single import measured_boxes
from tests.support.scripts import run_here

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/planning.md").read_text(encoding="utf-8")


def test_requests_that_come_together_wait_for_a_core_or_divide_the_cores():
    arrival_ms, work_ms = np.array([[0.0], [1.0], [2.0]]), np.array([[10.0], [10.0], [10.0]])
    assert _queued(arrival_ms, work_ms, 1).ravel().tolist() == [10, 19, 28]
    assert _queued(arrival_ms, work_ms, 2).ravel().tolist() == [10, 10, 18]
    # One alone until 1, two halves until 2, three thirds until the first is done after 1 + 0.5 + 8.5 = 10 of work.
    assert _divided(arrival_ms, work_ms, 1).ravel() == pytest.approx([27.5, 28.5, 28.0])
    assert _divided(arrival_ms, work_ms, 3).ravel() == pytest.approx([10, 10, 10])


@pytest.mark.parametrize("discipline", ["queue", "shared"])
def test_a_box_is_as_busy_as_its_traffic_and_an_idle_one_adds_nothing(discipline):
    traffic = Traffic(np.array([[1.0, 0.0], [60.0, 60.0]]), np.array([[10.0, 1.0], [10.0, 10.0]]), 2)
    answers = served(traffic, np.random.default_rng(0), requests=2000, discipline=discipline)
    assert answers.latency_ms.shape == (2000, 2)
    assert answers.latency_ms[:, 0].mean() == pytest.approx(10, rel=0.05)
    assert answers.latency_ms[:, 1].mean() > 12
    assert (answers.classifier[:, 0] == 0).all()
    assert answers.classifier[:, 1].mean() == pytest.approx(0.5, abs=0.05)


def test_the_shape_of_service_times_has_mean_1_and_a_measured_tail():
    assert np.mean(shape()) == pytest.approx(1)
    assert 1.5 < np.percentile(shape(), 99) < 2.5


def test_a_simulated_fleet_gets_a_plan_and_its_box_a_part_of_the_peak():
    rng = np.random.default_rng(0)
    capacity = capacities(2, rng, requests=4000, discipline="queue")
    assert len(capacity) == len(SERVICE_MS)
    assert capacity[0] > 3 * capacity[-1]
    fleet = planned(2, capacity, rng)
    traffic = traffic_of([fleet], [1 / fleet.boxes])
    assert traffic.rates_per_s.sum() == pytest.approx(fleet.peaks_per_s.sum() / fleet.boxes)
    assert p99_ms(served(traffic, rng, requests=4000, discipline="queue"))[0] < 60
    assert fleet.share >= fleet.plain_share


def published() -> PlanFleetResult:
    return PlanFleetResult.read(RESULT)


def test_the_tables_of_the_documentation_are_the_published_result():
    found = published()
    assert len(list(table(list(found.situations)))) == 1 + len(found.situations)
    for s in found.situations:
        assert (
            f"| `{s.box}` | {s.situation} | {s.within:.1%} | {s.every_classifier_within:.1%} | "
            f"{s.worst_p99_ms_median:.1f} ms | {s.worst_p99_ms_99th:.1f} ms |"
        ) in DOCUMENT
    for box in found.measured:
        assert f"| {box.what} | {box.planned:,.1f} {box.unit} | {box.measured:,.1f} {box.unit} |" in DOCUMENT


def test_what_was_measured_has_not_changed_since():
    """All but the simulated queue, which takes a second."""
    again = {box.what: box for box in measured_boxes(np.random.default_rng(0), requests=1000)}
    for box in published().measured:
        assert again[box.what].measured == pytest.approx(box.measured)
        if "simulated" not in box.what:
            assert again[box.what].planned == pytest.approx(box.planned)


def test_the_example_of_the_documentation_is_what_the_verb_prints(tmp_path):
    blocks = re.findall(r"```(yaml|text)\n(.*?)```", DOCUMENT, re.DOTALL)
    for text in (text for kind, text in blocks if kind == "yaml"):
        (tmp_path / re.match(r"# (\S+)", text)[1]).write_text(text)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    for number in range(300):
        (tmp_path / f"heads/h{number}/bundle").mkdir(parents=True)
    out = run_here("plan-fleet", "fleet.yaml", "demand.yaml", "--json", cwd=tmp_path).stdout
    lines = out.splitlines()
    assert lines[:-1] == next(text for kind, text in blocks if kind == "text").splitlines()
    by_hand = json.loads(lines[-1])
    assert by_hand["boxes"] == 3 + 3
    assert by_hand["per_hour"] == pytest.approx(6 * 0.09)
    assert by_hand["per_month"] == pytest.approx(6 * 0.09 * 730)
    assert by_hand["per_million"] == pytest.approx(6 * 0.09 / (40 * 3600) * 1e6)
