"""Writes the repositories of proof `heads`, assembled by `slipway.repository`: one head on a base, and a group of
them."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.gpu_proof.folder import Described
from benchmarks.studies.gpu_proof.server_inputs import PRECISION, play_the_engine

HEADS, FEW = 100, 5


def write_heads(inputs: Path, run: Path, *, small: bool, seed: int) -> Described:
    """Write `heads/alone` and `heads/among`, without the engine's weights, which lie in `precision/digits`; and the
    CPU's embeddings of the photographs. The heads have random weights, as those of the density study. The group has one
    head more than the proof compares: the proof damages it."""
    from benchmarks.studies.density.made import write_random_heads
    from slipway.contract import Bundle
    from slipway.onnx_graph import output_sizes
    from slipway.repository import BaseHeads, assemble
    from slipway.repository.fleet import open_base
    from tests.support.gpu_bases import base_plan, head_form
    from tests.support.heads import write_base

    bundle = Bundle.open(run / "bundle")
    size = output_sizes(bundle.path / "model.onnx")["embedding_nd"]
    heads = FEW if small else HEADS
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        base = write_base(work / "base", name="digits", embedding_size=size, preprocess=bundle.preprocess)
        largest = bundle.spec.serving.gpu.max_batch_size
        plan = base_plan(base, plan={"batch_sizes": [1, largest, largest]})
        runs = write_random_heads(work / "heads", open_base(base), heads + 1, seed=seed)
        for head in runs:
            head_form(head, plan)
        served = open_base(base, lane="gpu")
        for name, some in {"alone": runs[:1], "among": runs}.items():
            assemble([], work / name, bases=[BaseHeads.named(served, some)], lane="gpu")
            shutil.copytree(work / name, inputs / "heads" / name)
            play_the_engine(inputs / "heads" / name, inputs)
    embedding_nd = _embeddings(inputs, bundle, run)
    np.savez(inputs / "heads/embeddings.npz", embedding_nd=embedding_nd)
    return {"heads": heads, "embedding_size": size, "images": len(embedding_nd), "precision": PRECISION}


def _embeddings(inputs: Path, bundle: Any, run: Path) -> Any:
    """Embed the photographs of the proof on the CPU, by DALI and OpenVINO in FP32: FP32 `[n, d]`."""
    from benchmarks.studies.gpu_proof.lane import photographs
    from slipway.steps.engine_openvino import Engine
    from slipway.steps.normalize import normalize
    from slipway.steps.preprocess import Preprocessor

    config = bundle.preprocess.model_dump()
    preprocessor = Preprocessor(config, max_batch_size=1, threads=1)
    engine = Engine(run / "graphs" / PRECISION / "model.onnx", arithmetic="f32", threads=1)
    pixels_nhwc_u8 = np.concatenate([preprocessor.run([image])[0].copy() for image in photographs(inputs)])
    return engine.run(normalize(pixels_nhwc_u8, config))[1].copy()
