"""How often the verdict passes what it should not, and what it should; benchmarks/verdict.py with fewer runs."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest

from slipway.benchmark.statistics import requests_to_pass

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "verdict.py"
RUNS, REQUESTS = 400, 700


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("verdict_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def passes(script):
    """`passes(server, utilisation)`: the shares of 400 runs of three blocks of 700 that pass."""

    def passes(server, utilisation=None):
        (workload,) = (w for w in script.workloads() if (w.name, w.utilisation) == (server, utilisation))
        entry = script.judged(workload, runs=RUNS, requests=REQUESTS, seed=7, long_blocks=8)
        return {place: rules["rule"] for place, rules in entry["passes"].items()}

    return passes


def test_the_simulated_queue_is_the_one_of_the_books(script):
    """The time in an M/M/1 queue is exponential with the mean 1 / (1 - utilisation)."""
    simulate = script.queue(0.5, exponential_service=True)
    latencies = simulate(np.random.default_rng(0), (8, 250_000))[:, 10_000:]
    assert latencies.mean() == pytest.approx(2, rel=0.02)
    assert np.quantile(latencies, 0.99) == pytest.approx(2 * math.log(100), rel=0.02)


@pytest.mark.parametrize("utilisation", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("server", ["M/D/1", "M/M/1"])
def test_a_queue_whose_p99_is_the_limit_passes_at_most_5_percent_of_the_time(passes, server, utilisation):
    assert passes(server, utilisation)["at the limit"] <= 0.05


def test_independent_latencies_pass_1_percent_of_the_time_at_the_limit_and_nearly_always_20_percent_under_it(passes):
    shares = passes("independent")
    assert shares["at the limit"] <= 0.01
    assert shares["20 % under"] >= 0.8


def test_a_queue_with_half_the_limit_passes(passes):
    assert passes("M/D/1", 0.3)["half of it"] >= 0.9


def test_blocks_alone_would_pass_a_busy_queue_too_often(script):
    """Why requests are counted as what they are worth: MLPerf's rule takes them as independent."""
    rng, simulate = np.random.default_rng(7), script.queue(0.8, exponential_service=False)
    p99 = np.quantile(simulate(rng, (8, 250_000))[:, 10_000:], 0.99)
    over_limit = (simulate(rng, (RUNS, 3, 100 + REQUESTS))[..., 100:] > p99).sum(axis=-1)
    assert requests_to_pass(1) <= REQUESTS < requests_to_pass(2)
    assert (over_limit <= 1).all(axis=-1).mean() > 0.15


def test_the_script_writes_its_result_and_prints_every_server(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "UTILISATIONS", (0.3,))
    out = tmp_path / "verdict.json"
    assert script.main(script.parser().parse_args(["--runs", "20", "--out", str(out), "--json"])) == 0
    result = json.loads(out.read_text())
    assert [(entry["server"], entry["utilisation"]) for entry in result["servers"]] == [
        ("independent", None),
        ("M/D/1", 0.3),
        ("M/M/1", 0.3),
    ]
    assert result["runs"] == 20
    assert {"seed", "versions", "commit", "machine"} <= result.keys()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert json.loads(lines[-1]) == {"out": str(out), "verdict": "pass"}
