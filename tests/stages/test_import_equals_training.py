"""An imported network is the trained one: the demo's weights and graph as a team would have them, and timm's pixels."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_data_config

from slipway.contract import Bundle
from slipway.contract.dataset import Dataset
from slipway.evaluation.predict import predict
from slipway.steps.engine_openvino import Engine
from slipway.steps.normalize import normalize
from slipway.steps.preprocess import Preprocessor
from slipway.system.files import sha256_file
from slipway.training.bundle.importing import preprocess_of
from tests.support.image_files import encode
from tests.support.scripts import run_here

RUN = Path("runs/digits")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def work(digits: Path, tmp_path: Path) -> Path:
    """A folder with a team's labels and spec, and the demo's images where that says they are."""
    (tmp_path / RUN).mkdir(parents=True)
    (tmp_path / RUN / "data").symlink_to(digits / RUN / "data")
    shutil.copy(digits / RUN / "bundle/labels.txt", tmp_path / "labels.txt")
    spec = yaml.safe_load((ROOT / "training/configs/digits.yaml").read_text())
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    return tmp_path


@pytest.fixture(scope="module")
def trained(digits: Path) -> Bundle:
    return Bundle.open(digits / RUN / "bundle")


def imported(work: Path, *options: str) -> Bundle:
    arguments = ["spec.yaml", *options, "--labels", "labels.txt", "--out", "bundle"]
    run_here("import", *arguments, cwd=work)
    return Bundle.open(work / "bundle")


def test_timm_weights_give_the_bundle_that_training_gave(digits: Path, trained: Bundle, work: Path) -> None:
    weights = load_file(digits / RUN / "checkpoint/model.safetensors")
    save_file({name.removeprefix("backbone."): tensor for name, tensor in weights.items()}, work / "team.safetensors")
    assert imported(work, "--weights", "team.safetensors").id == trained.id


def as_a_team_has_it(model: onnx.ModelProto) -> onnx.ModelProto:
    """Other names, and logits alone."""
    names = {"pixels_nchw": "input.1", "logits_nc": "495", "embedding_nd": "/pool/out"}
    graph = model.graph
    del graph.output[1]
    for value in (*graph.input, *graph.output):
        value.name = names[value.name]
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return model


def test_an_onnx_file_gives_the_answers_of_the_bundle_that_it_was_taken_from(
    digits: Path, trained: Bundle, work: Path
) -> None:
    onnx.save(as_a_team_has_it(onnx.load(trained.path / "model.onnx")), work / "team.onnx")
    bundle = imported(work, "--onnx", "team.onnx")
    for name in ("preprocess.json", "labels.txt", "decision.json", "calibration.json", "evaluation.json"):
        assert sha256_file(bundle.path / name) == sha256_file(trained.path / name), name
    dataset = Dataset.read(bundle.path / "dataset.json").model_copy(update={"root": str(digits / RUN / "data")})
    found, expected = (
        predict(
            Engine(folder / "model.onnx", arithmetic="f32", threads=2).run,
            dataset,
            dataset.of("test")[:64],
            preprocess=bundle.preprocess,
            batch_size=16,
            what="test",
        )
        for folder in (bundle.path, trained.path)
    )
    np.testing.assert_allclose(found.logits_nc, expected.logits_nc, atol=1e-4)
    np.testing.assert_allclose(found.embedding_nd, expected.embedding_nd, atol=1e-4)
    assert json.loads((bundle.path / "manifest.json").read_text())["measured"]["tensors"] == {
        "pixels_nchw": "input.1",
        "logits_nc": "495",
        "embedding_nd": "/pool/out",
    }


def photograph(width: int, height: int, *, seed: int) -> Image.Image:
    """Noise, coarse and fine, as smooth as a photograph."""
    rng = np.random.default_rng(seed)
    canvas = np.zeros((height, width, 3))
    for side, weight in ((3, 0.6), (12, 0.3), (40, 0.1)):
        coarse = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
        canvas += weight * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("backbone", "most"),
    [
        ("mobilenetv3_large_100", 0.3),  # crop 0.875
        ("resnet50", 0.3),  # 0.95 of 224: 235.8, which timm rounds down
        ("vit_tiny_patch16_224", 0.3),  # 0.9: 248.9
        ("test_resnet", 0.3),  # bilinear
        ("deepseek_vit_412m", 1),  # border: sides and offsets are rounded in other ways
    ],
)
def test_a_resolved_preprocess_gives_timm_s_own_pixels(
    backbone: str, most: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mean of an image's differences, in grey levels; a resize to a side one pixel off gives 1.4."""
    preprocess, name = preprocess_of(backbone)
    reference = create_transform(**resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(backbone).to_dict()))
    preprocessor = Preprocessor(preprocess.model_dump(), max_batch_size=1, threads=1)
    means = []
    for seed, size in enumerate(((500, 375), (375, 500), (640, 640), (257, 300), (1000, 400))):
        encoded = encode(photograph(*size, seed=seed), "PNG")
        pixels_nhwc_u8, status_n = preprocessor.run([encoded])
        assert status_n.tolist() == [0]
        with Image.open(io.BytesIO(encoded)) as image:
            expected = reference(image.convert("RGB")).numpy()
        pixels_nchw = normalize(pixels_nhwc_u8, preprocess.model_dump())
        levels = np.abs(pixels_nchw[0] - expected) * np.array(preprocess.std)[:, None, None] * 255
        means.append(float(levels.mean()))
    with capsys.disabled():
        print(f"\n{name}: worst image's mean difference from timm's transform {max(means):.3f} grey levels")
    assert max(means) < most
