"""What Triton answers is what the offline evaluation of the same graph in the same arithmetic said."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slipway.contract import Bundle

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def evaluated(digits: Path) -> list[dict[str, str]]:
    """The offline evaluation of the engine that is served, image by image."""
    with (digits / "runs/digits/engines/openvino-int8/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 500
    return rows


@pytest.fixture(scope="module")
def images(digits: Path, evaluated: list[dict[str, str]]) -> list[bytes]:
    return [(digits / "runs/digits/data" / row["image"]).read_bytes() for row in evaluated]


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("model", ["digits", "digits_full"])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_every_test_image_gets_the_label_and_the_score_of_the_offline_evaluation(
    digits: Path,
    digits_server: Any,
    connect: Callable[..., Any],
    evaluated: list[dict[str, str]],
    images: list[bytes],
    protocol: str,
    model: str,
    batch_size: int,
) -> None:
    bundle = Bundle.open(digits / "runs/digits/bundle")
    client = connect(digits_server, protocol)
    batches = [client.ask(model, images[at : at + batch_size]) for at in range(0, len(images), batch_size)]
    served = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    assert (served["STATUS"] == 0).all()
    assert (served["BUNDLE"] == bundle.id.encode()).all()
    labels = [label.decode() for label in served["LABEL"][:, 0]]
    others = [
        (row["image"], row["label"], label) for row, label in zip(evaluated, labels, strict=True) if row["label"] != label
    ]
    assert others == [], f"{len(others)} of {len(evaluated)} labels differ: image, offline, served"
    scores = np.array([float(row["score"]) for row in evaluated])
    assert np.abs(served["SCORE"][:, 0] - scores).max() <= TOLERANCE
    assert [bundle.labels[class_id] for class_id in served["CLASS_ID"][:, 0]] == labels
    assert (np.diff(served["SCORE"]) <= 0).all(), "candidates are best first"
    if model == "digits_full":
        _check_full_outputs(served, labels, bundle.labels)


def _check_full_outputs(served: dict[str, Any], labels: list[str], names: tuple[str, ...]) -> None:
    probability = served["PROBABILITY"]
    assert [names[index] for index in probability.argmax(axis=1)] == labels
    np.testing.assert_allclose(probability.max(axis=1), served["SCORE"][:, 0], atol=1e-6)
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(probability, served["CLASS_ID"], axis=1), served["SCORE"], atol=1e-6)
    assert np.isfinite(served["EMBEDDING"]).all()
    assert served["EMBEDDING"].any(axis=1).all()
    assert len(np.unique(served["EMBEDDING"], axis=0)) > len(labels) * 0.9, "each image has its own embedding"


def test_digits_reaches_98_5_percent_on_the_test_split_within_three_minutes_of_training(digits: Path) -> None:
    evaluation = json.loads((digits / "runs/digits/bundle/evaluation.json").read_text())
    training = json.loads((digits / "runs/digits/checkpoint/manifest.json").read_text())["measured"]
    assert evaluation["split"] == "test"
    assert evaluation["images"] == training["images"]["test"]
    assert evaluation["top1"] >= 0.985
    assert training["train_s"] < 180
