"""What a million images cost: the arithmetic, what it may be said of, and the accuracy beside it."""

import json
import shutil
from pathlib import Path

import pytest

from slipway.benchmark.page import Accuracy, Priced, Prices, cost_lines, costs, read_files, render
from slipway.contract import Bundle, ManifestError, SpecError
from slipway.contract.prices import cost_per_million
from slipway.pages.wording import figures
from tests.support import benchmark_results as made
from tests.support.report_builds import Page, add_engine, evidence, make_bundle
from tests.support.scripts import run_here

PRICES = Path(__file__).parents[2] / "src/slipway/cli/prices.yaml"
SCRIPT = "speed"
PRICE = Priced("An example.", 0.36, "USD", cores=None)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return made.write_all(tmp_path_factory.mktemp("results"))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    bundle = make_bundle(tmp_path)
    add_engine(bundle, "openvino-int8", evidence(bundle, wrong=[3]))
    return bundle


def test_a_t4_at_100_images_a_second_costs_what_the_formula_says() -> None:
    assert cost_per_million(0.526, images_per_s=100) == pytest.approx(1.4611, abs=1e-4)
    assert cost_per_million(0.36, images_per_s=100) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("value", "text"), [(1.4611, "1.5"), (0.0214, "0.021"), (0.996, "1.0"), (146.1, "150"), (12345, "12,000"), (0, "0")]
)
def test_a_cost_has_two_figures(value: float, text: str) -> None:
    assert figures(value, 2) == text


def test_only_a_rate_that_was_shown_has_a_cost(paths: dict[str, Path]) -> None:
    files = read_files([paths[name] for name in ("gate", "busy", "capacity", "perf_analyzer", "verdict")])
    gate, busy, capacity = costs(files, [], PRICE, utilisation=0.4)
    assert gate.per_million == pytest.approx(2.0)
    assert gate.per_million_in_use == pytest.approx(5.0)
    assert "the capacity may be higher" in gate.basis
    assert (busy.images_per_s, busy.per_million) == (None, None)
    passed_per_s = json.loads(paths["capacity"].read_text())["passed_per_s"]
    assert capacity.per_million == pytest.approx(0.36 / (passed_per_s * 3600) * 1e6)
    assert "the client used 0.10 of the cores" in capacity.caveats[0]
    lines = "\n".join(cost_lines([gate, busy], PRICE, utilisation=0.4))
    assert "gate.json: 2.0 USD at 50.0 images/s, 5.0 if busy for 40% of the time" in lines
    assert "busy.json: no rate was shown to hold the limit, so the cost is unknown" in lines


def test_a_price_of_another_machine_is_said_to_be_one(paths: dict[str, Path]) -> None:
    price = Priced("", 1.0, "USD", cores=96)
    (cost,) = costs(read_files([paths["gate"]]), [], price, utilisation=1.0)
    assert cost.caveats[0].startswith("the price is for 96 cores, but ")


def test_the_table_of_prices_says_that_it_is_to_be_edited() -> None:
    prices = Prices.read(PRICES)
    assert "EDIT ME" in PRICES.read_text()
    assert "edit src/slipway/cli/prices.yaml" in prices.row("cpu-2").about
    with pytest.raises(SpecError, match=r"the valid names are cpu-2, .*g4dn.xlarge"):
        prices.row("abacus")


def test_the_accuracy_of_the_engine_stands_beside_its_speed(tmp_path: Path, bundle: Bundle) -> None:
    made.gate(bundle=bundle.id).write(tmp_path / "gate.json")
    accuracy = Accuracy.open(tmp_path / "engines/openvino-int8")
    files = read_files([tmp_path / "gate.json"])
    (cost,) = costs(files, [accuracy], PRICE, utilisation=0.5)
    assert cost.top1 == pytest.approx(119 / 120)
    assert cost.accuracy == (
        "99.17% top-1 of 120 test images, 0.83 points less than FP32 (openvino-int8, arithmetic f32)"
    )
    text = Page(render(files, accuracies=[accuracy], price=PRICE)).text
    assert text.count(cost.accuracy) == 2
    assert "not given" not in text


def test_an_engine_without_an_evaluation_or_with_a_changed_one_has_no_accuracy(tmp_path: Path, bundle: Bundle) -> None:
    add_engine(bundle, "tensorrt_rtx-int8", None)
    with pytest.raises(ManifestError, match="not evaluated"):
        Accuracy.open(tmp_path / "engines/tensorrt_rtx-int8")
    changed = tmp_path / "engines/openvino-int8/evaluation.json"
    changed.write_text(changed.read_text().replace("0.99", "1.00"))
    with pytest.raises(ManifestError, match="changed since"):
        Accuracy.open(changed.parent)


def test_the_script_writes_the_page_and_one_line(tmp_path: Path, bundle: Bundle, paths: dict[str, Path]) -> None:
    made.gate(bundle=bundle.id).write(tmp_path / "gate.json")
    shutil.copyfile(paths["efficiency"], tmp_path / "efficiency.json")
    line = ("gate.json", "efficiency.json", "--engine", "engines/openvino-int8", "--price", "cpu-2", "--out", "r.html")
    done = run_here(SCRIPT, *line, "--json", cwd=tmp_path)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["verdicts"] == {"gate.json": "pass", "efficiency.json": "target missed"}
    assert said["costs"][0]["per_million"] == pytest.approx(0.5)
    assert "gate.json: 0.50 USD at 50.0 images/s, 1.0 if busy for 50% of the time; 99.17% top-1" in done.stdout
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("gate.json --engine engines/openvino-int8", 1, "belongs to bundle"),
        ("gate.json --price abacus", 1, "unknown price 'abacus'; the valid names are cpu-2"),
        ("gate.json --price-per-hour 0", 2, "use one above 0"),
        ("gate.json --utilisation 1.5", 2, "give a share above 0 and up to 1"),
        ("engines/openvino-int8/evaluation.json", 1, "not a result file of a known kind"),
    ],
)
def test_what_cannot_be_shown_leaves_no_page(tmp_path: Path, bundle: Bundle, line: str, code: int, says: str) -> None:
    made.gate().write(tmp_path / "gate.json")
    done = run_here(SCRIPT, *line.split(), "--out", "r.html", cwd=bundle.path.parent, check=False)
    assert done.returncode == code
    assert says in done.stderr
    assert not (tmp_path / "r.html").exists()
