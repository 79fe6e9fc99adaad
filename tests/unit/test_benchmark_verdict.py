"""How often the verdict passes what it should not, and what it should; the study `verdict` with fewer runs."""

import json
import math
from functools import partial

import numpy as np
import pytest

from benchmarks.studies.verdict import __main__ as script
from benchmarks.studies.verdict import simulation
from slipway.benchmark.statistics import requests_to_pass
from slipway.contract.evidence.studies import JudgedServer, RulePasses

RUNS = 60


def judged(server, utilisation=None, *, rate_per_s=50):
    """By where the true P99 is."""
    simulate = partial(simulation.queue, server, utilisation) if utilisation else simulation.independent
    workload = simulation.Workload(server, utilisation, rate_per_s, simulate)
    return simulation.judged(workload, runs=RUNS, seed=7, long_blocks=4).passes


def test_the_simulated_queue_is_the_one_of_the_books():
    """The time in an M/M/1 queue is exponential with the mean 1 / (1 - utilisation)."""
    latencies = simulation.queue("M/M/1", 0.5, np.random.default_rng(0), (8, 250_000))[:, 10_000:]
    assert latencies.mean() == pytest.approx(2, rel=0.02)
    assert np.quantile(latencies, 0.99) == pytest.approx(2 * math.log(100), rel=0.02)


@pytest.mark.parametrize("server", ["M/D/1", "M/M/1", "M/H2/1", "stall in 500"])
def test_services_take_about_one_unit_each(server):
    assert simulation.service_times(server, np.random.default_rng(0), (400_000,)).mean() == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize(("server", "utilisation"), [("M/D/1", 0.95), ("M/M/1", 0.3)])
def test_a_queue_whose_p99_is_the_limit_hardly_ever_passes(server, utilisation):
    assert judged(server, utilisation)["at the limit"].rule <= 0.05  # 3 of 60: a rule at 1 % does so in 99.7 %


def test_independent_latencies_20_percent_under_the_limit_pass_at_the_first_looks():
    shares = judged("independent")
    assert shares["at the limit"].rule <= 0.05
    assert shares["20 % under"].rule == 1
    assert shares["20 % under"].seconds < 90


def test_a_queue_at_70_percent_load_is_decided_where_the_time_is_enough_requests():
    assert judged("M/D/1", 0.7, rate_per_s=150)["20 % under"].rule >= 0.8


def test_blocks_alone_would_pass_a_busy_queue_too_often():
    """MLPerf's rule takes requests as independent, so it needs their effective number."""
    rng, simulate = np.random.default_rng(7), partial(simulation.queue, "M/D/1", 0.8)
    p99 = np.quantile(simulate(rng, (8, 250_000))[:, 10_000:], 0.99)
    over_limit = (simulate(rng, (400, 3, 800))[..., 100:] > p99).sum(axis=-1)
    assert requests_to_pass(1) <= 700 < requests_to_pass(2)
    assert (over_limit <= 1).all(axis=-1).mean() > 0.15


def test_the_script_writes_its_result_and_prints_every_server(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(simulation, "UTILISATIONS", {50: {"M/D/1": (0.3,), "stall in 2000": (0.3,)}})
    out = tmp_path / "verdict.json"
    assert script.main(script.parser().parse_args(["--runs", "2", "--out", str(out), "--json"])) == 0
    result = json.loads(out.read_text())
    servers = [(entry["server"], entry["utilisation"], entry["allowed"]) for entry in result["servers"]]
    assert servers == [("independent", None, 0.01), ("M/D/1", 0.3, 0.01), ("stall in 2000", 0.3, None)]
    assert (result["runs"], result["minutes"], result["requests_per_block"]) == (2, 5, 1000)
    assert {"seed", "versions", "commit", "machine"} <= result.keys()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert json.loads(lines[-1]) == {"out": str(out), "verdict": "pass"}


@pytest.mark.parametrize(
    ("server", "share", "status"), [("stall in 500", 0.07, 0), ("stall in 500", 0.12, 1), ("M/D/1", 0.02, 1)]
)
def test_only_a_new_miss_fails_the_study(tmp_path, monkeypatch, server, share, status):
    passes = {place: RulePasses(rule=share, fails=0.0, seconds=60.0) for place in simulation.LIMIT_BY_P99}
    entry = JudgedServer(server=server, utilisation=0.3, rate_per_s=50, true_p99=1.0, passes=passes, allowed=0.01)
    monkeypatch.setattr(script, "progress", lambda *_: iter([entry]))
    assert script.main(script.parser().parse_args(["--out", str(tmp_path / "verdict.json")])) == status
