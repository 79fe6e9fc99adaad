"""Evidence is written once and read back by the same models; what the project published is read by them too."""

import json
import math
from pathlib import Path

import pytest

from benchmarks.studies.backbones.result import BackbonesResult
from benchmarks.studies.density.result import FullDensityResult
from benchmarks.studies.efficiency.result import FullEfficiencyResult
from benchmarks.studies.gateway.result import GatewayResult
from benchmarks.studies.guard.result import GuardResult
from benchmarks.studies.lifecycle.result import LifecycleResult
from benchmarks.studies.lint_corpus.result import LintCorpusResult
from benchmarks.studies.memory.result import MemoryResult
from benchmarks.studies.operate.result import OperateResult
from benchmarks.studies.peers.result import FullPeersResult
from benchmarks.studies.photographs.result import PhotographsResult
from benchmarks.studies.resize.result import ResizeResult
from benchmarks.studies.scale.result import ScaleResult
from benchmarks.studies.soak.result import SoakResult
from benchmarks.studies.timm_models.result import TimmResult
from benchmarks.studies.watch.result import WatchResult
from slipway import __version__
from slipway.contract import Manifest, ManifestError
from slipway.contract.evidence.build import EngineMeasured
from slipway.contract.evidence.gate import Ungated
from slipway.contract.evidence.history import EpochRow, history_text, read_history
from slipway.contract.evidence.latency import CapacityResult, LatencyResult, PerfAnalyzerResult
from slipway.contract.evidence.origin import Origin
from slipway.contract.evidence.studies import RobustnessResult, VerdictResult
from slipway.contract.evidence.tuning import TuningResult

RESULTS = Path(__file__).parents[2] / "benchmarks/results"
KINDS = {
    "backbones": BackbonesResult,
    "digits-int8-cpu": LatencyResult,
    "digits-capacity-cpu": CapacityResult,
    "perf_analyzer": PerfAnalyzerResult,
    "density": FullDensityResult,
    "density_loss": FullDensityResult,
    "density_changes": FullDensityResult,
    "density_served": FullDensityResult,
    "density_whole": FullDensityResult,
    "efficiency": FullEfficiencyResult,
    "gateway": GatewayResult,
    "gateway_84": GatewayResult,
    "gateway_http": GatewayResult,
    "gateway_resnet50": GatewayResult,
    "guard": GuardResult,
    "lifecycle": LifecycleResult,
    "lint-corpus": LintCorpusResult,
    "memory": MemoryResult,
    "operate": OperateResult,
    "peers": FullPeersResult,
    "photographs": PhotographsResult,
    "resize": ResizeResult,
    "robustness": RobustnessResult,
    "scale": ScaleResult,
    "soak": SoakResult,
    "timm_models": TimmResult,
    "tuning": TuningResult,
    "fifty": RobustnessResult,
    "verdict": VerdictResult,
    "watch": WatchResult,
}
STUDIES = {
    "backbones",
    "density",
    "density_loss",
    "density_changes",
    "density_served",
    "density_whole",
    "efficiency",
    "gateway",
    "gateway_84",
    "gateway_http",
    "gateway_resnet50",
    "guard",
    "lifecycle",
    "lint-corpus",
    "memory",
    "operate",
    "peers",
    "photographs",
    "resize",
    "scale",
    "soak",
    "timm_models",
    "fifty",
    "verdict",
    "watch",
}  # robustness has one part in an older form


@pytest.mark.parametrize("name", KINDS)
def test_a_published_result_is_read_and_no_study_loses_a_key_when_it_is_written(name: str) -> None:
    path = RESULTS / f"{name}.json"
    found = KINDS[name].read(path)
    assert KINDS[name].parse(json.loads(found.to_json()), source="test") == found
    if name in STUDIES:
        assert found.plain() == json.loads(path.read_text())


def test_what_a_writer_left_out_is_left_out_of_the_file_and_read_back_as_absent(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("")
    measured = EngineMeasured(gate=Ungated(verdict="proof only"), build_s=1.5)
    manifest = Manifest.seal(tmp_path, kind="engine", name="colours", measured=measured)
    assert manifest.measured.keys() == {"gate", "build_s"}
    assert Manifest.open(tmp_path, kind="engine").read_measured(EngineMeasured) == measured


def test_evidence_of_another_release_names_its_fields_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("")
    manifest = Manifest.seal(tmp_path, kind="engine", name="colours", measured={"gate": {"verdict": "pass"}})
    with pytest.raises(
        ManifestError, match=r"what this engine measured: gate(?s:.*)another release(?s:.*)build it again"
    ):
        manifest.read_measured(EngineMeasured)


def test_every_result_says_where_it_comes_from() -> None:
    origin = Origin.here(("pydantic",))
    assert {"slipway", "numpy", "pydantic"} == origin.versions.keys()
    assert origin.versions["slipway"] == __version__  # of this code, whenever it was installed
    assert origin.machine.cores >= 1
    assert origin.machine.cpu


def test_a_history_keeps_the_order_of_its_keys_and_every_digit(tmp_path: Path) -> None:
    known = {"epoch": 0, "phase": "head", "learning_rate": 0.001, "backbone_learning_rate": 0.0}
    rows = [{**known, "val_loss": loss, "val_map": 1.0, "train_loss": -0.0} for loss in (0.12345678901234566, math.inf)]
    text = history_text(EpochRow.parse(row, source="here") for row in rows)
    assert text == json.dumps(rows, indent=2) + "\n"
    (tmp_path / "history.json").write_text(text)
    assert [row.plain() for row in read_history(tmp_path / "history.json")] == rows
    assert read_history(tmp_path / "history.json")[0]["val_map"] == 1.0
