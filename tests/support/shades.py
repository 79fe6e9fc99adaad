"""A task for heads, to tell colours apart, and a second engine for their base, whose embeddings are not FP32's."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from PIL import Image

from slipway.contract import Choice, EngineSettings, Manifest
from slipway.engines.graph import served_graph
from slipway.onnx_graph import save
from slipway.system.files import sha256_file
from tests.support.heads import EMBEDDING_SIZE, ENGINE, PREPROCESS, SIDE, write_base
from tests.support.image_files import encode

INT8 = "openvino-int8"
COLOURS = {"blue": (40, 60, 190), "green": (40, 160, 60), "red": (200, 50, 40)}


def base_with_int8(run: Path, *, moved: float = 20.0, seed: int = 0) -> Path:
    """A run of a base with two engines. The one called INT8, which serves, rounds the embedding and moves it.

    Args:
        moved: how far; NaN for an engine whose embeddings are not finite.
    """
    write_base(run, seed=seed)
    model = onnx.load(run / "base/model.onnx")
    graph = model.graph
    (last,) = (node for node in graph.node if "embedding_nd" in node.output)
    last.output[0] = "still"
    away_d = moved * np.random.default_rng(seed).normal(size=EMBEDDING_SIZE)
    constants = {"step": np.array(0.1, np.float32), "away": away_d.astype(np.float32)}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    steps = (("Div", ["still", "step"]), ("Round", ["Div"]), ("Mul", ["Round", "step"]), ("Add", ["Mul", "away"]))
    graph.node.extend(
        helper.make_node(kind, inputs, ["embedding_nd" if kind == "Add" else kind]) for kind, inputs in steps
    )
    _write_engine(run, model)
    choice, engine = Choice.read(run / "engines/choice.json"), run / "engines" / INT8
    (candidate,) = choice.candidates
    chosen = candidate.model_copy(
        update={"engine": INT8, "manifest_sha256": sha256_file(engine / "manifest.json"), "precision": "int8"}
    )
    choice.model_copy(update={"chosen": INT8, "candidates": (chosen,)}).write(run / "engines/choice.json")
    return run


def _write_engine(run: Path, model: onnx.ModelProto) -> None:
    engine, graph = run / "engines" / INT8, run / "moved.onnx"
    engine.mkdir()
    save(model, graph)
    (engine / "model.onnx").write_bytes(served_graph(graph, PREPROCESS))
    graph.unlink()
    settings = json.loads((run / "engines" / ENGINE / "engine.json").read_text())
    settings |= {"precision": "int8", "graph_sha256": sha256_file(engine / "model.onnx")}
    EngineSettings.parse(settings, source="test").write(engine / "engine.json")
    base = Manifest.read(run / "base/manifest.json")
    Manifest.seal(engine, kind="engine", name=base.name, bundle=base.bundle, measured={"gate": {"verdict": "pass"}})


def write_colours(folder: Path, *, images: int = 30, seed: int = 0) -> Path:
    """So many noisy images of each colour, in class folders."""
    rng = np.random.default_rng(seed)
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for index in range(images):
            (folder / label / f"{index}.png").write_bytes(coloured(colour, rng))
    return folder


def coloured(colour: tuple[int, int, int], rng: np.random.Generator) -> bytes:
    """An image of about this colour."""
    noise_hw3 = rng.normal(0, 40, (SIDE, SIDE, 3)) + rng.normal(0, 25, 3)
    return encode(Image.fromarray(np.clip(np.array(colour) + noise_hw3, 0, 255).astype(np.uint8)), "PNG")
