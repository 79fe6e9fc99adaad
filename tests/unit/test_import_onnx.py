"""Teams' ONNX files: tensors of any name are found, and what cannot be served is refused with a remedy."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from slipway.contract import ExportError, SpecError
from slipway.contract.files import sha256_file
from slipway.onnx_graph import save
from slipway.steps.engine_openvino import Engine
from slipway.training import from_onnx
from slipway.training.from_onnx import Adopted, adopt

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
    weights: dict[str, np.ndarray] | None = None,
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


@pytest.fixture
def adopted(tmp_path: Path) -> Callable[..., Adopted]:
    """`adopted(model)` writes and adopts it."""

    def call(model: onnx.ModelProto, *, logits: str | None = None, embedding: str | None = None) -> Adopted:
        onnx.save(model, tmp_path / "team.onnx")
        return adopt(tmp_path / "team.onnx", input_size=SIZE, logits=logits, embedding=embedding)

    return call


def assert_answers(found: Adopted, folder: Path) -> None:
    """The graph passes as one of ours, and computes what `team` computes."""
    save(found.model, folder / "model.onnx")
    assert {value.name for value in onnx.load(folder / "model.onnx").graph.output} == {"logits_nc", "embedding_nd"}
    logits_nc, embedding_nd = Engine(folder / "model.onnx", arithmetic="f32", threads=1).run(PIXELS)
    np.testing.assert_allclose(embedding_nd, MEANS, atol=1e-5)
    np.testing.assert_allclose(logits_nc, MEANS @ HEAD + BIAS, atol=1e-5)


def test_names_are_taken_over_and_the_embedding_is_what_the_head_sees(
    adopted: Callable[..., Adopted], tmp_path: Path
) -> None:
    found = adopted(team())
    assert found.tensors == {"pixels_nchw": "images", "logits_nc": "scores", "embedding_nd": "features"}
    assert (found.classes, found.opset) == (2, 17)
    assert found.files == {"team.onnx": sha256_file(tmp_path / "team.onnx")}
    assert_answers(found, tmp_path)


GEMM = helper.make_node("Gemm", ["features", "transposed", "bias"], ["scores"], transB=1)
LOGITS_INSIDE = [value("probabilities", "batch", 2)]
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


def without(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    kept = [tensor for tensor in model.graph.initializer if tensor.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


FAULTS: dict[str, tuple[Callable[[], onnx.ModelProto], dict[str, str], str]] = {
    "a softmax": (
        lambda: team(nodes=[*POOL, *LINEAR, node("Softmax", ["scores"], ["probabilities"])], outputs=LOGITS_INSIDE),
        {},
        "probabilities ends in Softmax: probabilities, where .* needs logits; .* --logits scores, or export",
    ),
    "a sigmoid behind an identity": (
        lambda: team(
            nodes=[*POOL, *LINEAR, node("Sigmoid", ["scores"], ["p"]), node("Identity", ["p"], ["probabilities"])],
            outputs=LOGITS_INSIDE,
        ),
        {},
        "ends in Sigmoid: .* --logits scores",
    ),
    "a softmax written out": (
        lambda: team(
            nodes=[
                *POOL,
                *LINEAR,
                node("Exp", ["scores"], ["exp"]),
                node("ReduceSum", ["exp", "axis"], ["sum"]),
                node("Div", ["exp", "sum"], ["probabilities"]),
            ],
            outputs=LOGITS_INSIDE,
            weights={"axis": np.array([1])},
        ),
        {"embedding": "features"},
        "logits_nc are probabilities: they sum to 1; export the network without its softmax",
    ),
    "several outputs": (
        lambda: team(outputs=[value("features", "batch", 3), value("scores", "batch", 2)]),
        {},
        r"2 outputs \(features FLOAT \[batch, 3\], scores FLOAT \[batch, 2\]\); say which .* --logits NAME",
    ),
    "a tensor that is not there": (
        team,
        {"logits": "logits"},
        r"--logits logits: the graph computes no such tensor; its outputs are scores FLOAT \[batch, 2\]",
    ),
    "a head without a matrix product": (
        lambda: team(nodes=[*POOL, node("Neg", ["features"], ["scores"])], outputs=[value("scores", "batch", 3)]),
        {},
        "what the last matrix product before scores sees was not found, .* --embedding NAME",
    ),
    "an embedding that is no vector": (
        team,
        {"embedding": "pooled"},
        r"embedding_nd is \[1, 3, 1, 1\] for one image .* --embedding",
    ),
    "two inputs": (
        lambda: team(inputs=[value("images", "batch", 3, *SIZE), value("mask", "batch", 1)]),
        {},
        r"2 inputs \(images FLOAT \[batch, 3, 8, 8\], mask FLOAT \[batch, 1\]\); export it with one",
    ),
    "half precision pixels": (
        lambda: team(
            nodes=[node("Cast", ["half"], ["images"], to=TensorProto.FLOAT), *POOL, *LINEAR],
            inputs=[value("half", "batch", 3, *SIZE, dtype=TensorProto.FLOAT16)],
        ),
        {},
        "the input is half FLOAT16 .*; export it with an FP32 input",
    ),
    "bytes for pixels": (
        lambda: team(
            nodes=[node("Cast", ["bytes"], ["images"], to=TensorProto.FLOAT), *POOL, *LINEAR],
            inputs=[value("bytes", "batch", 3, *SIZE, dtype=TensorProto.UINT8)],
        ),
        {},
        "the input is bytes UINT8 .*; export it with an FP32 input",
    ),
    "channels last": (
        lambda: team(
            nodes=[node("Transpose", ["nhwc"], ["images"], perm=[0, 3, 1, 2]), *POOL, *LINEAR],
            inputs=[value("nhwc", "batch", *SIZE, 3)],
        ),
        {},
        "channels last; export it with .n, 3, H, W. .tf2onnx: --inputs-as-nchw",
    ),
    "one channel": (
        lambda: team(inputs=[value("images", "batch", 1, *SIZE)], weights={"weight": HEAD[:1]}),
        {},
        "images have 3 channels here, RGB",
    ),
    "vectors": (
        lambda: team(nodes=LINEAR, inputs=[value("features", "batch", 3)]),
        {},
        r"the input is features FLOAT \[batch, 3\]; export it with \[n, 3, H, W\]",
    ),
    "a fixed batch": (
        lambda: team(inputs=[value("images", 4, 3, *SIZE)], outputs=[value("scores", 4, 2)]),
        {},
        "a fixed batch of 4; export it with a dynamic one",
    ),
    "a fixed batch inside": (
        lambda: team(
            nodes=[POOL[0], node("Reshape", ["pooled", "one"], ["features"]), *LINEAR],
            weights={"one": np.array([1, 3])},
        ),
        {},
        "OpenVINO cannot run it for batches of 1 and 3|dynamic batch throughout",
    ),
    "images that see each other": (
        lambda: team(
            nodes=[
                *POOL,
                *LINEAR,
                node("ReduceMean", ["scores"], ["mean"], axes=[0]),
                node("Sub", ["scores", "mean"], ["centred"]),
            ],
            outputs=[value("centred", "batch", 2)],
        ),
        {"embedding": "features"},
        "logits_nc of an image depends on the others in its batch",
    ),
    "another input size": (
        lambda: team(inputs=[value("images", "batch", 3, 16, 8)]),
        {},
        "3, 16, 8., and preprocess makes 8x8 pixels: change preprocess.input_height",
    ),
    "NaN in a weight": (
        lambda: team(weights={"weight": HEAD * np.float32("nan")}),
        {},
        "NaN in the weights: weight; export from a checkpoint that is sound",
    ),
    "infinite weights": (
        lambda: team(weights={"bias": BIAS * np.float32("inf")}),
        {},
        "logits_nc is NaN or infinite for random pixels",
    ),
    "operators of somebody": (
        lambda: team(
            nodes=[*POOL, LINEAR[0], node("Plus", ["product", "bias"], ["scores"], domain="my.ops")],
            domains=("my.ops",),
        ),
        {},
        "operators outside of ONNX: my.ops.Plus; export with ONNX's own",
    ),
    "a quantised graph": (
        lambda: team(
            nodes=[
                *POOL,
                node("QuantizeLinear", ["features", "scale"], ["q"]),
                node("DequantizeLinear", ["q", "scale"], ["dq"]),
                node("MatMul", ["dq", "weight"], ["product"]),
                LINEAR[1],
            ],
            weights={"scale": np.float32(0.1)},
        ),
        {},
        r"quantised already \(DequantizeLinear, QuantizeLinear\); give the FP32 graph",
    ),
    "half precision weights": (
        lambda: team(weights={"weight16": HEAD.astype(np.float16)}),
        {},
        "weights in half precision: weight16; give the FP32 graph",
    ),
    "no weights": (lambda: without(team(), "weight"), {}, "does not pass ONNX's own checks: .*weight"),
    "shapes that do not fit": (
        lambda: team(weights={"weight": HEAD[:2]}),
        {},
        "OpenVINO cannot run it",
    ),
    "no nodes": (onnx.ModelProto, {}, "does not pass ONNX's own checks: .*ir_version"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_graph_that_cannot_be_served_is_refused_with_what_to_do(
    fault: str, adopted: Callable[..., Adopted], tmp_path: Path
) -> None:
    make, options, message = FAULTS[fault]
    with pytest.raises(ExportError, match=rf"team\.onnx: .*({message})"):
        adopted(make(), **options)
    assert os.listdir(tmp_path) == ["team.onnx"]


@pytest.mark.parametrize("kept", [0, 0.01, 0.5, 0.9, 0.99, -1])
def test_a_file_that_was_cut_short_is_refused_by_name(kept: float, tmp_path: Path) -> None:
    data = team().SerializeToString()
    (tmp_path / "team.onnx").write_bytes(data[: int(kept * len(data)) if kept >= 0 else -1])
    with pytest.raises((SpecError, ExportError), match=r"team\.onnx: .*(cut short|copy it again)"):
        adopt(tmp_path / "team.onnx", input_size=SIZE, logits=None, embedding=None)


class Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_files_that_are_no_onnx_are_refused_by_name_and_nothing_is_unpickled(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "text.onnx").write_text("not a network")
    (tmp_path / "pickle.onnx").write_bytes(pickle.dumps(Payload(tmp_path / "trace")))
    for name, message in (
        ("none.onnx", "cannot be read: No such file"),
        ("folder.onnx", "cannot be read: Is a directory"),
        ("text.onnx", "no ONNX file, or one that was cut short"),
        ("pickle.onnx", "no ONNX file, or one that was cut short"),
    ):
        with pytest.raises(SpecError, match=rf"{name}: {message}"):
            adopt(tmp_path / name, input_size=SIZE, logits=None, embedding=None)
    assert not (tmp_path / "trace").exists()


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A folder with an ONNX file whose weights are in weights.bin beside it."""
    (tmp_path / "team").mkdir()
    onnx.save(team(), tmp_path / "team/team.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    return tmp_path / "team"


def test_external_data_beside_the_file_is_put_inside_and_hashed(external: Path, tmp_path: Path) -> None:
    found = adopt(external / "team.onnx", input_size=SIZE, logits=None, embedding=None)
    assert found.files == {name: sha256_file(external / name) for name in ("team.onnx", "weights.bin")}
    onnx.save(team(), tmp_path / "one.onnx")
    whole = adopt(tmp_path / "one.onnx", input_size=SIZE, logits=None, embedding=None)
    assert found.model.SerializeToString(deterministic=True) == whole.model.SerializeToString(deterministic=True)
    assert_answers(found, tmp_path)


def point_to(folder: Path, location: str) -> None:
    model = onnx.load(folder / "team.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / "team.onnx").write_bytes(model.SerializeToString())


def cut(folder: Path) -> None:
    (folder / "weights.bin").write_bytes((folder / "weights.bin").read_bytes()[:-1])


def link(folder: Path) -> None:
    (folder / "weights.bin").rename(folder.parent / "secret")
    (folder / "weights.bin").symlink_to(folder.parent / "secret")


def move(folder: Path, location: str) -> None:
    (folder / "weights.bin").rename(folder.parent / "secret")
    point_to(folder, location)


EXTERNAL: dict[str, Callable[[Path], object]] = {
    "in the folder above": lambda folder: move(folder, "../secret"),
    "at an absolute path": lambda folder: move(folder, str(folder.parent / "secret")),
    "behind a link": link,
    "not there": lambda folder: (folder / "weights.bin").unlink(),
    "cut short": cut,
    "a folder": lambda folder: point_to(folder, "."),
}


@pytest.mark.parametrize("fault", EXTERNAL)
def test_external_data_that_is_not_a_whole_file_beside_it_is_refused(fault: str, external: Path) -> None:
    EXTERNAL[fault](external)
    with pytest.raises(
        SpecError, match=r"team\.onnx: its external data cannot be used: .*; put the data into the folder"
    ):
        adopt(external / "team.onnx", input_size=SIZE, logits=None, embedding=None)


def test_more_than_one_onnx_file_can_hold_is_refused_with_the_limit(
    external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_onnx, "MAX_BYTES", (external / "team.onnx").stat().st_size + 8)
    onnx.save(team(weights={"weight": np.tile(HEAD, 100)}), tmp_path / "one.onnx")
    for path in (external / "team.onnx", tmp_path / "one.onnx"):
        with pytest.raises(
            SpecError, match=r"\.onnx: .* GB with its external data; a bundle holds one ONNX file of at most"
        ):
            adopt(path, input_size=SIZE, logits=None, embedding=None)
