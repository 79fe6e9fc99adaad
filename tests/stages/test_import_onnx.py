"""Teams' ONNX files: tensors of any name are found, and what cannot be served is refused with a remedy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from slipway.contract import ExportError
from slipway.system.files import sha256_file
from slipway.training.bundle.from_onnx import Adopted
from tests.support import team_graphs as fixtures
from tests.support.team_graphs import HEAD, LINEAR, LOGITS_INSIDE, POOL, SIZE, assert_answers, node, team, value

adopted = fixtures.adopted


def test_names_are_taken_over_and_the_embedding_is_what_the_head_sees(
    adopted: Callable[..., Adopted], tmp_path: Path
) -> None:
    found = adopted(team())
    assert found.tensors == {"pixels_nchw": "images", "logits_nc": "scores", "embedding_nd": "features"}
    assert (found.classes, found.opset) == (2, 17)
    assert found.files == {"team.onnx": sha256_file(tmp_path / "team.onnx")}
    assert_answers(found, tmp_path)


GEMM = helper.make_node("Gemm", ["features", "transposed", "bias"], ["scores"], transB=1)
FITTING: dict[str, tuple[Callable[[], onnx.ModelProto], dict[str, str]]] = {
    "Gemm": (lambda: team(nodes=[*POOL, GEMM], weights={"transposed": HEAD.T.copy()}), {}),
    "weights that a node transposes": (
        lambda: team(
            nodes=[
                node("Transpose", ["transposed"], ["turned"]),
                *POOL,
                node("MatMul", ["features", "turned"], ["product"]),
                LINEAR[1],
            ],
            weights={"transposed": HEAD.T.copy()},
        ),
        {},
    ),
    "our names in other places": (
        lambda: team(
            nodes=[
                node("GlobalAveragePool", ["logits_nc"], ["pixels_nchw"]),
                node("Flatten", ["pixels_nchw"], ["features"]),
                node("MatMul", ["features", "weight"], ["product"]),
                node("Add", ["product", "bias"], ["embedding_nd"]),
            ],
            inputs=[value("logits_nc", "batch", 3, *SIZE)],
            outputs=[value("embedding_nd", "batch", 2)],
        ),
        {"embedding": "features"},
    ),
    "the input of a softmax": (
        lambda: team(nodes=[*POOL, *LINEAR, node("Softmax", ["scores"], ["probabilities"])], outputs=LOGITS_INSIDE),
        {"logits": "scores"},
    ),
    "several outputs": (
        lambda: team(outputs=[value("pooled", "batch", 3, 1, 1), value("scores", "batch", 2)]),
        {"logits": "scores"},
    ),
    "an unnamed batch and free sides": (
        lambda: team(inputs=[helper.make_tensor_value_info("images", TensorProto.FLOAT, [None, 3, None, None])]),
        {},
    ),
    "initializers that are inputs too": (
        lambda: team(inputs=[value("images", "batch", 3, *SIZE), value("weight", 3, 2), value("bias", 2)]),
        {},
    ),
    "an old opset": (lambda: team(opset=11), {}),
}


@pytest.mark.parametrize("case", FITTING)
def test_graphs_of_many_forms_give_the_same_answers(case: str, adopted: Callable[..., Adopted], tmp_path: Path) -> None:
    make, options = FITTING[case]
    assert_answers(adopted(make(), **options), tmp_path)


def test_an_old_opset_is_converted_and_a_recent_one_is_left(adopted: Callable[..., Adopted]) -> None:
    old, recent = adopted(team(opset=11)), adopted(team(opset=13))
    assert (old.opset, old.model.opset_import[0].version) == (11, 18)
    assert (recent.opset, recent.model.opset_import[0].version) == (13, 13)


def test_what_neither_output_needs_is_left_out(adopted: Callable[..., Adopted]) -> None:
    nodes = [*POOL, *LINEAR, node("Mul", ["scores", "big"], ["more"]), node("Softmax", ["more"], ["probabilities"])]
    found = adopted(team(nodes=nodes, outputs=LOGITS_INSIDE, weights={"big": np.ones(2, np.float32)}), logits="scores")
    assert {tensor.name for tensor in found.model.graph.initializer} == {"weight", "bias"}
    assert [inner.op_type for inner in found.model.graph.node] == ["GlobalAveragePool", "Flatten", "MatMul", "Add"]


def test_names_inside_of_branches_follow(adopted: Callable[..., Adopted], tmp_path: Path) -> None:
    branches = {
        f"{branch}_branch": helper.make_graph(
            [node("Add", ["product", name], [f"{branch}_scores"])], branch, [], [value(f"{branch}_scores", "batch", 2)]
        )
        for branch, name in (("then", "bias"), ("else", "product"))
    }
    nodes = [*POOL, LINEAR[0], node("If", ["yes"], ["scores"], **branches)]
    model = team(nodes=nodes, weights={"yes": np.array(True)})
    assert_answers(adopted(model, embedding="features"), tmp_path)
    with pytest.raises(ExportError, match=r"--embedding NAME"):
        adopted(model)
