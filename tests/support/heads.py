"""Tiny bases and heads of seeded random weights, written without training: a thousand heads take seconds."""

import base64
import shutil
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from slipway.contract import Bundle, Decision, EngineSettings, Manifest, Preprocess, Spec, bundle_id
from slipway.contract.base_bundle import BASE_IDENTITY, BaseSpec
from slipway.contract.bundle import BaseLink, identity
from slipway.contract.manifest import hashes
from slipway.engines.graph import served_graph
from slipway.onnx_graph import SERVED_INPUT, save
from slipway.repository import BaseHeads
from slipway.repository.fleet import open_base
from slipway.steps.head import Head
from slipway.system.files import sha256_file
from tests.support.choices import write_only_choice
from tests.support.colours import COLOURS

SIDE, EMBEDDING_SIZE = 32, 16
ENGINE = "openvino-fp32"
PREPROCESS = Preprocess(input_height=SIDE, input_width=SIDE, resize="pad")
BACKBONE = {"name": "by-hand", "pretrained": False}
SERVING = {"instances": 1, "threads": 1, "max_batch_size": 8, "warmup_batches": 1}


def write_base(
    run: Path,
    *,
    name: str = "tiny",
    seed: int = 0,
    embedding_size: int = EMBEDDING_SIZE,
    preprocess: Preprocess = PREPROCESS,
) -> Path:
    """A run of a base, `base/` and `engines/`, whose embedding is the mean over a convolution of random weights."""
    base, engine = run / "base", run / "engines" / ENGINE
    engine.mkdir(parents=True)
    shutil.copytree(COLOURS / "bundle/calibration", base / "calibration")
    shutil.copyfile(COLOURS / "bundle/calibration.json", base / "calibration.json")
    preprocess.write(base / "preprocess.json")
    save(_network(seed, embedding_size), base / "model.onnx")
    spec = {"name": name, "backbone": BACKBONE, "images": "images", "serving": SERVING}
    BaseSpec.parse(spec | {"precisions": ["fp32"]}, source="test").write(base / "spec.json")
    base_id = identity(base, BASE_IDENTITY)
    seal(base, kind="base", name=name, bundle=base_id)
    (engine / "model.onnx").write_bytes(served_graph(base / "model.onnx", preprocess))
    calibration = sha256_file(base / "calibration.json")
    _settings(engine, graph="model.onnx", embedding_size=embedding_size, calibration_sha256=calibration)
    seal(engine, kind="engine", name=name, bundle=base_id, measured={"gate": {"verdict": "reference"}})
    write_only_choice(engine, bundle=base_id)
    return run


def write_head(
    run: Path,
    base: Path,
    *,
    name: str,
    labels: Sequence[str] = ("blue", "green", "red"),
    decision: dict[str, Any] | None = None,
    hidden: int = 0,
    seed: int = 0,
) -> Path:
    """A run of a head, `bundle/` and `engines/`, on the base of the run `base`.

    Args:
        decision: keys of `decision.json` that differ from multi-class, the best two labels, no `unknown`.
        hidden: width of a hidden layer; 0 for none.
    """
    bundle, engine = run / "bundle", run / "engines" / ENGINE
    bundle.mkdir(parents=True)
    engine.mkdir(parents=True)
    settings = EngineSettings.read(base / "engines" / ENGINE / "engine.json")
    rng = np.random.default_rng(seed)
    sizes = [settings.embedding_size, *([hidden] if hidden else []), len(labels)]
    weights = [rng.normal(size=size).astype(np.float32) for size in pairwise(sizes)]
    head = Head(weights, [rng.normal(size=size).astype(np.float32) for size in sizes[1:]])
    decided = Decision.parse({"task": "multiclass", "top_k": 2, **(decision or {})}, source="test")
    for folder in (bundle, engine):
        head.save(folder / "head.npz")
        decided.write(folder / "decision.json")
    of_base = Manifest.read(base / "base/manifest.json")
    link = BaseLink(id=str(of_base.bundle), name=of_base.name, embedding_size=settings.embedding_size)
    link.write(bundle / "base.json")
    PREPROCESS.write(bundle / "preprocess.json")
    (bundle / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    _head_spec(name, decided.task).write(bundle / "spec.json")
    head_id = bundle_id(bundle)
    seal(bundle, kind="bundle", name=name, bundle=head_id)
    of_engine = sha256_file(base / "engines" / ENGINE / "manifest.json")
    _settings(
        engine,
        graph="head.npz",
        input="embedding_nd",
        classes=len(labels),
        embedding_size=settings.embedding_size,
        base_engine_sha256=of_engine,
    )
    seal(engine, kind="engine", name=name, bundle=head_id, measured={"gate": {"verdict": "pass"}})
    return run


def write_heads(folder: Path, base: Path, count: int) -> list[Path]:
    """Runs `h0000`, `h0001`, … of heads of several sizes and tasks, with and without `unknown`."""
    return [_varied(folder / f"h{number:04}", base, number) for number in range(count)]


def open_heads(base: Path, heads: Iterable[Path]) -> list[BaseHeads]:
    """The base with its heads, ready for `assemble`."""
    return [BaseHeads.named(open_base(base), heads)]


def class_means(classes: int, *, size: int = EMBEDDING_SIZE, seed: int = 0) -> dict[str, Any]:
    """`class_means` of a decision that finds `unknown` in the embedding."""
    steps_cd = np.random.default_rng(seed).integers(-127, 128, size=(classes, size)).astype(np.int8)
    return {"int8": base64.b64encode(steps_cd.tobytes()).decode(), "step": 0.01}


def head_of(run: Path) -> tuple[Bundle, Head]:
    """What a head answers with, to compute its answers without a server."""
    return Bundle.open(run / "bundle"), Head.read(run / "engines" / ENGINE / "head.npz")


def _varied(run: Path, base: Path, number: int) -> Path:
    classes = 2 + number % 7
    size = EngineSettings.read(base / "engines" / ENGINE / "engine.json").embedding_size
    means = class_means(classes, size=size, seed=number)
    decisions: tuple[dict[str, Any], ...] = (
        {},
        {"unknown": {"threshold": 0.6}},
        {"task": "multilabel", "thresholds": [0.5] * classes},
        {"unknown": {"score": "embedding", "threshold": -3.0, "class_means": means}},
    )
    labels = [f"class{index}" for index in range(classes)]
    hidden = 8 if number % 5 == 4 else 0
    decision = decisions[number % len(decisions)]
    return write_head(run, base, name=run.name, labels=labels, decision=decision, hidden=hidden, seed=number)


def _network(seed: int, embedding_size: int) -> onnx.ModelProto:
    kernel = np.random.default_rng(seed).normal(size=(embedding_size, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["pixels_nchw", "kernel"], ["conv"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["embedding_nd"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("pixels_nchw", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("embedding_nd", TensorProto.FLOAT, ["n", embedding_size])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _head_spec(name: str, task: str) -> Spec:
    text = {"name": name, "task": task, "data": {"root": "images"}, "backbone": BACKBONE, "serving": SERVING}
    return Spec.parse(text | {"preprocess": PREPROCESS.plain()}, source="test")


def _settings(engine: Path, *, graph: str, embedding_size: int, **more: Any) -> None:
    text = {
        "target": "openvino",
        "precision": "fp32",
        "arithmetic": "f32",
        "classes": 0,
        "embedding_size": embedding_size,
        "input": SERVED_INPUT,
        "graph_sha256": sha256_file(engine / graph),
        "calibration_sha256": None,
    }
    EngineSettings.parse(text | more, source="test").write(engine / "engine.json")


def seal(folder: Path, **fields: Any) -> None:
    """`Manifest.seal` without the commit, for which git takes longer than all the rest."""
    Manifest.parse({**fields, "outputs": hashes(folder)}, source="test").write(folder / "manifest.json")
