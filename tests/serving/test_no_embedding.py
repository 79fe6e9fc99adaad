"""A network without an embedding, from a team's ONNX file to answers of the real server, in every layout."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
from PIL import Image

from slipway.client import Client
from slipway.contract import Bundle
from slipway.engines import build_engine
from slipway.evaluation.predict import Float
from slipway.repository import Classifier, assemble
from slipway.serving import Server
from slipway.steps.normalize import normalize
from slipway.steps.preprocess import Preprocessor
from tests.support.image_files import encode
from tests.support.imports import spec, write_images, written
from tests.support.scripts import run_here, run_script

ROOT = Path(__file__).parents[2]
SQUEEZE = ROOT / "tests/assets/faults/squeeze.onnx"
LAYOUTS = ("steps", "shared_decode", "fused")
LABELS = ("red", "green", "blue")
IMAGES = [encode(Image.new("RGB", (32, 32), colour), "PNG") for colour in ((210, 25, 25), (25, 25, 210), (90, 200, 30))]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """SqueezeNet's head: convolution, mean, and nothing after it."""
    folder = tmp_path_factory.mktemp("squeeze")
    (folder / "images").mkdir()
    allowed = {"max_loss_points": 100.0, "max_class_loss_points": 100.0}
    serving = {"instances": 1, "warmup_batches": 1}
    values = spec(write_images(folder / "images"), backbone=None, accuracy=allowed, serving=serving)
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    options = ("--onnx", SQUEEZE, "--labels", "labels.txt", "--no-embedding", "--out", "bundle")
    said = run_here("import", written(folder, values), *options, cwd=folder).stdout
    assert "no embedding: `unknown` is decided by the logits, and <name>_full has no EMBEDDING" in said
    return Bundle.open(folder / "bundle")


@pytest.fixture(scope="module")
def server(start: Callable[[Path], Server], bundle: Bundle) -> Server:
    folder = bundle.path.parent
    engine = build_engine(
        bundle, folder / "graphs", folder / "engines", target="openvino", precision="fp32", reference=None
    )
    assert engine.settings.embedding_size == 0
    layouts = {layout: bundle.spec.serving.model_copy(update={"layout": layout}) for layout in LAYOUTS}
    classifiers = [Classifier(bundle, engine, served_as=f"by_{name}", settings=it) for name, it in layouts.items()]
    other = Classifier(bundle, engine, served_as="other", settings=layouts["steps"])
    assemble([*classifiers, other], folder / "repository", multi={"page": ["by_steps", "other"]})
    return start(folder / "repository")


@pytest.fixture(scope="module")
def probability_nc(bundle: Bundle) -> Float:
    """By ONNX's own reference from the team's file, with the bundle's temperature."""
    config = bundle.preprocess.model_dump()
    pixels_nchw = normalize(Preprocessor(config, max_batch_size=3, threads=1).run(IMAGES)[0], config)
    (logits_nc,) = onnx.reference.ReferenceEvaluator(onnx.load(SQUEEZE)).run(None, {"images": pixels_nchw})
    exponent_nc = np.exp(logits_nc / bundle.decision.temperature)
    found: Float = exponent_nc / exponent_nc.sum(axis=1, keepdims=True)
    return found


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_answers_what_the_teams_file_computes_and_no_embedding(
    layout: str, protocol: str, server: Server, probability_nc: Float
) -> None:
    url = server.grpc_url if protocol == "grpc" else server.http_url
    with Client(f"{protocol}://{url}", model=f"by_{layout}") as client:
        full, plain = (list(client.classify_many(IMAGES, full=full)) for full in (True, False))
    for result, short, expected_c in zip(full, plain, probability_nc, strict=True):
        assert result.error is None
        assert (result.label, result.score) == (short.label, short.score)
        assert result.label == LABELS[int(expected_c.argmax())]
        assert result.embedding is None
        assert result.probability is not None
        np.testing.assert_allclose(result.probability, expected_c, atol=1e-3)


def test_the_script_that_is_made_to_be_copied_takes_it(server: Server, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(IMAGES[0])
    options = ("--url", server.grpc_url, "--model", "other", "--json", "--full")
    said = run_script("clients/classify_grpc.py", tmp_path / "red.png", *options, cwd=ROOT).stdout
    row = json.loads(said.splitlines()[0])
    assert row["error"] is None
    assert len(row["probability"]) == len(LABELS)
    assert "embedding" not in row
