"""`slipway plan-fleet`: the rule of a cell, packing and its bound, what was measured, and input that is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from slipway.contract.evidence.studies import EfficiencyResult
from slipway.contract.fleet import Fleet
from slipway.errors import SpecError
from slipway.operations.planning.bound import bound
from slipway.operations.planning.cells import Cell, boxes_for, cell_of, offers_of
from slipway.operations.planning.demand import Demand
from slipway.operations.planning.fleet_plan import FleetPlan, plan_fleet, plan_loads
from slipway.operations.planning.measured import Capacity, MeasuredFigures, Memory, read_measured
from slipway.operations.planning.plan_text import plan_lines
from slipway.operations.planning.workload import Load
from tests.support.scripts import run_here

RESULTS = Path(__file__).parents[2] / "benchmarks/results"
BOX = {"cores": 2, "memory_gib": 8, "per_hour": 0.09, "as_of": "2026-01-01"}


def demand(**changed) -> Demand:
    return Demand.parse({"machines": {"box": BOX}} | changed, source="demand.yaml")


def load(name="a", *, peak=10.0, held=100.0, processor_ms=8.0, mib=100.0, cores=2) -> Load:
    memory = Memory(0.0, mib, "made")
    figures = MeasuredFigures("made", (Capacity(held, 50.0, cores, processor_ms, "made"),), memory)
    return Load(name, None, peak / 4, peak, figures, memory)


def gate_file(path: Path, *, rate=94.0, model="digits", cores=2, with_pid=True, limit_ms=50.0, cpu_cores=0.5) -> str:
    """A published result of the gate, with another rate or machine."""
    found = json.loads((RESULTS / "digits-int8-cpu.json").read_text())
    found["options"] |= {"rate_per_s": rate, "model": model, "limit_ms": limit_ms}
    found["machine"]["cores"] = cores
    found["server_use"] = {**found["server_use"], "cpu_cores": cpu_cores} if with_pid else None
    path.write_text(json.dumps(found))
    return path.name


def plan(tmp_path: Path, fleet: dict, given: dict) -> FleetPlan:
    return plan_fleet(
        Fleet.parse(fleet, source="fleet.yaml"),
        Demand.parse({"machines": {"box": BOX}} | given, source="demand.yaml"),
        root=tmp_path,
        measured_root=tmp_path,
    )


DIGITS = {"classifiers": {"digits": {"active": "runs/digits"}}}


@pytest.mark.parametrize(
    ("share", "n_plus_one", "boxes"),
    [
        (0.1, False, 1),
        (0.7, False, 1),
        (0.71, False, 2),
        (0.1, True, 2),
        (1.0, True, 2),
        (1.01, True, 3),
        (7, True, 10),
    ],
)
def test_boxes_keep_their_head_room_and_one_may_fail(share, n_plus_one, boxes):
    assert boxes_for(share, demand(n_plus_one=n_plus_one)) == boxes


def test_shares_of_equal_classifiers_add_up():
    loads = [load(str(n), peak=30) for n in range(4)]
    cell = cell_of(offers_of(loads, demand())[0], loads, range(4))
    assert cell is not None
    assert cell.share == pytest.approx(1.2)
    assert cell.memory_mib == 400


def test_a_box_is_as_busy_as_its_most_sensitive_classifier_may_be():
    """One holds 100/s at 40 % of the processor, the other 25/s at 20 %: half of each is 0.5 * 2 + 0.5 shares of it."""
    loads = [load("a", peak=50, held=100, processor_ms=8), load("b", peak=12.5, held=25, processor_ms=16)]
    cell = cell_of(offers_of(loads, demand())[0], loads, [0, 1])
    assert cell is not None
    assert cell.share == pytest.approx(0.5 * 0.4 / 0.2 + 0.5)


def test_loads_of_unknown_processor_time_share_no_box():
    loads = [load("a", processor_ms=None), load("b", held=50.0)]
    offers = offers_of(loads, demand())
    assert cell_of(offers[0], loads, [0, 1]) is None
    found = plan_loads(loads, demand())
    assert len(found.cells) == 2
    assert "the processor time of an image was not measured" in found.notes[-1]


@pytest.mark.parametrize(
    "seed", [0, 1, 2, 4, *(pytest.param(n, marks=pytest.mark.nightly) for n in (3, *range(5, 12)))]
)
def test_a_plan_places_every_load_once_within_memory_and_above_its_bound(seed):
    rng = np.random.default_rng(seed)
    loads = [
        load(
            str(n),
            peak=rng.exponential(20) + 0.1,
            held=rng.uniform(40, 120),
            processor_ms=rng.uniform(4, 12),
            mib=rng.uniform(50, 2500),
        )
        for n in range(int(rng.integers(1, 15)))
    ]
    wanted = demand(
        n_plus_one=bool(seed % 3), machines={"small": BOX, "large": BOX | {"memory_gib": 32, "per_hour": 0.14}}
    )
    found = plan_loads(loads, wanted)
    assert sorted(one.name for cell in found.cells for one in cell.loads) == sorted(one.name for one in loads)
    for cell in found.cells:
        assert cell.memory_mib <= cell.memory_usable_mib + 1e-6
        assert cell.share_of_box <= 0.7 + 1e-9
        assert not wanted.n_plus_one or (cell.share_of_box_one_down or 0) <= 1 + 1e-9
    assert found.least_per_hour == pytest.approx(bound(loads, offers_of(loads, wanted)))
    assert 0 < found.least_per_hour <= found.per_hour * 1.0001


def test_memory_that_fills_boxes_divides_a_fleet_into_cells():
    loads = [load(str(n), peak=0.1, mib=2000) for n in range(6)]
    found = plan_loads(loads, demand())
    assert [(cell.boxes, cell.bottleneck) for cell in found.cells] == [(2, "memory")] * 3
    assert found.boxes * 0.09 == pytest.approx(found.per_hour) == pytest.approx(found.least_per_hour)


@pytest.mark.parametrize("count", [50, 1000])
def test_the_work_of_a_plan_grows_with_loads_times_cells(count, monkeypatch):
    taken, take = [], Cell.take
    monkeypatch.setattr(Cell, "take", lambda cell, place: bool(taken.append(place)) or take(cell, place))
    rng = np.random.default_rng(0)
    loads = [load(str(n), peak=float(rng.exponential(2)), mib=51) for n in range(count)]
    found = plan_loads(loads, demand())
    assert len(taken) < 30 * count * len(found.cells)
    assert sum(len(cell.loads) for cell in found.cells) == count
    assert found.per_hour / found.least_per_hour < 1.1


def test_the_figures_of_every_kind_of_result_are_read():
    search = read_measured(RESULTS / "digits-capacity-cpu.json")
    assert search.capacities[0].per_s == pytest.approx(94.11, abs=0.01)
    assert search.capacities[0].processor_ms == pytest.approx(1000 * 0.7369 / 91.815, rel=1e-3)
    assert search.memory is not None
    assert search.memory.each_mib == pytest.approx(602.9, abs=0.1)
    assert read_measured(RESULTS / "digits-int8-cpu.json").capacities[0].per_s == 50
    assert read_measured(RESULTS / "tuning.json").capacities[0].per_s == pytest.approx(10 * 1.1**38)
    heads = read_measured(RESULTS / "density.json")
    assert heads.memory is not None
    assert heads.memory.shared_mib + 1000 * heads.memory.each_mib == pytest.approx(808.2, abs=0.1)
    fifty = read_measured(RESULTS / "fifty.json").memory
    assert fifty is not None
    assert fifty.shared_mib + 50 * fifty.each_mib == pytest.approx(2746.2, abs=0.1)


def of_one_network(folder: Path) -> Path:
    """What the study writes of one's own classifier on an Intel; the published file has several networks."""
    efficiency = EfficiencyResult.read(RESULTS / "efficiency.json")
    name = "mobilenetv3_large_100"
    machine = efficiency.machine.model_copy(update={"cpu": "Intel(R) Xeon(R)"})
    changed = {"machine": machine, "classifiers": {name: efficiency.classifiers[name]}}
    efficiency.model_copy(update=changed).write(folder / "one.json")
    return folder / "one.json"


def test_a_result_of_efficiency_must_be_of_one_network(tmp_path):
    found = read_measured(of_one_network(tmp_path))
    assert found.backbone == "mobilenetv3_large_100"
    with pytest.raises(SpecError, match="has efficientnet_b0, mobilenetv3_large_100; give a file with one network"):
        read_measured(RESULTS / "efficiency.json")


def test_a_figure_comes_from_the_first_file_that_has_it(tmp_path):
    file = gate_file(tmp_path / "gate.json", with_pid=False)
    merged = read_measured(tmp_path / file).or_else(read_measured(RESULTS / "digits-capacity-cpu.json"), limit_ms=50)
    (capacity,) = merged.capacities
    assert capacity.per_s == 94.0
    assert capacity.processor_ms == pytest.approx(8.03, abs=0.01)
    assert merged.memory is not None


def test_a_figure_of_a_laxer_limit_hides_none_of_the_wanted_one(tmp_path):
    files = [gate_file(tmp_path / "lax.json", rate=200, limit_ms=100), gate_file(tmp_path / "strict.json", rate=94)]
    for order in (files, files[::-1]):
        found = plan(tmp_path, DIGITS, {"each": {"mean": 1, "peak": 2, "measured": order}})
        assert found.cells[0].loads[0].capacity_per_s == 94


def test_a_processor_time_of_0_is_an_unmeasured_one(tmp_path):
    files = [gate_file(tmp_path / "a.json", cpu_cores=0), gate_file(tmp_path / "b.json", rate=50, cpu_cores=0)]
    two = {"classifiers": {name: {"active": f"runs/{name}"} for name in ("digits", "letters")}}
    rates = {
        name: {"mean": 1, "peak": 2, "measured": [file]}
        for name, file in zip(("digits", "letters"), files, strict=True)
    }
    found = plan(tmp_path, two, {"classifiers": rates})
    assert [load.processor_ms for cell in found.cells for load in cell.loads] == [None, None]
    assert any("the processor time of an image was not measured" in note for note in found.notes)


def test_the_printed_sum_of_the_prices_is_right(tmp_path):
    boxes = {"machines": {"box": BOX | {"per_hour": 0.0123}}}
    found = plan(
        tmp_path, DIGITS, boxes | {"each": {"mean": 1, "peak": 2, "measured": [gate_file(tmp_path / "a.json")]}}
    )
    assert any(line.startswith("cost: 2 x 0.0123 = 0.0246 USD an hour") for line in plan_lines(found))


def test_figures_of_several_processors_get_a_note(tmp_path):
    files = [str(of_one_network(tmp_path)), str(RESULTS / "fifty.json")]
    found = plan(tmp_path, DIGITS, {"each": {"mean": 1, "peak": 2, "measured": files}})
    assert "2 kinds of processor (AMD EPYC, Intel(R)" in found.notes[0]


def test_1000_heads_are_one_load_that_stays_together(tmp_path):
    fleet = {"bases": {"lite0": {"base": "runs/lite0", "heads": {f"h{n}": f"runs/h{n}" for n in range(1000)}}}}
    rates = {"mean": 0.01, "peak": 0.03, "per_head": True, "measured": [str(RESULTS / "density.json")]}
    (cell,) = plan(tmp_path, fleet, {"bases": {"lite0": rates}}).cells
    assert (cell.loads[0].heads, cell.boxes) == (1000, 2)
    assert cell.share == pytest.approx(30 / 34.5227, rel=1e-4)
    assert cell.memory_mib == pytest.approx(808.2, abs=0.1)
    assert cell.ready_s == pytest.approx(7.7, abs=0.1)


def test_what_no_plan_can_be_made_for_is_refused_in_words(tmp_path):
    for given, said in (
        ({"head_room": 0.999999}, "head_room: .* less than or equal to 0.9"),
        ({"machines": {"box": BOX | {"memory_gib": 1e300}}}, "memory_gib: .* less than or equal to 1000000"),
        ({"machines": {"box": BOX | {"per_hour": 1e300}}}, "per_hour: .* less than or equal to 1000000000"),
        (
            {"each": {"mean": 1, "peak": 2, "measured": "gate.json"}},
            r"each.measured: a list is needed, such as \[a, b\]",
        ),
    ):
        with pytest.raises(SpecError, match=said):
            demand(**given)
    for name, content in (("cut.json", b"{"), ("binary.json", b"\xff")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SpecError, match=rf"{name}: not .*; give one written by slipway gate"):
            read_measured(tmp_path / name)


def test_evidence_of_tune_that_lacks_a_key_or_a_rate_is_named(tmp_path):
    found = json.loads((RESULTS / "tuning.json").read_text())
    for key, said in (("options", "options.model: "), ("rungs", "slipway tune compared no rates; measure one")):
        (tmp_path / "tuning.json").write_text(json.dumps(found | {key: {}}))
        with pytest.raises(SpecError, match=rf"tuning.json: {said}"):
            read_measured(tmp_path / "tuning.json")


def test_prices_beside_which_rounding_is_nothing_end(tmp_path):
    rates = {"mean": 1, "peak": 1_000_000, "measured": [gate_file(tmp_path / "gate.json")]}
    given = {"machines": {"box": BOX | {"per_hour": 1e9}}, "classifiers": {"digits": rates}}
    (cell,) = plan(tmp_path, DIGITS, given).cells
    assert cell.boxes > 10_000


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({"mean": 0, "peak": 1}, "greater than 0"),
        ({"mean": -1, "peak": 1}, "greater than 0"),
        ({"mean": 1, "peak": float("nan")}, "finite number"),
        ({"mean": 1, "peak": float("inf")}, "finite number"),
        ({"mean": 1, "peak": 1e308}, "less than or equal to 1000000"),
        ({"mean": 5, "peak": 1}, "peak 1 is below mean 5"),
        ({"mean": 1}, "required"),
    ],
)
def test_rates_that_are_none_are_refused(tmp_path, rates, said):
    with pytest.raises(SpecError, match=said):
        plan(tmp_path, DIGITS, {"classifiers": {"digits": rates}})


def test_names_that_the_fleet_lacks_and_rates_that_the_demand_lacks_are_refused(tmp_path):
    rates = {"mean": 1, "peak": 2, "measured": [gate_file(tmp_path / "gate.json")]}
    with pytest.raises(SpecError, match="letters: not in the fleet file, whose classifiers are digits"):
        plan(tmp_path, DIGITS, {"classifiers": {"digits": rates, "letters": rates}})
    with pytest.raises(SpecError, match="no rates of digits; add them, or each"):
        plan(tmp_path, DIGITS, {})
    with pytest.raises(SpecError, match="names neither classifiers nor bases"):
        plan(tmp_path, {"classifiers": {}}, {})
    with pytest.raises(SpecError, match="on a GPU"):
        plan(tmp_path, DIGITS | {"lane": "gpu"}, {"each": rates})
    heads = {"bases": {"lite0": {"base": "runs/lite0", "heads": {"pets": "runs/pets"}}}}
    with pytest.raises(SpecError, match="give the rates of heads under bases"):
        plan(tmp_path, heads, {"classifiers": {"pets": rates}})
    with pytest.raises(SpecError, match="finds no run"):
        plan(tmp_path, {"bases": {"b": {"base": "b", "heads": "none/*"}}}, {"bases": {"b": rates}})


def test_what_nobody_measured_is_an_error_with_the_command_that_measures_it(tmp_path):
    command = "slipway gate digits --images FOLDER --find-capacity --limit-ms 50 --pid PID"
    rates = {"mean": 1, "peak": 2}
    with pytest.raises(SpecError, match="names no result file"):
        plan(tmp_path, DIGITS, {"each": rates})
    other = gate_file(tmp_path / "four.json", cores=4)
    with pytest.raises(
        SpecError, match=r"on box .2 cores. was not measured .measured: 94\.0/s within 50 ms on 4 cores"
    ) as raised:
        plan(tmp_path, DIGITS, {"each": rates | {"measured": [other]}})
    assert command in str(raised.value)
    blind = gate_file(tmp_path / "blind.json", with_pid=False)
    with pytest.raises(SpecError, match="its memory was not measured") as raised:
        plan(tmp_path, DIGITS, {"each": rates | {"measured": [blind]}})
    assert command in str(raised.value)
    strict = {"limit_ms": 20, "each": rates | {"measured": [gate_file(tmp_path / "gate.json")]}}
    with pytest.raises(SpecError, match="within 20 ms"):
        plan(tmp_path, DIGITS, strict)
    for name, text in {"not.json": "{}", "broken.json": "{"}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(SpecError, match=name):
            plan(tmp_path, DIGITS, {"each": rates | {"measured": [name]}})
    with pytest.raises(SpecError, match="cannot be read"):
        plan(tmp_path, DIGITS, {"each": rates | {"measured": ["absent.json"]}})


def test_cores_scale_only_if_the_demand_says_so(tmp_path):
    rates = {"mean": 10, "peak": 100, "measured": [gate_file(tmp_path / "gate.json")]}
    large = {"machines": {"large": BOX | {"cores": 8, "per_hour": 0.36}}, "each": rates}
    with pytest.raises(SpecError, match="or set scale_by_cores: true"):
        plan(tmp_path, DIGITS, large)
    found = plan(tmp_path, DIGITS, large | {"scale_by_cores": True})
    assert found.cells[0].loads[0].capacity_per_s == 4 * 94
    assert "which was not measured" in found.cells[0].loads[0].capacity_from
    assert any("assumption" in note for note in found.notes)


def test_a_classifier_that_fits_on_no_machine_is_named_with_what_it_needs():
    with pytest.raises(SpecError, match=r"huge: needs 9,000 MiB.*offer a machine of 12\.6 GiB"):
        plan_loads([load("small"), load("huge", mib=9000)], demand())


def test_figures_of_another_backbone_are_refused(tmp_path):
    spec = tmp_path / "runs/lite0/base/spec.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"name": "lite0", "images": "photos", "backbone": {"name": "resnet50"}}))
    fleet = {"bases": {"lite0": {"base": "runs/lite0", "heads": {"pets": "runs/pets"}}}}
    rates = {"mean": 1, "peak": 2, "measured": [str(RESULTS / "density.json")]}
    with pytest.raises(SpecError, match=r"backbone is resnet50, but .* measured tf_efficientnet_lite0"):
        plan(tmp_path, fleet, {"bases": {"lite0": rates}})


def test_the_verb_prints_the_plan_and_its_json(tmp_path):
    gate_file(tmp_path / "gate.json")
    (tmp_path / "fleet.yaml").write_text("classifiers: {digits: {active: runs/digits}}\n")
    (tmp_path / "demand.yaml").write_text(
        "machines: {cpu-2: {cores: 2, memory_gib: 8, per_hour: 0.09, as_of: 2026-01-01}}\n"
        "classifiers: {digits: {mean: 20, peak: 60, measured: [gate.json]}}\n"
    )
    out = run_here("plan-fleet", "fleet.yaml", "demand.yaml", "--json", cwd=tmp_path).stdout.splitlines()
    assert out[0].startswith("2 boxes: 2 x cpu-2; for 60.0 images/s at peak")
    found = json.loads(out[-1])
    assert found["boxes"] == 2
    assert found["per_million"] == pytest.approx(0.18 / (20 * 3600) * 1e6)
    assert FleetPlan.parse(found, source="--json").plain() == found


def test_a_note_says_where_a_layout_is_not_the_measured_one(tmp_path):
    rates = {"mean": 1, "peak": 2, "measured": [str(RESULTS / "tuning.json"), gate_file(tmp_path / "gate.json")]}
    two = {"classifiers": {name: {"active": f"runs/{name}"} for name in ("digits", "letters")}}
    found = plan(tmp_path, two, {"each": rates})
    assert any("measured as fused" in note for note in found.notes)
    assert "letters: its figures were measured on digits" in found.notes
    assert any(line.startswith("note: ") for line in plan_lines(found))
