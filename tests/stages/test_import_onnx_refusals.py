"""Files of other teams that cannot be served, each with what to do."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from slipway.contract import ExportError, SpecError
from slipway.system.files import sha256_file
from slipway.training.bundle import from_onnx
from slipway.training.bundle.from_onnx import Adopted, adopt
from tests.support import team_graphs as fixtures
from tests.support.damage import Payload
from tests.support.team_graphs import BIAS, HEAD, LINEAR, LOGITS_INSIDE, POOL, SIZE, assert_answers, node, team, value

adopted = fixtures.adopted


def without(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    kept = [tensor for tensor in model.graph.initializer if tensor.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


FAULTS: dict[str, tuple[Callable[[], onnx.ModelProto], dict[str, str], str]] = {
    "a softmax": (
        lambda: team(nodes=[*POOL, *LINEAR, node("Softmax", ["scores"], ["probabilities"])], outputs=LOGITS_INSIDE),
        {},
        "probabilities comes out of Softmax: these are probabilities, .* needs logits; .*--logits scores.*, or export",
    ),
    "a sigmoid behind an identity": (
        lambda: team(
            nodes=[*POOL, *LINEAR, node("Sigmoid", ["scores"], ["p"]), node("Identity", ["p"], ["probabilities"])],
            outputs=LOGITS_INSIDE,
        ),
        {},
        "comes out of Sigmoid: .*--logits scores",
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
        r"2 outputs \(features FLOAT \[batch, 3\], scores FLOAT \[batch, 2\]\); name the logits: --logits NAME",
    ),
    "a tensor that is not there": (
        team,
        {"logits": "logits"},
        r"--logits logits: the graph computes no such tensor; its outputs are scores FLOAT \[batch, 2\]",
    ),
    "a head without a matrix product": (
        lambda: team(nodes=[*POOL, node("Neg", ["features"], ["scores"])], outputs=[value("scores", "batch", 3)]),
        {},
        "found no matrix product before scores .* --embedding NAME",
    ),
    "pixels alone": (
        lambda: team(nodes=[node("Flatten", ["images"], ["scores"])], outputs=[value("scores", "batch", 192)]),
        {},
        "found no matrix product before scores .* --no-embedding",
    ),
    "an embedding that is no vector": (
        lambda: team(nodes=[node("Identity", ["images"], ["same"]), *POOL, *LINEAR]),
        {"embedding": "same"},
        r"embedding_nd is \[1, 3, 8, 8\] for one image .*--embedding NAME, or import it without one: --no-embedding",
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
        "images have 3 channels, RGB",
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
        "logits_nc of an image depends on the other images in its batch",
    ),
    "another input size": (
        lambda: team(inputs=[value("images", "batch", 3, 16, 8)]),
        {},
        "3, 16, 8., but preprocess makes 8x8 pixels: change preprocess.input_height",
    ),
    "NaN in a weight": (
        lambda: team(weights={"weight": HEAD * np.float32("nan")}),
        {},
        "NaN in the weights: weight; export from a checkpoint without NaN",
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
        "operators outside ONNX: my.ops.Plus; export with ONNX's own",
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
        r"already quantised \(DequantizeLinear, QuantizeLinear\); give the FP32 graph",
    ),
    "half precision weights": (
        lambda: team(weights={"weight16": HEAD.astype(np.float16)}),
        {},
        "half-precision weights: weight16; give the FP32 graph",
    ),
    "no weights": (lambda: without(team(), "weight"), {}, "ONNX's own checker rejects it: .*weight"),
    "shapes that do not fit": (lambda: team(weights={"weight": HEAD[:2]}), {}, "OpenVINO cannot run it"),
    "no nodes": (onnx.ModelProto, {}, "ONNX's own checker rejects it: .*ir_version"),
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
    with pytest.raises((SpecError, ExportError), match=r"team\.onnx: .*(truncated|copy it again)"):
        adopt(tmp_path / "team.onnx", input_size=SIZE, logits=None, embedding=None)


def test_files_that_are_no_onnx_are_refused_by_name_and_nothing_is_unpickled(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "text.onnx").write_text("not a network")
    (tmp_path / "pickle.onnx").write_bytes(pickle.dumps(Payload(tmp_path / "trace")))
    for name, message in (
        ("none.onnx", "cannot be read: No such file"),
        ("folder.onnx", "cannot be read: Is a directory"),
        ("text.onnx", "not an ONNX file, or a truncated one"),
        ("pickle.onnx", "not an ONNX file, or a truncated one"),
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
        SpecError, match=r"team\.onnx: its external data cannot be used: .*; put the data files themselves"
    ):
        adopt(external / "team.onnx", input_size=SIZE, logits=None, embedding=None)


def test_more_than_one_onnx_file_can_hold_is_refused_with_the_limit(
    external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_onnx, "MAX_BYTES", (external / "team.onnx").stat().st_size + 8)
    onnx.save(team(weights={"weight": np.tile(HEAD, 100)}), tmp_path / "one.onnx")
    for path in (external / "team.onnx", tmp_path / "one.onnx"):
        with pytest.raises(SpecError, match=r"\.onnx: .* GB with its external data; a bundle holds at most"):
            adopt(path, input_size=SIZE, logits=None, embedding=None)
