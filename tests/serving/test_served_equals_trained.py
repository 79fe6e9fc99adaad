"""What Triton answers is what the offline evaluation of the same graph in the same arithmetic said."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slipway.contract import Bundle, BundleEngine
from slipway.repository import Classifier, assemble

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Offline:
    """The offline evaluation of the engine that is served, image by image."""

    bundle: Bundle
    rows: list[dict[str, str]]
    images: list[bytes]


@pytest.fixture(scope="module")
def offline(digits: Path) -> Offline:
    run = digits / "runs/digits"
    with (run / "engines/openvino-int8/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 500
    return Offline(Bundle.open(run / "bundle"), rows, [(run / "data" / row["image"]).read_bytes() for row in rows])


@pytest.fixture(scope="module")
def fused_server(digits: Path, start: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Serves the same bundle and engine with all three steps in one process."""
    run = digits / "runs/digits"
    bundle = Bundle.open(run / "bundle")
    engine = BundleEngine.open(run / "engines/openvino-int8", bundle=bundle)
    settings = bundle.spec.serving.model_copy(update={"layout": "fused"})
    repository = tmp_path_factory.mktemp("fused") / "repository"
    assemble([Classifier(bundle, engine, settings=settings)], repository)
    return start(repository)


@pytest.fixture(params=["steps-grpc", "steps-http", "fused-grpc"])
def client(request: pytest.FixtureRequest, connect: Callable[..., Any]) -> Any:
    layout, _, protocol = request.param.partition("-")
    server = request.getfixturevalue("digits_server" if layout == "steps" else "fused_server")
    return connect(server, protocol)


@pytest.mark.parametrize(
    ("model", "batch_size"),
    [("digits", 1), ("digits", 8), ("digits_full", 8), pytest.param("digits_full", 1, marks=pytest.mark.nightly)],
)
def test_every_test_image_gets_the_label_and_the_score_of_the_offline_evaluation(
    client: Any, offline: Offline, model: str, batch_size: int
) -> None:
    starts = range(0, len(offline.images), batch_size)
    batches = [client.ask(model, offline.images[at : at + batch_size]) for at in starts]
    served = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    assert (served["STATUS"] == 0).all()
    assert (served["BUNDLE"] == offline.bundle.id.encode()).all()
    labels = [label.decode() for label in served["LABEL"][:, 0]]
    pairs = zip(offline.rows, labels, strict=True)
    others = [(row["image"], row["label"], label) for row, label in pairs if row["label"] != label]
    assert others == [], f"{len(others)} of {len(labels)} labels differ: image, offline, served"
    scores = np.array([float(row["score"]) for row in offline.rows])
    assert np.abs(served["SCORE"][:, 0] - scores).max() <= TOLERANCE
    assert [offline.bundle.labels[class_id] for class_id in served["CLASS_ID"][:, 0]] == labels
    assert (np.diff(served["SCORE"]) <= 0).all(), "candidates are best first"
    if model == "digits_full":
        _check_full_outputs(served, labels, offline.bundle.labels)


def _check_full_outputs(served: dict[str, Any], labels: list[str], names: tuple[str, ...]) -> None:
    probability = served["PROBABILITY"]
    assert [names[index] for index in probability.argmax(axis=1)] == labels
    np.testing.assert_allclose(probability.max(axis=1), served["SCORE"][:, 0], atol=1e-6)
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(probability, served["CLASS_ID"], axis=1), served["SCORE"], atol=1e-6)
    assert np.isfinite(served["EMBEDDING"]).all()
    assert served["EMBEDDING"].any(axis=1).all()
    assert len(np.unique(served["EMBEDDING"], axis=0)) > len(labels) * 0.9, "each image has its own embedding"


def test_digits_reaches_98_5_percent_on_the_test_split(digits: Path) -> None:
    evaluation = json.loads((digits / "runs/digits/bundle/evaluation.json").read_text())
    training = json.loads((digits / "runs/digits/checkpoint/manifest.json").read_text())["measured"]
    assert evaluation["split"] == "test"
    assert evaluation["images"] == training["images"]["test"]
    assert evaluation["top1"] >= 0.985
