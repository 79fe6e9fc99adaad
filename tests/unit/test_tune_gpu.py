"""`slipway tune` on the gpu lane: what it searches, what it refuses, and how that is written into a fleet file."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway.benchmark.tuning import changed, tune
from slipway.benchmark.tuning_fleet import with_serving
from slipway.cli import tune as script
from slipway.cli import tune_measure
from slipway.contract import Fleet, Lane, ServingError, SpecError, card
from slipway.contract.evidence.latency import rate_at
from slipway.contract.evidence.tuning import NotStarted
from slipway.contract.serving import Serving
from slipway.lint.models import read_models
from slipway.serving import binary
from slipway.serving.doctor import gpu as doctor_gpu
from tests.support.cards import H100
from tests.support.colours import copy_colours
from tests.support.fallbacks import fallback_classifier
from tests.support.plans import stand_in_plan
from tests.support.played_bench import PlayedBench


def known_of_a_gpu(serving: Serving) -> int:
    """The highest rung that the server of a gpu lane like this holds."""
    gpu = serving.gpu
    decoders = {(1, 4): 0, (1, 8): 2, (2, 8): 4}.get((gpu.decode_instances, gpu.decode_threads), 1)
    return 20 + decoders + {1: 0, 2: 1, 3: 3, 4: 2}[gpu.engine_instances] + 2 * gpu.cuda_graphs


@pytest.mark.parametrize("start", [{}, {"cuda_graphs": False, "engine_instances": 4}, {"max_queue_delay_us": 700}])
def test_the_search_of_a_gpu_lane_changes_what_costs_no_answer_and_nothing_of_the_cpu_lane(
    start: dict[str, Any],
) -> None:
    asked: list[Serving] = []

    def held(serving: Serving, rung: int) -> bool:
        asked.append(serving)
        return rung <= known_of_a_gpu(serving)

    begun = Serving.parse({"threads": 3, "gpu": {"max_batch_size": 16, "gpus": [1], **start}}, source="test")
    found = tune(begun, held, lane="gpu", cores=16, rung=10, in_budget=lambda: len(asked) < 100)
    assert found.complete
    assert found.rung == 29
    gpu = found.serving.gpu
    assert (gpu.engine_instances, gpu.decode_instances, gpu.decode_threads, gpu.cuda_graphs) == (3, 2, 8, True)
    searched = {"engine_instances", "decode_instances", "decode_threads", "max_queue_delay_us", "cuda_graphs"}
    for serving in asked:
        assert serving.model_dump(exclude={"gpu": searched}) == begun.model_dump(exclude={"gpu": searched})


GPU_CHANGES = {"gpu": {"engine_instances": 3, "cuda_graphs": False}}
GPU_FLEET = """lane: gpu
classifiers:
  block:
    active: runs/a
    serving:
      max_queue_size: 9   # ours
      gpu:
        decode: native   # for speed
        engine_instances: 1   # one is enough
  flow: {active: runs/b, serving: {gpu: {decode: native}}}
  empty: {active: runs/c, serving: {gpu: {}}}
  other: {active: runs/d, serving: {warmup_batches: 1}}
  none:
    active: runs/e   # no serving
"""


@pytest.mark.parametrize("name", ["block", "flow", "empty", "other", "none"])
def test_settings_of_the_gpu_lane_are_written_below_gpu_and_what_stands_there_stays(name: str) -> None:
    edited = with_serving(GPU_FLEET, name, GPU_CHANGES)
    before, after = yaml.safe_load(GPU_FLEET), yaml.safe_load(edited)
    serving = before["classifiers"][name].get("serving", {})
    expected = {**serving, "gpu": {**serving.get("gpu", {}), **GPU_CHANGES["gpu"]}}
    assert after["classifiers"][name].pop("serving") == expected
    before["classifiers"][name].pop("serving", None)
    assert after == before
    for comment in ("# ours", "# for speed", "# one is enough", "# no serving"):
        assert comment in edited
    assert with_serving(edited, name, GPU_CHANGES) == edited
    assert Fleet.parse(yaml.safe_load(edited), source="test").classifiers[name].serving.gpu.engine_instances == 3


def test_gpu_settings_that_others_share_are_not_changed() -> None:
    text = "classifiers:\n  a: {active: x, serving: {gpu: &g {decode: native}}}\n  b: {active: y, serving: {gpu: *g}}\n"
    with pytest.raises(
        SpecError, match=r"write by hand: serving: \{gpu: \{engine_instances: 3, cuda_graphs: False\}\}"
    ):
        with_serving(text, "b", GPU_CHANGES)


class Bench(PlayedBench):
    gain = None

    def known(self, serving: Serving) -> int:
        return known_of_a_gpu(serving)


@pytest.fixture
def gpu_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """On a machine that seems to have a GPU and its server, with a stand-in for the plan."""
    for module in (card, doctor_gpu):
        monkeypatch.setattr(module, "cards", lambda: (H100,))
    monkeypatch.setattr(binary, "installed_server", lambda: Path("/opt/tritonserver/bin/tritonserver"))
    stand_in_plan(tmp_path / "plan", copy_colours(tmp_path / "digits").bundle)
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(
        "lane: gpu\nclassifiers:\n  digits:\n    active: {bundle: digits/bundle, engine: [plan]}\n"
        "    serving: {gpu: {decode_threads: 2}}   # ours\n"
    )
    return fleet


def run(*options: str | Path) -> None:
    script.main(script.parser().parse_args([str(option) for option in options]))


def test_the_winner_of_a_gpu_lane_is_written_below_gpu(
    gpu_fleet: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(tune_measure, "Bench", Bench)
    monkeypatch.setattr(script.os, "sched_getaffinity", lambda _: set(range(16)))
    run(gpu_fleet, "--images", gpu_fleet.parent)
    changes = {"decode_instances": 2, "decode_threads": 8, "engine_instances": 3}
    assert yaml.safe_load(gpu_fleet.read_text())["classifiers"]["digits"]["serving"] == {"gpu": changes}
    assert "# ours" in gpu_fleet.read_text()
    evidence = json.loads((gpu_fleet.parent / "fleet.digits.tuning.json").read_text())
    assert evidence["changes"] == {"gpu": changes}
    assert "openvino" not in evidence["versions"]
    assert evidence["gpu"]["card"]["name"] == H100.name
    assert evidence["gpu"].keys() > {"release", "tensorrt", "dali", "nvimgcodec"}
    assert "BETTER: 3 engines, 2 decoders of 8 threads holds" in capsys.readouterr().out


def test_a_gpu_lane_without_its_server_is_not_tuned(gpu_fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary, "installed_server", lambda: None)
    with pytest.raises(SpecError, match=r"fleet.yaml: lane gpu, .* none on PATH, nor /opt/.*; tune where it is"):
        run(gpu_fleet, "--images", gpu_fleet.parent)


def test_what_is_measured_of_a_gpu_lane_is_a_repository_of_that_lane(
    gpu_fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such server can be started here: the measurement ends where it would be."""
    served: list[Path] = []

    def serve(repository: Path, **_: Any) -> None:
        served.append(repository)
        raise ServingError("no such server here")

    monkeypatch.setattr(tune_measure, "serve", serve)
    options = ("--images", str(tmp_path), "--classifier", "digits")
    arguments = script.parser().parse_args([str(gpu_fleet), *options])
    (tmp_path / "work").mkdir()
    target = script.open_target(gpu_fleet, None)
    bench = tune_measure.Bench(target.classifier, script.gate_options("digits", arguments), tmp_path / "work")
    candidate = changed(target.classifier.serving, {"gpu": {"engine_instances": 3}})
    with pytest.raises(ServingError, match="no such server here"):
        bench.searched(candidate, 10)
    (repository,) = served
    assert Lane.read(repository / "lane.json").lane == "gpu"
    models = read_models(repository)
    engine = next(model for name, model in models.items() if name.startswith("engine_"))
    decoder = next(model for name, model in models.items() if name.startswith("preprocess_"))
    assert engine.instances(gpus=1) == 3
    assert decoder.parameter("threads") == "2"
    bench.evidence.append(NotStarted(serving=target.classifier.serving, rate_per_s=1, error="the start"))
    assert not bench.searched(candidate, 10), "a candidate whose server does not start holds no rate"
    assert bench.evidence[1] == NotStarted(serving=candidate, rate_per_s=rate_at(10), error="no such server here")


def test_what_a_fallback_serves_is_not_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_gpu, "cards", lambda: (H100,))
    monkeypatch.setattr(binary, "installed_server", lambda: Path("/opt/tritonserver/bin/tritonserver"))
    classifier = fallback_classifier(tmp_path)
    folders = {"bundle": str(classifier.bundle.path), "engine": [str(classifier.engine.path)]}
    content = {"lane": "gpu", "classifiers": {"digits": {"active": folders}}}
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SpecError, match="digits has no TensorRT plan; compile one for this GPU, and tune that"):
        run(tmp_path / "fleet.yaml", "--images", tmp_path)
