"""`slipway head`: from a spec and a base to a bundle, and a form for each engine of the base, gated."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from slipway.contract import Bundle, BundleEngine, Manifest
from slipway.contract.dataset import FILE_NAME as DATASET
from slipway.contract.dataset import Dataset
from slipway.contract.evidence.build import BundleMeasured, EngineMeasured
from slipway.engines.base_engines import run_of
from slipway.engines.predictions_csv import read_rows
from slipway.evaluation.predict import predict_served
from slipway.repository import BaseHeads, assemble
from slipway.repository.fleet import open_base
from slipway.steps.head import Head
from slipway.steps.postprocess import Postprocessor
from slipway.system.files import sha256_file
from tests.support.colours import reseal
from tests.support.heads import ENGINE, write_base
from tests.support.labelled_files import write_table
from tests.support.scripts import refused, run_here
from tests.support.shades import COLOURS, INT8, base_with_int8, coloured, write_colours

LENIENT = {"max_loss_points": 40, "max_class_loss_points": 100, "max_flip_points": 60, "prove_classes": False}


def write_spec(folder: Path, **changes: Any) -> None:
    text = {"name": "shades", "data": {"root": "data"}, "accuracy": LENIENT} | changes
    (folder / "shades.yaml").write_text(yaml.safe_dump(text))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base`, `data`, `shades.yaml`, `runs/shades` and `said.txt`."""
    folder = tmp_path_factory.mktemp("head")
    base_with_int8(folder / "base")
    write_colours(folder / "data")
    write_spec(folder, decision={"unknown": {"score": "embedding", "coverage": 0.8}})
    done = run_here("head", "shades.yaml", "--base", "base", "--json", cwd=folder)
    (folder / "said.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "copy")


def fit(folder: Path, *more: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    return run_here("head", "shades.yaml", "--base", "base", *more, cwd=folder, check=check)


def forms(folder: Path) -> tuple[Bundle, dict[str, BundleEngine]]:
    bundle = Bundle.open(folder / "runs/shades/bundle")
    return bundle, {
        name: BundleEngine.open(folder / "runs/shades/engines" / name, bundle=bundle) for name in (ENGINE, INT8)
    }


def test_the_bundle_is_an_ordinary_one_that_names_its_base(made: Path) -> None:
    bundle, _ = forms(made)
    base = open_base(made / "base").base
    assert bundle.base is not None
    assert bundle.base.id == base.id
    assert bundle.spec.backbone == base.spec.backbone
    assert bundle.spec.preprocess == bundle.preprocess == base.preprocess
    assert bundle.labels == ("blue", "green", "red")
    measured = bundle.manifest.read_measured(BundleMeasured)
    assert measured.origin == "head"
    assert measured.embedding_size == 16
    assert measured.head is not None
    assert measured.head.folds == 5
    assert (measured.top1 or 0) > 0.9
    assert sum(path.stat().st_size for path in bundle.path.glob("head.npz")) < 10_000


def test_each_engine_of_the_base_has_a_form_of_its_own(made: Path) -> None:
    bundle, found = forms(made)
    heads = {name: Head.read(form.path / "head.npz") for name, form in found.items()}
    assert (bundle.path / "head.npz").read_bytes() == (found[ENGINE].path / "head.npz").read_bytes()
    assert np.abs(heads[ENGINE].weights[0] - heads[INT8].weights[0]).max() > 0
    for name, form in found.items():
        assert form.settings.base_engine_sha256 == sha256_file(made / "base/engines" / name / "manifest.json")
        assert form.settings.name == name
        assert form.may_be_served
    means = [form.decision.unknown.class_means for form in found.values() if form.decision.unknown]
    assert means[0] != means[1]


def test_a_form_fitted_to_int8_loses_nothing_where_fp32_s_weights_lose_much(made: Path) -> None:
    _, found = forms(made)
    of_fp32, of_int8 = (found[name].manifest.read_measured(EngineMeasured) for name in (ENGINE, INT8))
    assert of_fp32.carried_over is None
    assert of_int8.carried_over is not None
    assert of_int8.top1 is not None
    assert of_int8.carried_over.top1 is not None
    assert of_int8.top1 >= (of_fp32.top1 or 0) - 0.1
    assert of_int8.carried_over.top1 < of_int8.top1 - 0.1
    said = (made / "said.txt").read_text()
    assert f"with FP32's weights instead of its own: top-1 {of_int8.carried_over.top1:.2%}" in said


def test_the_recorded_answers_are_those_of_base_and_form_run_on_the_images(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    bundle, found = forms(made)
    dataset, form = Dataset.read(bundle.path / DATASET), found[INT8]
    base = open_base(Path("base"))
    options: dict[str, Any] = {"preprocess": bundle.preprocess, "batch_size": 5, "what": "test"}
    seen = predict_served(run_of(base.engine, threads=1), dataset, dataset.of("test"), **options)
    logits_nc = Head.read(form.path / "head.npz").run(seen.embedding_nd)
    status_n = np.zeros(len(logits_nc), np.int32)
    answers = Postprocessor.read(_step(form, bundle)).run(logits_nc, status_n, seen.embedding_nd)
    rows = read_rows(form.path)
    assert [row["label"] for row in rows] == [label.decode() for label in answers.label_nk[:, 0]]
    assert [float(row["score"]) for row in rows] == pytest.approx(answers.score_nk[:, 0].tolist(), abs=1e-5)


def _step(form: BundleEngine, bundle: Bundle) -> Path:
    """A folder as the step has it: the form's decision beside the bundle's labels."""
    folder = form.path.parent / "step"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(form.path / "decision.json", folder / "decision.json")
    shutil.copyfile(bundle.path / "labels.txt", folder / "labels.txt")
    return folder


def test_the_repository_takes_it(made: Path, tmp_path: Path) -> None:
    heads = BaseHeads.named(open_base(made / "base"), [made / "runs/shades"])
    head = heads.open("shades")
    assert head.engine.path.name == INT8
    lane = assemble([], tmp_path / "repository", bases=[heads])
    assert lane.classifiers == {"shades": head.bundle.id}


def test_its_fleet_file_lines_are_those_to_copy(made: Path, tmp_path: Path) -> None:
    lines = (made / "said.txt").read_text().partition("slipway assemble fleet.yaml\n")[2].splitlines()[:4]
    (made / "fleet.yaml").write_text("\n".join(lines) + "\n")
    done = run_here("assemble", "fleet.yaml", "--out", tmp_path / "repository", cwd=made)
    assert done.returncode == 0
    assert (tmp_path / "repository/shades/config.pbtxt").is_file()


def test_what_is_current_stays_and_a_change_is_named(copy: Path) -> None:
    before = Manifest.read(copy / "runs/shades/bundle/manifest.json")
    said = fit(copy, "--json").stdout
    assert "  current: " in said
    assert json.loads(said.splitlines()[-1])["current"] is True
    assert Manifest.read(copy / "runs/shades/bundle/manifest.json") == before
    write_spec(copy)
    assert "runs/shades: the spec changed\n" in fit(copy).stdout
    (copy / "data/red/new.png").write_bytes(coloured(COLOURS["red"], np.random.default_rng(9)))
    assert "runs/shades: the images changed\n" in fit(copy).stdout
    shutil.rmtree(copy / "runs/shades/engines/openvino-int8")
    assert "openvino-int8: no manifest.json here" in fit(copy).stdout
    reseal(copy / "base/engines/openvino-fp32", created="2026-01-01T00:00:00+00:00")
    assert "base/engines/openvino-fp32 was compiled again\n" in fit(copy).stdout


def test_the_same_spec_images_and_base_give_the_same_head(copy: Path) -> None:
    before = forms(copy)[0].id
    shutil.rmtree(copy / "runs")
    shutil.rmtree(copy / "base/embeddings")
    fit(copy)
    assert forms(copy)[0].id == before


def test_its_own_spec_makes_it_again(copy: Path) -> None:
    before = forms(copy)[0].id
    done = run_here("head", "runs/shades/bundle/spec.json", "--base", "base", "--out", "again", cwd=copy)
    assert done.returncode == 0
    assert Bundle.open(copy / "again/bundle").id == before


def test_an_image_that_was_embedded_is_not_decoded_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipway.training.heads.embeddings.pixel_batches", lambda *_, **__: pytest.fail("decoded"))
    write_spec(copy, recipe={"head": {"kind": "mlp", "units": 8}})
    fit(copy)
    assert len(Head.read(copy / "runs/shades/bundle/head.npz").weights) == 2


def test_another_base_is_named_before_the_head_is_fitted_anew(copy: Path) -> None:
    old, new = open_base(copy / "base").base.id, base_with_int8(copy / "other", seed=1)
    done = run_here("head", "shades.yaml", "--base", "other", cwd=copy)
    assert f"runs/shades: it stands on base {old:.12}, now {open_base(new).base.id:.12}" in done.stdout


def test_the_pages_of_evaluation_and_build_say_what_a_head_is(made: Path) -> None:
    done = run_here("evaluate", "runs/shades/bundle", cwd=made)
    assert "a head has no network of its own" in done.stdout
    done = run_here("report", "runs/shades/bundle", "--engines", "runs/shades/engines", cwd=made)
    assert f"cpu lane: The form for the engine that serves tiny, if it passed ({ENGINE}: reference, {INT8}: pass)" in (
        done.stdout
    )
    assert "to do" not in done.stdout
    page = (made / "runs/shades/report.html").read_text()
    assert "A head, all FP32, fitted to the embeddings of tiny." in page
    assert "openvino-int8 has weights of its own. With those of FP32 instead: top-1 " in page


@pytest.mark.parametrize(
    "words", ["quantize BUNDLE --out g/int8", "compile BUNDLE --graphs g --out e", "choose BUNDLE --engines ENGINES"]
)
def test_a_head_has_nothing_to_compile(made: Path, words: str) -> None:
    words = words.replace("BUNDLE", "runs/shades/bundle").replace("ENGINES", "runs/shades/engines")
    assert "a head of tiny, without a graph of its own; slipway head makes its engines" in refused(
        *words.split(), cwd=made
    )


def test_a_form_that_did_not_pass_its_gate_ends_the_verb_with_what_to_change(copy: Path) -> None:
    write_spec(copy, accuracy={})
    done = fit(copy, check=False)
    assert done.returncode == 1
    assert f"accuracy gate: {INT8} serves the base, and the form for it says 'too few images to tell'" in done.stderr
    assert "(accuracy.max_loss_points: 0.5); that takes 736 test images" in done.stderr
    write_spec(copy)
    assert fit(copy).returncode == 0


def test_several_labels_come_from_a_csv_file(tmp_path: Path) -> None:
    base_with_int8(tmp_path / "base")
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    rows = []
    for number in range(120):
        light, label = number % 2, ("blue", "green", "red")[number % 3]
        colour = tuple(min(255, c + 60 * light) for c in COLOURS[label])
        (tmp_path / f"data/{number}.png").write_bytes(coloured(colour, rng))
        rows.append((f"{number}.png", f"{label}|light" if light else label))
    write_table(tmp_path / "labels.csv", [("path", "labels"), *rows])
    write_spec(tmp_path, task="multilabel", data={"root": "data", "csv": "labels.csv"})
    done = fit(tmp_path)
    assert "mAP" in done.stdout
    bundle, found = forms(tmp_path)
    assert bundle.labels == ("blue", "green", "light", "red")
    measured = found[INT8].manifest.read_measured(EngineMeasured)
    assert measured.carried_over is not None
    assert (measured.map or 0) > (measured.carried_over.map or 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": "resnet50"}, "backbone"),
        ({"backbone": {"name": "resnet50"}}, "backbone is that of the base, base/base, and another is given"),
        ({"preprocess": {"input_height": 64, "input_width": 64}}, "preprocess is that of the base"),
        ({"precisions": ["bf16"]}, "precisions is that of the base"),
        ({"recipe": "auto"}, "recipe has preset, which train a network"),
        ({"recipe": {"epochs": 3, "optimizer": "sgd"}}, "recipe has epochs, optimizer, which train a network"),
        ({"recipe": {"head": {"dropout": 0.5}}}, "recipe.head.dropout: 0.5 given"),
        ({"recipe": {"head": {"units": 9}}}, "recipe.head.units: 9 given, but a linear head has no hidden layer"),
        ({"recipe": {"loss": {"kind": "focal"}}}, "recipe.loss.kind: focal given; a head takes cross_entropy"),
        ({"tensorrt": {"optimization_level": 5}}, "tensorrt of a network, and a head has none of its own"),
        ({"data": {"root": "nowhere"}}, "nowhere: no such folder"),
        ({"data": {"root": "empty"}}, "class folders found: none"),
        ({"data": {"root": "few"}}, "class 'red' has 2 different images"),
        ({"decision": {"unknown": {"coverage": 0.99}}}, "needs at least 99 validation images"),
        ({"nmae": "x"}, "unknown key"),
    ],
)
def test_what_a_head_cannot_be_made_from_is_named(copy: Path, changes: dict[str, Any], said: str) -> None:
    (copy / "empty").mkdir()
    shutil.copytree(copy / "data", copy / "few")
    for path in sorted((copy / "few/red").iterdir())[2:]:
        path.unlink()
    write_spec(copy, **changes)
    shutil.rmtree(copy / "runs")
    done = fit(copy, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (copy / "runs/shades/bundle").exists()


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("base", "base/bundle: lies in base, which is read for it"),
        ("base/heads/shades", "base/heads/shades/bundle: lies in base"),
        ("data/head", "data/head/bundle: lies in data"),
    ],
)
def test_a_head_is_not_written_into_what_it_is_made_from(copy: Path, out: str, said: str) -> None:
    done = fit(copy, "--out", out, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    open_base(copy / "base")


def test_a_folder_without_a_base_a_damaged_engine_and_one_that_gives_nan_are_named(copy: Path) -> None:
    assert "no manifest.json here" in run_here("head", "shades.yaml", "--base", "data", cwd=copy, check=False).stderr
    graph = copy / f"base/engines/{INT8}/model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    assert f"{INT8}/model.onnx: changed since this engine was made" in fit(copy, check=False).stderr
    shutil.rmtree(copy / "base")
    base_with_int8(copy / "base", moved=np.nan)
    done = fit(copy, check=False)
    assert f"{INT8}: the embedding of " in done.stderr
    assert "not finite" in done.stderr
    shutil.rmtree(copy / "base/engines/openvino-fp32")
    assert "openvino-fp32: no such engine" in fit(copy, check=False).stderr


def test_an_engine_that_did_not_pass_has_no_form(copy: Path) -> None:
    reseal(copy / f"base/engines/{INT8}", measured={"gate": {"verdict": "fail"}})
    assert f"runs/shades/engines/{INT8}: of an earlier head, for an engine that the base does not" in fit(copy).stdout
    shutil.rmtree(copy / "runs")
    fit(copy)
    assert [path.name for path in (copy / "runs/shades/engines").iterdir()] == [ENGINE]


def test_a_classifier_with_a_graph_of_its_own_is_not_replaced(copy: Path) -> None:
    bundle = copy / "runs/shades/bundle"
    (bundle / "base.json").unlink()
    reseal(bundle)
    done = fit(copy, check=False)
    assert "a classifier with a graph of its own, not a head; give another folder: --out RUN" in done.stderr


def test_torch_is_not_imported() -> None:
    code = "import sys, slipway.cli.head_fit; sys.exit('torch' in sys.modules or 'modelopt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_base_of_one_engine_makes_one_form(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    write_colours(tmp_path / "data", images=15)
    write_spec(tmp_path)
    fit(tmp_path)
    bundle = Bundle.open(tmp_path / "runs/shades/bundle")
    assert BundleEngine.open(tmp_path / "runs/shades/engines" / ENGINE, bundle=bundle).verdict == "reference"
