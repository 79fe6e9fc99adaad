"""Networks as other teams export them: the mean colour, then a linear head."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from slipway.onnx_graph import save
from slipway.steps.engine_openvino import Engine
from slipway.training.bundle.from_onnx import Adopted, adopt

SIZE = (8, 8)
HEAD = np.array([[4, -1], [-2, 3], [1, 1]], np.float32)  # [d, classes]
BIAS = np.array([0.5, -0.5], np.float32)
PIXELS = np.random.default_rng(1).standard_normal((4, 3, *SIZE), np.float32)
MEANS = PIXELS.mean(axis=(2, 3))
Nodes = list[onnx.NodeProto]

node = helper.make_node
POOL = [node("GlobalAveragePool", ["images"], ["pooled"]), node("Flatten", ["pooled"], ["features"])]
LINEAR = [node("MatMul", ["features", "weight"], ["product"]), node("Add", ["product", "bias"], ["scores"])]


def value(name: str, *shape: int | str, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def team(
    *,
    nodes: Nodes | None = None,
    inputs: list[onnx.ValueInfoProto] | None = None,
    outputs: list[onnx.ValueInfoProto] | None = None,
    weights: dict[str, NDArray[Any]] | None = None,
    opset: int = 17,
    domains: tuple[str, ...] = (),
    **options: Any,
) -> onnx.ModelProto:
    """Mean colour, then a linear head: `images` in, `scores` out."""
    graph = helper.make_graph(
        nodes or [*POOL, *LINEAR],
        "team",
        inputs or [value("images", "batch", 3, *SIZE)],
        outputs or [value("scores", "batch", 2)],
        [
            numpy_helper.from_array(array, name)
            for name, array in ({"weight": HEAD, "bias": BIAS} | (weights or {})).items()
        ],
    )
    opsets = [
        helper.make_opsetid(domain, version) for domain, version in (("", opset), *((name, 1) for name in domains))
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **options)


LOGITS_INSIDE = [value("probabilities", "batch", 2)]


def assert_answers(found: Adopted, folder: Path) -> None:
    """The graph passes as one of ours, and computes what `team` computes."""
    save(found.model, folder / "model.onnx")
    assert {value.name for value in onnx.load(folder / "model.onnx").graph.output} == {"logits_nc", "embedding_nd"}
    logits_nc, embedding_nd = Engine(folder / "model.onnx", arithmetic="f32", threads=1).run(PIXELS)
    np.testing.assert_allclose(embedding_nd, MEANS, atol=1e-5)
    np.testing.assert_allclose(logits_nc, MEANS @ HEAD + BIAS, atol=1e-5)


@pytest.fixture
def adopted(tmp_path: Path) -> Callable[..., Adopted]:
    """`adopted(model)` writes and adopts it."""

    def call(model: onnx.ModelProto, *, logits: str | None = None, embedding: str | None = None) -> Adopted:
        onnx.save(model, tmp_path / "team.onnx")
        return adopt(tmp_path / "team.onnx", input_size=SIZE, logits=logits, embedding=embedding)

    return call
