"""Pages of digits, small: trained for many labels and served as they were evaluated; by night quantised and gated."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from slipway.contract import Bundle, BundleEngine, Spec
from slipway.contract.dataset import Dataset
from slipway.contract.evidence.evaluation import LabelBundleEvaluation, read_bundle_evaluation
from slipway.engines import build_engine, quantize
from slipway.engines.current import installed, stale
from slipway.engines.graph import Graph
from slipway.engines.predictions_csv import read_rows
from slipway.repository import Classifier, assemble
from slipway.system.files import sha256_file
from slipway.training import export, train
from slipway.training.data.demo_data import write_pages

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Pages:
    """Every stage's result."""

    folder: Path
    bundle: Bundle
    reference: BundleEngine


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """After one epoch it knows little, and its answers are compared all the same."""
    return made_pages(tmp_path_factory.mktemp("pages"), pages=200, epochs=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    return made_pages(tmp_path_factory.mktemp("trained"), pages=600, epochs=4)


def made_pages(folder: Path, *, pages: int, epochs: int) -> Pages:
    """Fewer, smaller pages, a shorter training and weaker gates than training/configs/pages.yaml; the rest is that."""
    write_pages(folder / "data", pages=pages, seed=0)
    values = yaml.safe_load((ROOT / "training/configs/pages.yaml").read_text())
    values["data"] = {"root": str(folder / "data"), "csv": str(folder / "data/pages.csv")}
    values["preprocess"] |= {"input_height": 32, "input_width": 32}  # a quarter of the time to train on
    values["recipe"] |= {"epochs": epochs, "loss": {"kind": "focal", "gamma": 1.0}, "balance": "square_root"}
    values["calibration"]["images"] = 64
    limits = {"max_loss_points": 30.0, "max_class_loss_points": 60.0, "max_flip_points": 90.0}
    values["accuracy"] = {**limits, "prove_classes": False}
    train(Spec.parse(values, source="test"), folder / "checkpoint")
    export(folder / "checkpoint", folder / "bundle")
    bundle = Bundle.open(folder / "bundle")
    parts = (bundle, folder / "graphs", folder / "engines")
    reference = build_engine(*parts, target="openvino", precision="fp32", reference=None)
    return Pages(folder, bundle, reference)


@pytest.fixture(scope="module")
def int8(trained: Pages) -> BundleEngine:
    quantize(trained.bundle, trained.folder / "graphs/int8")
    parts = (trained.bundle, trained.folder / "graphs", trained.folder / "engines")
    return build_engine(*parts, target="openvino", precision="int8", reference=trained.reference)


@pytest.fixture(scope="module")
def server(pages: Pages, start: Callable[[Path], Any]) -> Any:
    assemble([Classifier(pages.bundle, pages.reference)], pages.folder / "repository")
    return start(pages.folder / "repository")


@pytest.mark.parametrize("model", ["pages", "pages_full"])
def test_every_page_gets_the_labels_and_the_scores_of_the_offline_evaluation(
    pages: Pages, server: Any, connect: Callable[..., Any], model: str
) -> None:
    rows, client = read_rows(pages.reference.path), connect(server, "grpc")
    images = [(pages.folder / "data" / row["image"]).read_bytes() for row in rows]
    batches = [client.ask(model, images[at : at + 8]) for at in range(0, len(images), 8)]
    served = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert (served["STATUS"] == 0).all()
    labels = pages.bundle.labels
    for row, label_k, score_k, class_id_k in zip(
        rows, served["LABEL"], served["SCORE"], served["CLASS_ID"], strict=True
    ):
        answered = {label.decode(): score for label, score in zip(label_k, score_k, strict=True) if label}
        offline = dict(zip(json.loads(row["label"]), json.loads(row["score"]), strict=True))
        assert answered.keys() == offline.keys(), row["image"]
        assert all(abs(answered[label] - score) <= 1e-4 for label, score in offline.items())
        assert [labels[class_id] for class_id in class_id_k if class_id >= 0] == list(answered)
        assert (np.diff(score_k) <= 0).all(), "labels are best first"
    if model == "pages_full":
        given_nc = served["PROBABILITY"] >= np.array(pages.reference.decision.thresholds, np.float32)
        assert given_nc.sum(axis=1).max() > 1, "some page has several labels"
        assert (np.minimum(given_nc.sum(axis=1), 3) == (served["CLASS_ID"] >= 0).sum(axis=1)).all()


@pytest.mark.nightly
def test_it_has_learnt_and_the_bundle_is_complete(trained: Pages) -> None:
    decision, dataset = trained.bundle.decision, Dataset.read(trained.bundle.path / "dataset.json")
    assert decision.task == "multilabel"
    assert decision.thresholds is not None
    assert decision.platt is not None
    assert len(decision.thresholds) == len(decision.platt) == 10
    evaluation = read_bundle_evaluation(trained.bundle.path, task=trained.bundle.decision.task)
    assert isinstance(evaluation, LabelBundleEvaluation)
    assert evaluation.map > 0.5, "by chance it would be about 0.19"
    assert evaluation.images == len(dataset.of("test")) == 150
    assert evaluation.map_interval[0] <= evaluation.map <= evaluation.map_interval[1]
    history = json.loads((trained.folder / "checkpoint/history.json").read_text())
    assert {"val_map", "val_macro_f1", "val_loss", "train_loss"} <= set(history[-1])


@pytest.mark.nightly
def test_an_engine_has_its_own_platt_and_thresholds_and_its_evidence_stands(trained: Pages, int8: BundleEngine) -> None:
    assert trained.reference.decision == trained.bundle.decision, "the same graph in the same arithmetic"
    assert int8.decision.platt != trained.bundle.decision.platt
    assert int8.verdict == "pass"
    measured = int8.manifest.measured
    assert measured["gate"]["unit"] == "all labels"
    assert measured["map"] > 0.5
    graph = Graph.open(trained.bundle, trained.folder / "graphs", "int8")
    options: dict[str, Any] = {"precision": "int8", "compiler": installed("openvino"), "reference": trained.reference}
    assert stale(int8.path, trained.bundle, graph, **options) is None


@pytest.mark.nightly
def test_exporting_again_gives_the_same_bundle(trained: Pages) -> None:
    again = export(trained.folder / "checkpoint", trained.folder / "again")
    assert again.bundle == trained.bundle.id
    names = ("evaluation.json", "decision.json")
    assert [sha256_file(trained.folder / "again" / name) for name in names] == [
        sha256_file(trained.bundle.path / name) for name in names
    ]
