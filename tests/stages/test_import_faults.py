"""Files of other teams that once were a dead end, each with the answers that ONNX's own reference computes for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import TensorProto, helper

from slipway.contract import ExportError
from slipway.evaluation.fit_decision import fit_temperature
from slipway.evaluation.predict import Float
from slipway.onnx_graph import load, output_sizes, save
from slipway.steps.engine_openvino import Engine
from slipway.steps.postprocess import Postprocessor
from slipway.training.bundle.from_onnx import Adopted, adopt
from tests.support.team_graphs import BIAS, HEAD, LINEAR, MEANS, PIXELS, POOL, SIZE, Nodes, node, team, value

FAULTS = Path(__file__).parents[1] / "assets/faults"
LARGE = np.random.default_rng(2).standard_normal((4, 3, 32, 32), np.float32)
DOUBLE = TensorProto.DOUBLE


def reference(path: Path, pixels_nchw: Float, names: list[str]) -> list[np.ndarray]:
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return list(onnx.reference.ReferenceEvaluator(model).run(names, {model.graph.input[0].name: pixels_nchw}))


def answers(found: Adopted, folder: Path, pixels_nchw: Float) -> tuple[Float, Float]:
    """Of the graph as a bundle holds it."""
    save(found.model, folder / "model.onnx")
    load(folder / "model.onnx")
    return Engine(folder / "model.onnx", arithmetic="f32", threads=1).run(pixels_nchw)


@pytest.mark.parametrize(
    ("name", "options", "embedding"),
    [
        ("functions", {}, "f"),
        ("convhead", {}, "p"),
        ("convhead", {"embedding": "p"}, "p"),
        ("squeeze", {"embedding": "p"}, "p"),
        ("squeeze", {"with_embedding": False}, None),
    ],
)
def test_a_file_of_a_report_gives_the_answers_of_onnx_s_reference(
    name: str, options: dict[str, Any], embedding: str | None, tmp_path: Path
) -> None:
    path = FAULTS / f"{name}.onnx"
    options = {"logits": None, "embedding": None, **options}
    found = adopt(path, input_size=(32, 32), **options)
    logits_nc, embedding_nd = answers(found, tmp_path, LARGE)
    assert found.tensors.get("embedding_nd") == embedding
    asked = ["out", *([embedding] if embedding and name != "functions" else [])]
    expected = reference(path, LARGE, asked)
    np.testing.assert_allclose(logits_nc, expected[0], atol=1e-4)
    if len(expected) > 1:
        np.testing.assert_allclose(embedding_nd, expected[1].reshape(len(LARGE), -1), atol=1e-4)
    size = 0 if embedding is None else 8 if name == "convhead" else 3
    assert output_sizes(tmp_path / "model.onnx")["embedding_nd"] == embedding_nd.shape[1] == size


def adopted(model: onnx.ModelProto, folder: Path, **options: Any) -> Adopted:
    onnx.save(model, folder / "team.onnx")
    return adopt(folder / "team.onnx", input_size=SIZE, **{"logits": None, "embedding": None, **options})


CONVOLUTION = {"kernel": HEAD.T.reshape(2, 3, 1, 1).copy()}


def double(nodes: Nodes, **options: Any) -> onnx.ModelProto:
    weights = {"weight": HEAD.astype(np.float64), "bias": BIAS.astype(np.float64)}
    return team(nodes=nodes, weights=weights, **options)


TO_DOUBLE, PRODUCT = node("Cast", ["features"], ["f64"], to=DOUBLE), node("MatMul", ["f64", "weight"], ["product"])
OTHER_FORMS: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "logits [n, 2, 1, 1]": (
        lambda: team(
            nodes=[POOL[0], node("Conv", ["pooled", "kernel", "bias"], ["scores"])],
            weights=CONVOLUTION,
            outputs=[value("scores", "batch", 2, 1, 1)],
        ),
        "logits_nc: [n, 2, 1, 1] flattened",
    ),
    "a float64 head": (
        lambda: double([*POOL, TO_DOUBLE, PRODUCT, LINEAR[1]], outputs=[value("scores", "batch", 2, dtype=DOUBLE)]),
        "FP64 computed in FP32",
    ),
    "a float64 head that is cast back": (
        lambda: double(
            [*POOL, TO_DOUBLE, PRODUCT, node("Add", ["product", "bias"], ["s"]), node("Cast", ["s"], ["scores"], to=1)]
        ),
        "FP64 computed in FP32",
    ),
    "float64 throughout": (
        lambda: double(
            [*POOL, *LINEAR],
            inputs=[value("images", "batch", 3, *SIZE, dtype=DOUBLE)],
            outputs=[value("scores", "batch", 2, dtype=DOUBLE)],
        ),
        "FP64 computed in FP32",
    ),
    "a float64 constant": (
        lambda: team(
            nodes=[
                *POOL,
                *LINEAR[:1],
                node("Constant", [], ["c64"], value=onnx.numpy_helper.from_array(BIAS.astype(np.float64))),
                node("Cast", ["c64"], ["c"], to=TensorProto.FLOAT),
                node("Add", ["product", "c"], ["scores"]),
            ]
        ),
        "FP64 computed in FP32",
    ),
    "opset 25": (lambda: team(opset=25), "opset 25 converted to 18"),
    "opset 26": (lambda: team(opset=26), "opset 26 converted to 18"),
    "opset 11": (lambda: team(opset=11), "opset 11 converted to 18"),
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_another_form_is_changed_into_ours_said_so_and_answers_the_same(form: str, tmp_path: Path) -> None:
    make, change = OTHER_FORMS[form]
    found = adopted(make(), tmp_path)
    assert change in found.changes
    assert found.model.opset_import[0].version <= 24
    logits_nc, embedding_nd = answers(found, tmp_path, PIXELS)
    np.testing.assert_allclose(logits_nc, MEANS @ HEAD + BIAS, atol=1e-5)
    np.testing.assert_allclose(embedding_nd, MEANS, atol=1e-5)


def test_float64_that_fp32_cannot_follow_is_refused(tmp_path: Path) -> None:
    away_and_back = [  # beside a number that is 1e9 times as large, FP32 keeps nothing of this one
        *(node("Mul", ["product", "far"], ["away"]), node("Add", ["away", "product"], ["there"])),
        *(node("Sub", ["there", "away"], ["back"]), node("Cast", ["back"], ["scores"], to=TensorProto.FLOAT)),
    ]
    model = double([*POOL, TO_DOUBLE, PRODUCT, *away_and_back])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1e9), "far"))
    with pytest.raises(ExportError, match=r"computes in FP64, and in FP32 scores differs by"):
        adopted(model, tmp_path, embedding="features")


@pytest.mark.parametrize("shape", [(1,), ()], ids=["[n, 1]", "[n]"])
def test_one_logit_becomes_two_classes_whose_probability_is_its_calibrated_sigmoid(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    weights = {"weight": HEAD[:, :1].copy(), "bias": BIAS[:1].copy(), "last": np.array([1])}
    end = [] if shape else [node("Squeeze", ["wide", "last"], ["scores"])]
    nodes = [*POOL, LINEAR[0], node("Add", ["product", "bias"], ["scores" if shape else "wide"]), *end]
    found = adopted(team(nodes=nodes, weights=weights, outputs=[value("scores", "batch", *shape)]), tmp_path)
    assert found.classes == 2
    assert any("the one logit x became [0, x]" in change for change in found.changes)
    logits_nc, _ = answers(found, tmp_path, PIXELS)
    logit_n = (MEANS @ HEAD + BIAS)[:, 0]
    np.testing.assert_allclose(logits_nc, np.stack([0 * logit_n, logit_n], axis=1), atol=1e-5)
    rng = np.random.default_rng(3)
    many_n = rng.normal(scale=8, size=4000).astype(np.float32)  # four times too sure
    truth_n = (rng.random(4000) < 1 / (1 + np.exp(-many_n / 4))).astype(np.int64)
    temperature = fit_temperature(np.stack([0 * many_n, many_n], axis=1), truth_n)
    assert temperature == pytest.approx(4, rel=0.1)
    decision = {"task": "multiclass", "top_k": 2, "temperature": temperature, "unknown": None}
    served = Postprocessor(decision, ["no", "yes"]).run(logits_nc, np.zeros(len(logits_nc), np.int32))
    np.testing.assert_allclose(served.probability_nc[:, 1], 1 / (1 + np.exp(-logit_n / temperature)), atol=1e-5)


def test_a_conversion_that_fails_or_changes_an_answer_is_refused_with_the_opsets_that_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> onnx.ModelProto:
        raise RuntimeError("no adapter")

    def spoil(model: onnx.ModelProto, _: int) -> onnx.ModelProto:
        spoilt = onnx.ModelProto.FromString(model.SerializeToString())
        spoilt.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(BIAS + 1, "bias"))
        return spoilt

    for convert, message in ((fail, "cannot be converted: no adapter"), (spoil, "changes the outputs")):
        monkeypatch.setattr(onnx.version_converter, "convert_version", convert)
        with pytest.raises(
            ExportError, match=f"opset 11.* {message}; export it with opset 18 .13 to 24 need no conversion"
        ):
            adopted(team(opset=11), tmp_path)


def test_float64_that_onnx_s_reference_cannot_run_is_not_taken_on_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(onnx.reference.ReferenceEvaluator, "run", fail)
    with pytest.raises(ExportError, match=r"cannot run it to check .*: no such operator; export it in FP32"):
        adopted(OTHER_FORMS["a float64 head"][0](), tmp_path)


def test_logits_that_no_pixel_reaches_are_refused(tmp_path: Path) -> None:
    model = team(nodes=[*POOL, node("Identity", ["weight"], ["scores"])])
    with pytest.raises(ExportError, match=r"the logits do not depend on the input; .* --logits NAME"):
        adopted(model, tmp_path, with_embedding=False)


def test_a_graph_of_ours_is_taken_by_its_names(tmp_path: Path) -> None:
    path = FAULTS.parent / "colours/bundle/model.onnx"
    found = adopt(path, input_size=(32, 32), logits=None, embedding=None)
    assert found.tensors == {name: name for name in ("pixels_nchw", "logits_nc", "embedding_nd")}
    expected = Engine(path, arithmetic="f32", threads=1).run(LARGE)
    for ours, theirs in zip(answers(found, tmp_path, LARGE), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
