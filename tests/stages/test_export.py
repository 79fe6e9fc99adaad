"""The demo's bundle: the graph says what torch says, and exporting again, elsewhere, gives the same bundle."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from safetensors.torch import load_file

from slipway.contract import Bundle, DataError, ManifestError, SlipwayError, Spec
from slipway.contract.bundle import IDENTITY, CalibrationList
from slipway.contract.dataset import Dataset
from slipway.contract.manifest import FILE_NAME, Manifest
from slipway.evaluation.predict import Predictions, predict
from slipway.steps.engine_openvino import Engine
from slipway.system.files import sha256_file
from slipway.training import export
from tests.support.damage import Payload, flip_byte

ROOT = Path(__file__).parents[2]
RUN = Path("runs/digits")


@pytest.fixture(scope="module")
def bundle(digits: Path) -> Bundle:
    return Bundle.open(digits / RUN / "bundle")


@pytest.fixture(scope="module")
def dataset(digits: Path) -> Dataset:
    """The demo's data set, from any folder."""
    dataset = Dataset.read(digits / RUN / "bundle/dataset.json")
    return dataset.model_copy(update={"root": str(digits / dataset.root)})


@pytest.fixture(scope="module")
def graph(bundle: Bundle) -> onnx.ModelProto:
    return onnx.load(bundle.path / "model.onnx", load_external_data=False)


@pytest.mark.nightly  # test_import_equals_training makes the same bundle too, from the same source
def test_exporting_again_from_a_copy_of_the_source_in_another_folder_gives_the_same_bundle(
    digits: Path, bundle: Bundle, tmp_path: Path
) -> None:
    """Another clone, outside of git; another working folder, time zone, hash seed and number of threads."""
    for folder in ("src", "training"):
        shutil.copytree(ROOT / folder, tmp_path / "clone" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(digits / RUN / "checkpoint", tmp_path / "work/checkpoint")
    (tmp_path / "work" / RUN).mkdir(parents=True)
    (tmp_path / "work" / RUN / "data").symlink_to(digits / RUN / "data")
    differently = {"PYTHONHASHSEED": "4242", "TZ": "Asia/Tokyo", "LC_ALL": "C", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "clone/training/export.py"), "checkpoint", "--out", "bundle", "--json"],
        cwd=tmp_path / "work",
        env={**os.environ, **differently, "PYTHONPATH": str(tmp_path / "clone/src")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    again = tmp_path / "work/bundle"
    assert Manifest.open(again, kind="bundle").commit is None, "the code that ran was the copy"
    differing = {name for name in IDENTITY if sha256_file(again / name) != sha256_file(bundle.path / name)}
    assert differing == set()
    assert Bundle.open(again).id == bundle.id == json.loads(done.stdout.splitlines()[-1])["id"]
    assert sorted(os.listdir(tmp_path / "work")) == ["bundle", "checkpoint", "runs"]


def test_the_graph_is_one_file_with_a_recent_opset_a_dynamic_batch_and_the_two_outputs(
    graph: onnx.ModelProto, bundle: Bundle
) -> None:
    onnx.checker.check_model(graph, full_check=True)
    assert {opset.domain: opset.version >= 18 for opset in graph.opset_import} == {"": True}
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.graph.input, *graph.graph.output)
    }
    batch = shapes["pixels_nchw"][0]
    assert isinstance(batch, str)
    embedding_size = shapes["embedding_nd"][1]
    assert shapes == {
        "pixels_nchw": [batch, 3, 64, 64],
        "logits_nc": [batch, 10],
        "embedding_nd": [batch, embedding_size],
    }
    assert embedding_size >= 64
    assert {tensor.data_location for tensor in graph.graph.initializer} <= {onnx.TensorProto.DEFAULT}
    assert [path.name for path in bundle.path.glob("*.onnx*")] == ["model.onnx"]


def test_the_graph_carries_nothing_of_the_machine_that_made_it(graph: onnx.ModelProto) -> None:
    inner = graph.graph
    for part in (graph, inner, *inner.node, *inner.input, *inner.output, *inner.value_info, *inner.initializer):
        assert not part.metadata_props
        assert not part.doc_string
    without_weights = onnx.ModelProto()
    without_weights.CopyFrom(graph)
    for tensor in without_weights.graph.initializer:
        tensor.ClearField("raw_data")  # five million random bytes, in which three letters may well stand
    data = without_weights.SerializeToString()
    for trace in (str(ROOT), str(Path.home()), sys.prefix, "site-packages", ".py"):
        assert trace.encode() not in data


def test_every_test_image_gets_the_label_from_onnx_that_torch_gives_it(
    digits: Path, bundle: Bundle, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = Spec.read(digits / RUN / "checkpoint/spec.json")
    model = timm.create_model(spec.backbone.name, num_classes=10).eval()  # not ours, which is what was exported
    weights = load_file(digits / RUN / "checkpoint/model.safetensors")
    model.load_state_dict({name.removeprefix("backbone."): tensor for name, tensor in weights.items()})

    def run_torch(pixels_nchw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            given_nchw = torch.from_numpy(pixels_nchw)
            embedding_nd = model.forward_head(model.forward_features(given_nchw), pre_logits=True)
            return model(given_nchw).numpy(), embedding_nd.numpy()

    run_onnx = Engine(bundle.path / "model.onnx", arithmetic="f32", threads=2).run
    test = dataset.of("test")
    found, expected = (
        predict(run, dataset, test, preprocess=bundle.preprocess, batch_size=16, what="test")
        for run in (run_onnx, run_torch)
    )
    assert len(found.logits_nc) == len(test) == bundle.manifest.measured["images"] > 500
    np.testing.assert_array_equal(found.logits_nc.argmax(axis=1), expected.logits_nc.argmax(axis=1))

    def difference(which: str) -> float:
        return float(np.abs(getattr(found, which) - getattr(expected, which)).max())

    with capsys.disabled():
        print(
            f"\n{len(test)} test images, ONNX (OpenVINO f32) against torch: same labels, max |Δlogit| "
            f"{difference('logits_nc'):.2g}, max |Δembedding| {difference('embedding_nd'):.2g}; recorded at export "
            f"{bundle.manifest.measured['max_logit_difference']:.2g}"
        )
    assert difference("logits_nc") < 1e-3
    assert difference("embedding_nd") < 1e-3
    assert 0 < bundle.manifest.measured["max_logit_difference"] < 1e-3
    assert_evaluation_is_of(found, bundle)


def assert_evaluation_is_of(found: Predictions, bundle: Bundle) -> None:
    evaluation = json.loads((bundle.path / "evaluation.json").read_text())
    right_n = found.logits_nc.argmax(axis=1) == found.truth_n
    assert evaluation["top1"] == pytest.approx(right_n.mean())
    assert sum(count for truth, label, count in evaluation["confusion"] if truth == label) == right_n.sum()
    assert evaluation["top1"] >= 0.985
    assert evaluation["ece"] < 0.05


def test_calibration_images_are_hashed_train_images_of_every_class(bundle: Bundle, dataset: Dataset) -> None:
    listed = CalibrationList.read(bundle.path / "calibration.json").images
    assert len(listed) == bundle.spec.calibration.images == len(CalibrationList.load(bundle.path))
    train = {image.sha256: image.class_id for image in dataset.of("train")}
    held_out = {image.sha256 for split in ("validation", "test") for image in dataset.of(split)}
    assert {entry.sha256: entry.class_id for entry in listed}.items() <= train.items()
    assert held_out.isdisjoint(entry.sha256 for entry in listed)
    shares = Counter(entry.class_id for entry in listed)
    assert set(shares) == set(range(10))
    for class_id, count in Counter(train.values()).items():
        assert abs(shares[class_id] - count * len(listed) / len(train)) <= 1


@pytest.fixture
def checkpoint(digits: Path, tmp_path: Path) -> Path:
    """A copy that a test may harm."""
    return Path(shutil.copytree(digits / RUN / "checkpoint", tmp_path / "checkpoint"))


@pytest.mark.parametrize("name", ["model.safetensors", "spec.json", "dataset.json", "history.json"])
def test_a_changed_checkpoint_is_refused_by_name(name: str, checkpoint: Path, tmp_path: Path) -> None:
    flip_byte(checkpoint / name)
    with pytest.raises(ManifestError, match=rf"checkpoint/{name}: changed since this checkpoint was made"):
        export(checkpoint, tmp_path / "bundle")
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_a_pickle_beside_the_weights_is_refused_by_name(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "optimizer.pt").write_bytes(pickle.dumps(Payload(tmp_path / "trace")))
    with pytest.raises(ManifestError, match=r"optimizer\.pt: not in the manifest of this checkpoint"):
        export(checkpoint, tmp_path / "bundle")
    assert os.listdir(tmp_path) == ["checkpoint"]


def hide_pickle(checkpoint: Path, trace: Path) -> None:
    """Put a pickle in the place of the weights, and make the manifest agree."""
    (checkpoint / "model.safetensors").write_bytes(pickle.dumps(Payload(trace)))
    (checkpoint / FILE_NAME).unlink()
    Manifest.seal(checkpoint, kind="checkpoint", name="digits")


def test_a_pickle_in_the_place_of_the_weights_is_never_unpickled(checkpoint: Path, tmp_path: Path) -> None:
    hide_pickle(checkpoint, tmp_path / "trace")
    with pytest.raises(Exception, match=r"."):
        export(checkpoint, tmp_path / "bundle")
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_weights_that_are_not_safetensors_are_an_error_that_names_the_file(checkpoint: Path, tmp_path: Path) -> None:
    hide_pickle(checkpoint, tmp_path / "trace")
    with pytest.raises(SlipwayError, match=r"model\.safetensors"):
        export(checkpoint, tmp_path / "bundle")


def test_images_that_are_gone_are_named_and_leave_no_bundle(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"runs/digits/data/.*: cannot be read: .*; run this where training ran"):
        export(checkpoint, tmp_path / "bundle")
    assert os.listdir(tmp_path) == ["checkpoint"]
