"""A base of a few random convolutions with two engines, made by hand in a moment, and images for heads on it."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from slipway.contract import Choice, EngineSettings, Manifest, Preprocess
from slipway.contract.base_bundle import BASE_IDENTITY, Base, BaseSpec
from slipway.contract.bundle import CalibrationImage, CalibrationList, identity
from slipway.contract.choice import Candidate
from slipway.engines.served_graph import served_graph
from slipway.onnx_graph import save
from slipway.system.files import sha256_bytes, sha256_file
from tests.support.image_files import encode

SIDE, SIZE = 16, 24
PREPROCESS = Preprocess(input_height=SIDE, input_width=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
COLOURS = {"blue": (40, 60, 190), "green": (40, 160, 60), "red": (200, 50, 40)}


def small_base(run: Path, *, seed: int = 0, shift: float = 3.0, broken: bool = False) -> Base:
    """`run/base` and `run/engines`: FP32, and an INT8 whose embeddings are rounded, and moved by `shift`.

    Args:
        broken: whether INT8 gives NaN.
    """
    base = run / "base"
    (base / "calibration").mkdir(parents=True)
    save(_network(seed), base / "model.onnx")
    PREPROCESS.write(base / "preprocess.json")
    image = encode(Image.new("RGB", (SIDE, SIDE), (90, 90, 90)), "PNG")
    (base / "calibration/00000.png").write_bytes(image)
    listed = CalibrationImage(file="00000.png", class_id=0, sha256=sha256_bytes(image))
    CalibrationList(images=(listed,)).write(base / "calibration.json")
    spec = {"name": "small", "backbone": {"name": "resnet10t"}, "images": "photographs", "precisions": ["int8"]}
    BaseSpec.parse(spec, source="test").write(base / "spec.json")
    found = identity(base, BASE_IDENTITY)
    Manifest.seal(base, kind="base", name="small", bundle=found)
    _engine(run, found, "fp32", "reference", base / "model.onnx")
    moved = run / "moved.onnx"
    save(_network(seed, shift=np.nan if broken else shift), moved)
    _engine(run, found, "int8", "pass", moved)
    moved.unlink()
    choose(run, "openvino-int8")
    return Base.open(base)


def choose(run: Path, engine: str) -> None:
    """Let `choice.json` name this engine."""
    manifest = sha256_file(run / "engines" / engine / "manifest.json")
    candidate = Candidate(engine=engine, manifest_sha256=manifest, precision="int8", verdict="pass", median_ms=1.0)
    Choice(
        bundle=str(Manifest.read(run / "base/manifest.json").bundle),
        chosen=engine,
        reason="test",
        candidates=(candidate,),
        rounds=1,
        images_per_round=1,
        threads=1,
        machine="test",
        versions={},
    ).write(run / "engines/choice.json")


def coloured_images(folder: Path, *, images: int = 40, seed: int = 0) -> None:
    """So many images of each colour, in class folders."""
    rng = np.random.default_rng(seed)
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for index in range(images):
            (folder / label / f"{index}.png").write_bytes(coloured(colour, rng))


def coloured(colour: tuple[int, int, int], rng: np.random.Generator) -> bytes:
    """A noisy image of about this colour."""
    noise_hw3 = rng.normal(0, 40, (SIDE, SIDE, 3)) + rng.normal(0, 25, 3)
    return encode(Image.fromarray(np.clip(np.array(colour) + noise_hw3, 0, 255).astype(np.uint8)), "PNG")


def _network(seed: int, *, shift: float | None = None) -> onnx.ModelProto:
    """A convolution, ReLU, and the mean over the places; with `shift`, rounded, turned round and moved."""
    rng = np.random.default_rng(seed)
    constants = {
        "weight": rng.normal(0, 0.2, (SIZE, 3, 4, 4)).astype(np.float32),
        "bias": rng.normal(0, 0.2, SIZE).astype(np.float32),
        "step": np.array(0.1, np.float32),
        "shift": np.array(0 if shift is None else shift, np.float32) * rng.normal(0, 1, SIZE).astype(np.float32),
    }
    last = "embedding_nd" if shift is None else "mean"
    nodes = [
        helper.make_node("Conv", ["pixels_nchw", "weight", "bias"], ["conv"], strides=[4, 4]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], [last]),
    ]
    if shift is not None:
        nodes += [
            helper.make_node("Div", ["mean", "step"], ["steps"]),
            helper.make_node("Round", ["steps"], ["rounded"]),
            helper.make_node("Mul", ["rounded", "step"], ["quantised"]),
            helper.make_node("Add", ["quantised", "shift"], ["embedding_nd"]),
        ]
    else:
        constants = {name: constants[name] for name in ("weight", "bias")}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("pixels_nchw", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("embedding_nd", TensorProto.FLOAT, ["n", SIZE])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])


def _engine(run: Path, base: str, precision: str, verdict: str, graph: Path) -> None:
    folder = run / f"engines/openvino-{precision}"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(served_graph(graph, PREPROCESS))
    settings = {
        "target": "openvino",
        "precision": precision,
        "arithmetic": "f32",
        "classes": 0,
        "embedding_size": SIZE,
        "input": "pixels_nhwc_u8",
        "graph_sha256": sha256_file(folder / "model.onnx"),
        "calibration_sha256": sha256_file(run / "base/calibration.json"),
    }
    EngineSettings.parse(settings, source="test").write(folder / "engine.json")
    Manifest.seal(folder, kind="engine", name="small", bundle=base, measured={"gate": {"verdict": verdict}})
