"""A base: from weights to engines whose embeddings were compared with FP32's, and what it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from slipway.contract import Bundle, CompileError, DataError, ExportError, Manifest, ManifestError, SpecError
from slipway.contract.base_bundle import Base, BaseEngine, BaseSpec
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.engines import build_engine
from slipway.engines.base_engines import judge, run_of
from slipway.evaluation.predict import predict, predict_served
from slipway.repository.fleet import open_base
from slipway.steps.head import Head
from slipway.system.files import sha256_file
from slipway.training import export, train
from slipway.training.bundle.base import draw, write_base
from slipway.training.heads.from_classifier import spec_of
from slipway.training.learn.network import Network
from slipway.training.learn.weights import fill_backbone
from tests.support.colours import reseal
from tests.support.scripts import refused, run_here
from tests.support.small_training import BASE_SIDE as SIDE
from tests.support.small_training import base_text, make_spec, one_thread, write_digits, write_weights


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/tiny`, made by the verb, `weights.safetensors`, `images`, and `said.txt`."""
    folder = tmp_path_factory.mktemp("base")
    write_digits(folder / "images")
    write_weights(folder / "weights.safetensors")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(base_text()))
    with one_thread():
        done = run_here("base", "tiny.yaml", "--json", cwd=folder)
    (folder / "said.txt").write_text(done.stdout)
    return folder


def test_the_verb_makes_a_base_its_engines_and_a_choice_between_them(made: Path) -> None:
    said = json.loads((made / "said.txt").read_text().splitlines()[-1])
    base = open_base(made / "runs/tiny")
    assert said["id"] == base.base.id
    assert said["chosen"] == base.engine.path.name
    assert set(said["engines"]) == {"fp32", "int8"}
    loss = said["engines"]["int8"]
    assert loss["verdict"] == "pass"
    assert loss["images"] == 30
    assert 0.8 <= loss["mean_cosine"] < 1
    assert loss["low_cosine"] <= loss["mean_cosine"]
    assert base.engine.settings.embedding_size == 512
    assert base.engine.settings.classes == 0


def test_the_engines_give_the_embedding_of_the_weights(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    base = Base.open(Path("runs/tiny/base"))
    network = Network(base.spec.backbone, classes=5, pretrained=False, input_size=(SIDE, SIDE)).eval()
    fill_backbone(network, Path("weights.safetensors"))
    dataset = Dataset.read(base.path / DATASET)
    images = dataset.of("test")
    expected = predict(network.run, dataset, images, preprocess=base.preprocess, batch_size=8, what="torch")
    found = predict_served(
        run_of(BaseEngine.open(Path("runs/tiny/engines/openvino-fp32"), base=base), threads=1),
        dataset,
        images,
        preprocess=base.preprocess,
        batch_size=8,
        what="engine",
    )
    assert found.logits_nc.shape == (30, 0)
    np.testing.assert_allclose(found.embedding_nd, expected.embedding_nd, atol=1e-3)


def test_the_images_that_judge_are_others_than_those_that_calibrate(made: Path) -> None:
    dataset = Dataset.read(made / "runs/tiny/base" / DATASET)
    seen = {image.sha256 for image in dataset.of("train")}
    assert len(seen) == len(dataset.of("test")) == 30
    assert not seen & {image.sha256 for image in dataset.of("test")}


def test_what_is_current_stays_and_other_weights_make_another_base(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    before = {path: path.stat().st_mtime_ns for path in (copy / "runs").rglob("*")}
    assert "current" in run_here("base", "tiny.yaml", cwd=copy).stdout
    assert {path: path.stat().st_mtime_ns for path in (copy / "runs").rglob("*")} == before
    graph = copy / "runs/tiny/engines/openvino-fp32/model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    monkeypatch.chdir(copy)
    with pytest.raises(ManifestError, match="changed since this engine was made"):
        BaseEngine.open(Path("runs/tiny/engines/openvino-fp32"), base=Base.open(Path("runs/tiny/base")))


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"images": "nowhere"}, DataError, "no such folder; images is a folder"),
        ({"calibration": {"images": 60}}, DataError, "72 different images, but 60 are needed to calibrate"),
    ],
)
def test_images_that_do_not_suffice_are_counted(
    made: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], error: type[Exception], match: str
) -> None:
    monkeypatch.chdir(made)
    with pytest.raises(error, match=match):
        draw(BaseSpec.parse(base_text(**changes), source="test"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone": {"name": "resnet10"}}, "timm has no 'resnet10'; similar names: resnet10t"),
        ({"backbone": {"name": "resnet10t", "weights": "none.safetensors"}}, "none.safetensors"),
        ({"precisions": ["int4"]}, "precisions.0: Input should be"),
        ({"tensorrt": {"optimal_batch_size": 64}}, "optimal_batch_size 64 is above serving.gpu.max_batch_size 32"),
        ({"labels": ["a"]}, "labels: unknown key"),
    ],
)
def test_a_spec_that_cannot_be_made_is_refused_in_one_message(
    made: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    for name in ("images", "weights.safetensors"):
        (tmp_path / name).symlink_to(made / name)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(base_text(**changes)))
    assert words in refused("base", "tiny.yaml", cwd=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_every_image_that_serving_would_refuse_is_named(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "images", tmp_path / "images")
    for number in range(3):
        (tmp_path / f"images/0/bad{number}.png").write_bytes(b"no image")
    spec = BaseSpec.parse(base_text(images=str(tmp_path / "images"), calibration={"images": 40}), source="test")
    with pytest.raises(DataError, match=r"3 files cannot be used; repair or remove them") as caught:
        draw(spec.model_copy(update={"calibration": spec.calibration.model_copy(update={"images": 43})}))
    assert all(f"{tmp_path}/images/0/bad{number}.png: unsupported format" in str(caught.value) for number in range(3))


def test_weights_that_tell_no_images_apart_make_no_base(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    weights = {name: tensor * 0 for name, tensor in load_file("weights.safetensors").items()}
    save_file(weights, tmp_path / "zeros.safetensors")
    backbone = {"name": "resnet10t", "weights": str(tmp_path / "zeros.safetensors")}
    with one_thread(), pytest.raises(ExportError, match="30 different images have the same embedding"):
        write_base(BaseSpec.parse(base_text(backbone=backbone), source="test"), tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_slipway_engines_makes_the_parts_of_a_base_that_are_not_current(made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made, tmp_path / "copy")
    assert "0 to make, 3 current" in run_here("engines", "runs/tiny", cwd=copy).stdout
    engines = copy / "runs/tiny/engines"
    measured = Manifest.read(engines / "openvino-int8/manifest.json").measured
    reseal(engines / "openvino-int8", measured=measured | {"gate": measured["gate"] | {"min_cosine": 0.5}})
    (engines / "openvino-fp32/model.onnx").write_bytes(b"cut")
    with one_thread():
        done = run_here("engines", "runs/tiny", "--json", cwd=copy)
    said = json.loads(done.stdout.splitlines()[-1])
    assert [Path(part["folder"]).name for part in said["parts"] if part["outcome"] == "made"] == [
        "openvino-fp32",
        "openvino-int8",
    ]
    assert "spec.embedding.min_cosine 0.5 → 0.8; pass" in done.stdout
    choose, head = "slipway choose runs/tiny/base --engines runs/tiny/engines", "slipway head SPEC --base runs/tiny"
    assert f"next: {choose}, then {head} of each head" in done.stdout
    with one_thread():
        run_here("choose", "runs/tiny/base", "--engines", "runs/tiny/engines", cwd=copy)
    assert open_base(copy / "runs/tiny").engine.may_be_served


def test_an_engine_of_another_base_is_refused(made: Path) -> None:
    base = Base.open(made / "runs/tiny/base")
    other = Base(base.path, "0" * 64, base.manifest, base.spec, base.preprocess)
    with pytest.raises(ManifestError, match="the given base is 000000000000; run slipway base again"):
        BaseEngine.open(made / "runs/tiny/engines/openvino-fp32", base=other)


def test_embeddings_that_turn_away_fail_the_gate() -> None:
    before_nd = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    same, near, away = (
        judge(before_nd, after_nd, min_cosine=0.9) for after_nd in (2 * before_nd, before_nd + 0.01, -before_nd)
    )
    assert (same.verdict, same.mean_cosine, same.same_neighbour) == ("pass", pytest.approx(1), 1.0)
    assert near.verdict == "pass"
    assert (away.verdict, away.mean_cosine) == ("fail", pytest.approx(-1))


def test_an_embedding_that_is_not_finite_stops_the_build(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setattr(
        "slipway.steps.engine_openvino.Engine.run",
        lambda _, pixels: (np.zeros((len(pixels), 0), np.float32), np.full((len(pixels), 4), np.nan, np.float32)),
    )
    base = Base.open(Path("runs/tiny/base"))
    with pytest.raises(CompileError, match="embeddings of 30 of 30 images are not finite"):
        build_engine(base, tmp_path, tmp_path / "engines", target="openvino", precision="fp32", reference=None)
    assert not (tmp_path / "engines/openvino-fp32").exists()


def test_a_base_is_not_written_over_something_else(tmp_path: Path) -> None:
    (tmp_path / "runs/tiny/base").mkdir(parents=True)
    (tmp_path / "runs/tiny/base/mine.txt").write_text("mine")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(base_text()))
    assert "not empty, and not written by this stage (a base)" in refused("base", "tiny.yaml", cwd=tmp_path)


@pytest.fixture(scope="module")
def whole(made: Path) -> Path:
    """The run of a whole classifier whose backbone is that of the base, since only its head was trained."""
    with one_thread(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        spec = make_spec(Path("images"), weights=Path("weights.safetensors"), epochs=2, freeze_epochs=2)
        limits = {"prove_classes": False, "max_loss_points": 60, "max_class_loss_points": 100, "max_flip_points": 60}
        small = spec.model_copy(
            update={
                "calibration": spec.calibration.model_copy(update={"images": 20}),
                "accuracy": spec.accuracy.model_copy(update=limits),
            }
        )
        train(small, made / "runs/three/checkpoint")
        export(made / "runs/three/checkpoint", made / "runs/three/bundle")
    return made / "runs/three"


def test_a_classifier_on_the_base_s_backbone_becomes_a_head_that_answers_the_same(
    made: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = ("head", whole, "--base", "runs/tiny", "--out", "heads/three")
    done = run_here(*again, cwd=made, check=False)  # its gate has too few images to tell
    assert "against the whole classifier: same labels" in done.stdout
    monkeypatch.chdir(made)
    bundle, head = Bundle.open(whole / "bundle"), Bundle.open(made / "heads/three/bundle")
    assert head.labels == bundle.labels
    assert head.decision.temperature == pytest.approx(bundle.decision.temperature, abs=0.01)
    assert head.manifest.inputs["classifier"] == sha256_file(whole / "bundle/manifest.json")
    ours, theirs = (json.loads((path / "bundle/evaluation.json").read_text()) for path in (made / "heads/three", whole))
    assert ours["top1"] == theirs["top1"]
    weights = Head.read(made / "heads/three/bundle/head.npz")
    assert (weights.embedding_size, weights.classes) == (512, 3)
    assert "current" in run_here(*again, cwd=made, check=False).stdout


def test_a_classifier_with_other_pixels_than_the_base_is_refused_with_both(made: Path, whole: Path) -> None:
    base = Base.open(made / "runs/tiny/base")
    larger = replace(base, preprocess=base.preprocess.model_copy(update={"input_height": 64}))
    with pytest.raises(SpecError, match="its preprocess has input_height 32, not 64 as the base"):
        spec_of(Bundle.open(whole / "bundle"), larger)


def test_a_classifier_with_another_backbone_is_refused(made: Path, whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "made"
    shutil.copytree(made, other, ignore=shutil.ignore_patterns("heads"))
    write_weights(other / "weights.safetensors", seed=8)
    with one_thread():
        run_here("base", "tiny.yaml", cwd=other)
    said = refused("head", other / "runs/three", "--base", "runs/tiny", "--out", "heads/three", cwd=other)
    assert "the base with the head and the whole classifier disagree" in said
    assert "its backbone is not that of the base" in said
    assert not (other / "heads/three").exists()
    assert whole.is_dir()
