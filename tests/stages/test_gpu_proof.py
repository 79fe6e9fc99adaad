"""`make gpu-proof` rehearsed without a GPU: prepared, run with `--device cpu`, judged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from benchmarks.studies.gpu_proof.folder import ProofError
from benchmarks.studies.gpu_proof.graphs import write_graphs
from benchmarks.studies.gpu_proof.judging import PUBLISHED, judge
from benchmarks.studies.gpu_proof.prepare import prepare
from benchmarks.studies.gpu_proof.running import run
from benchmarks.studies.gpu_proof.torch_graph import TorchGraph, UnsupportedError
from slipway.contract.evidence.gpu_proof import GpuProofResult
from slipway.engines import quantize
from slipway.steps.engine_openvino import Engine
from tests.support.colours import reseal
from tests.support.quantizable import SIZE, bundle_of, network, write_dataset

PROOFS = ["codec", "precision", "dali", "server", "heads"]
IMAGES = 600
SPREAD = 1e-4
"""Of logits, the difference to OpenVINO's in FP32 that is rounding."""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tiny network with test images, and its FP16 and INT8 graphs."""
    folder = tmp_path_factory.mktemp("run")
    bundle = bundle_of(network(), folder / "made")
    quantize(bundle, folder / "graphs/fp16", precision="fp16")
    quantize(bundle, folder / "graphs/int8", precision="int8")
    (folder / "made/bundle").rename(folder / "bundle")
    write_dataset(folder / "made-data", folder / "bundle", split="test")
    reseal(folder / "bundle")
    return folder


@pytest.fixture(scope="module")
def prepared(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proof")
    prepare(folder, run=run_folder, proofs=PROOFS, small=True, seed=0)
    return folder


def result_of(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"results/gpu_proof_{name}.json").read_text())
    return content


@pytest.mark.nightly
@pytest.mark.parametrize("name", PROOFS)
def test_a_proof_passes_its_rehearsal_on_the_cpu(prepared: Path, name: str) -> None:
    code = run([name], folder=prepared, out=prepared / "results", device="cpu", installed=True, scale=20)
    result = result_of(prepared, name)
    assert (code, result["verdict"], result["reasons"]) == (0, "pass", [])
    assert judge(prepared / "results", folder=prepared, out=prepared / "judged") == 0
    assert GpuProofResult.read(prepared / f"judged/gpu_proof_{name}.json").device == "cpu"


def test_the_executor_answers_like_openvino_in_fp32_and_near_it_in_fp16(run_folder: Path, tmp_path: Path) -> None:
    graphs = {
        "fp32": run_folder / "bundle/model.onnx",
        **{name: run_folder / f"graphs/{name}/model.onnx" for name in ("fp16", "int8")},
    }
    write_graphs(graphs, tmp_path)
    pixels_nchw = np.random.default_rng(0).normal(size=(4, 3, SIZE, SIZE)).astype(np.float32)
    for name, path in graphs.items():
        expected_nc = Engine(path, arithmetic="f32", threads=1).run(pixels_nchw)[0]
        for arithmetic, tolerance in (("f32", SPREAD), ("typed", 0.1)):
            graph = TorchGraph(
                tmp_path / f"{name}.json",
                tmp_path / "weights.npz",
                device="cpu",
                arithmetic=arithmetic,  # type: ignore[arg-type]
            )
            answered_nc = graph.run(torch.from_numpy(pixels_nchw))["logits_nc"].numpy()
            assert np.abs(answered_nc - expected_nc).max() < tolerance * expected_nc.std(), (name, arithmetic)
            assert (graph.half_layers > 0) == (arithmetic == "typed" and name != "fp32")


def test_an_operator_that_the_executor_lacks_is_an_error_that_names_it(tmp_path: Path) -> None:
    graph = network()
    graph.graph.node.insert(0, helper.make_node("Erf", ["pixels_nchw"], ["erf"], name="first_erf"))
    onnx.save(graph, tmp_path / "model.onnx")
    write_graphs({"fp32": tmp_path / "model.onnx"}, tmp_path)
    with pytest.raises(UnsupportedError, match=r"Erf \(first_erf\) is not carried out here, only Add, "):
        TorchGraph(tmp_path / "fp32.json", tmp_path / "weights.npz", device="cpu")


def write_results(folder: Path, *, lost: int, device: str) -> None:
    """A result of `precision` whose FP16 answers lose so many of the images that FP32 answers right."""
    truth_n = np.arange(IMAGES) % 3
    right_nc = np.eye(3, dtype=np.float32)[truth_n]
    typed_nc = right_nc.copy()
    typed_nc[:lost] = np.roll(right_nc[:lost], 1, axis=1)
    facts = {"labels": ["a", "b", "c"], "accuracy": {"max_loss_points": 1.5, "prove_classes": False}}
    for name in ("kept", "results"):
        (folder / name).mkdir(parents=True)
    np.savez(folder / "kept/digits.npz", truth_n=truth_n, facts=np.array(json.dumps(facts)), fp32=right_nc)
    answered = {"digits/fp16/typed": typed_nc, "digits/int8/typed": right_nc}
    np.savez(folder / "results/gpu_proof_precision.npz", **answered)  # type: ignore[arg-type, unused-ignore]
    result = {
        **{"proof": "precision", "verdict": "pass", "reasons": [], "device": device, "part": "done", "seconds": 1.0},
        **{"created": "2026-11-29T00:00:00+00:00", "commit": "c", "seed": 0, "versions": {}, "measured": {}},
        "machine": {"system": "s", "cores": 1, "gpu": "G", "driver": "580"},
    }
    (folder / "results/gpu_proof_precision.json").write_text(json.dumps(result))


@pytest.mark.parametrize(("lost", "verdict"), [(0, "pass"), (60, "fail")])
def test_logits_from_the_gpu_are_judged_by_the_accuracy_gate(
    tmp_path: Path, lost: int, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path, lost=lost, device="cuda")
    assert judge(tmp_path / "results", folder=tmp_path, out=tmp_path / "out") == (verdict == "fail")
    result = GpuProofResult.read(tmp_path / "out/gpu_proof_precision.json")
    assert result.verdict == verdict
    assert result.gates is not None
    assert [gate.verdict for gate in result.gates.values()] == [verdict, "pass"]
    assert f"| precision | {verdict} |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("results/gpu_proof_precision.json", b"[]", "not an object with keys and values; carry it again"),
        ("results/gpu_proof_precision.json", b"{}", "required but not given.*run the proof again with this commit"),
        ("results/gpu_proof_precision.npz", b"PK\x03\x04cut", "damaged .*; carry it again"),
        ("results/gpu_proof_precision.npz", None, "has not the logits of digits, fp16"),
    ],
)
def test_a_result_that_did_not_come_back_whole_is_named_with_what_to_do(
    tmp_path: Path, file: str, content: bytes | None, says: str
) -> None:
    write_results(tmp_path, lost=0, device="cuda")
    if content is None:
        np.savez(tmp_path / file, other=np.zeros(1))
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ProofError, match=f"(?s){file}: .*{says}"):
        judge(tmp_path / "results", folder=tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_rehearsal_is_not_published(tmp_path: Path) -> None:
    write_results(tmp_path, lost=0, device="cpu")
    with pytest.raises(ProofError, match="a rehearsal on the cpu is not published; give another folder with --out"):
        judge(tmp_path / "results", folder=tmp_path, out=PUBLISHED)
    with pytest.raises(ProofError, match=r"no gpu_proof_\*\.json"):
        judge(tmp_path / "kept", folder=tmp_path, out=tmp_path / "out")
