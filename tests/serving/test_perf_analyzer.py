"""The real perf_analyzer against a real, hardened server: the ensemble and every step, on what each really gets."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram

from slipway.benchmark.perf_analyzer_inputs import driven_models
from slipway.contract import ServingError
from slipway.contract.evidence.latency import PerfAnalyzerResult
from tests.support.colours import configs
from tests.support.load_tools import colour_images, install_perf_analyzer
from tests.support.scripts import ROOT, run_script

EXAMPLE = ROOT / "model_repository/example"
BUNDLE = (EXAMPLE / "colours/1/bundle.txt").read_text().strip()
Run = Callable[..., CompletedProcess[str]]


def steps(ensemble: str) -> list[str]:
    return [step.model_name for step in configs(EXAMPLE)[ensemble].ensemble_scheduling.step]


@pytest.fixture(scope="module", autouse=True)
def installed() -> str:
    return install_perf_analyzer()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return colour_images(tmp_path / "images")


@pytest.fixture
def run(example_server: Any, images: Path, tmp_path: Path) -> Run:
    """`run(option, ...)` is the script's run on the example's `colours`."""

    def run(*options: str | Path, model: str = "colours", url: str = example_server.grpc_url) -> CompletedProcess[str]:
        command = ("benchmarks/perf_analyzer.py", model, "--images", images, "--url", url)
        return run_script(*command, *options, cwd=tmp_path, check=False)

    return run


def test_the_make_target_makes_the_wheels_binary_start(installed: str) -> None:
    assert installed.startswith("Perf Analyzer Version 2.51.0")


def test_the_ensemble_and_every_step_are_measured_in_a_closed_loop(run: Run, tmp_path: Path) -> None:
    short = ("--duration-s", "1", "--warm-up-s", "0.3")
    done = run("--concurrency", "2", *short, "--out", tmp_path / "result.json", "--json")
    assert done.returncode == 0, done.stderr
    result = PerfAnalyzerResult.read(tmp_path / "result.json")
    assert json.loads(done.stdout.splitlines()[-1]) == json.loads(result.to_json())
    assert [model_run.model for model_run in result.runs] == ["colours", *steps("colours")]
    assert (result.bundle, result.distinct_images) == (BUNDLE, 9)
    for model_run in result.runs:
        assert model_run.requests > 10
        assert 0 < model_run.p50_us <= model_run.p90_us <= model_run.p99_us
        assert model_run.throughput_per_s > 5
        assert model_run.compute_infer_us > 0
    ensemble = result.runs[0]
    assert result.latency.p50_ms == pytest.approx(ensemble.p50_us / 1000, rel=0.02)
    assert HdrHistogram.decode(result.histogram).get_total_count() == ensemble.requests
    assert "closed loop" in result.caveats[0]
    assert "closed loop" in done.stdout


def test_poisson_arrivals_come_at_the_rate_that_was_asked_for(run: Run) -> None:
    done = run("--rate", "80", "--duration-s", "1", "--warm-up-s", "0", "--json", model="colours_full")
    assert done.returncode == 0, done.stderr
    result = PerfAnalyzerResult.parse(json.loads(done.stdout.splitlines()[-1]), source="test")
    assert "actual send" in result.caveats[0]
    assert [model_run.model for model_run in result.runs] == ["colours_full", *steps("colours_full")]
    for model_run in result.runs:
        assert model_run.throughput_per_s == pytest.approx(80, rel=0.5)  # its own seed, and few arrivals


def test_an_image_that_is_refused_is_named_before_anything_is_measured(run: Run, images: Path) -> None:
    (images / "cut.jpg").write_bytes((images / "red0.jpg").read_bytes()[:-100])
    done = run("--concurrency", "1")
    assert done.returncode == 1
    assert "'colours' refuses 1 of 10 images (STATUS [3])" in done.stderr


def test_a_server_or_model_that_is_not_there_is_said_with_the_command_that_starts_one(example_server: Any) -> None:
    for url, model in ((example_server.grpc_url, "shapes"), ("127.0.0.1:9", "colours")):
        with pytest.raises(ServingError, match=f"{url}, model '{model}': .*: slipway serve"):
            driven_models(url, model=model, images=[b""])


def test_a_step_is_no_ensemble(example_server: Any) -> None:
    step = steps("colours")[-1]
    with pytest.raises(ServingError, match=f"'{step}' is not an ensemble"):
        driven_models(example_server.grpc_url, model=step, images=[b""])
