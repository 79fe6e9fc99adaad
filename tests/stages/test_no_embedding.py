"""A classifier without an embedding, in every stage that otherwise has one. Through the server: tests/serving."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from slipway.client.core import batch_limit
from slipway.client.result import EMBEDDING, FULL_OUTPUTS, OUTPUTS
from slipway.contract import EngineSettings
from slipway.engines import quantize
from slipway.evaluation.unknown import fit_class_means
from slipway.lint import lint
from slipway.onnx_graph import SERVED_INPUT, load, output_sizes, save, to_bytes
from slipway.repository import Classifier, assemble
from slipway.steps.engine_openvino import Engine
from slipway.system.files import sha256_file
from tests.support.colours import configs, copy_colours
from tests.support.plans import stand_in_plan
from tests.support.quantizable import CLASSES, bundle_of, network
from tests.support.typed_graphs import compile_rtx


def logits_alone(model: onnx.ModelProto) -> onnx.ModelProto:
    """The embedding stays inside; nobody is given it."""
    del model.graph.output[1]
    return model


def strip_engine(folder: Path) -> None:
    graph = logits_alone(onnx.load(folder / "model.onnx"))
    (folder / "model.onnx").write_bytes(to_bytes(graph, input_name=SERVED_INPUT))
    settings = EngineSettings.read(folder / "engine.json").model_dump()
    settings |= {"embedding_size": 0, "graph_sha256": sha256_file(folder / "model.onnx")}
    EngineSettings.parse(settings, source="test").write(folder / "engine.json")


def strip_bundle(folder: Path) -> None:
    save(logits_alone(onnx.load(folder / "model.onnx")), folder / "model.onnx")


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    return copy_colours(tmp_path / "colours", bundle=strip_bundle, engine=strip_engine)


def names(tensors: object) -> set[str]:
    return {tensor.name for tensor in tensors}  # type: ignore[attr-defined]


def test_a_graph_of_logits_alone_runs_and_says_that_it_has_no_embedding(classifier: Classifier) -> None:
    path = classifier.bundle.path / "model.onnx"
    load(path)
    assert output_sizes(path) == {"logits_nc": 3, "embedding_nd": 0}
    logits_nc, embedding_nd = Engine(path, arithmetic="f32", threads=1).run(np.zeros((5, 3, 32, 32), np.float32))
    assert (logits_nc.shape, embedding_nd.shape) == ((5, 3), (5, 0))
    assert fit_class_means(embedding_nd, np.array([0, 1, 2, 0, 1]), classes=3) is None


@pytest.mark.parametrize("layout", ["steps", "shared_decode", "fused"])
def test_no_step_of_the_cpu_lane_and_no_ensemble_names_an_embedding(
    layout: str, classifier: Classifier, tmp_path: Path
) -> None:
    settings = classifier.serving.model_copy(update={"layout": layout})
    classifier = Classifier(classifier.bundle, classifier.engine, settings=settings)
    assemble([classifier], tmp_path / "out")
    found = configs(tmp_path / "out")
    assert names(found["colours_full"].output) == {*OUTPUTS, "PROBABILITY"}
    assert not {name for config in found.values() for name in names(config.output) | names(config.input)} & {
        "embedding_nd",
        "EMBEDDING",
    }
    assert lint(tmp_path / "out") == []


def test_the_gpu_lane_names_none_either(classifier: Classifier, tmp_path: Path) -> None:
    engine = stand_in_plan(tmp_path / "plan", classifier.bundle, embedding_size=0)
    assemble([Classifier(classifier.bundle, engine)], tmp_path / "out", lane="gpu")
    for name, config in configs(tmp_path / "out").items():
        assert not (names(config.output) | names(config.input)) & {"embedding_nd", "EMBEDDING"}, name


def test_the_lint_still_misses_an_embedding_that_the_network_has(tmp_path: Path) -> None:
    assemble([copy_colours(tmp_path / "colours")], tmp_path / "out")
    config = tmp_path / "out/colours_full/config.pbtxt"
    head, _, rest = config.read_text().partition('output {\n  name: "EMBEDDING"')
    config.write_text(head + rest.partition("}\n")[2])
    found = [str(finding) for finding in lint(tmp_path / "out")]
    assert any("no EMBEDDING, which clients ask for" in finding for finding in found)


def test_the_lint_finds_an_embedding_that_engine_json_does_not_have(tmp_path: Path) -> None:
    assemble([copy_colours(tmp_path / "colours")], tmp_path / "out")
    (path,) = (tmp_path / "out").glob("engine_*/1/engine.json")
    path.write_text(path.read_text().replace('"embedding_size": 3', '"embedding_size": 0'))
    found = [str(finding) for finding in lint(tmp_path / "out")]
    assert any("EMBEDDING, which clients do not know" in finding for finding in found)
    assert any("says that embedding_nd is [0], and config.pbtxt says [3]" in finding for finding in found)


def test_clients_take_a_full_classifier_without_an_embedding_and_no_other_gap() -> None:
    outputs = [{"name": name} for name in FULL_OUTPUTS if name != EMBEDDING]
    assert batch_limit({"max_batch_size": 8, "output": outputs}, outputs=FULL_OUTPUTS) == 8


def test_it_is_quantised_and_compiled_like_any_other(tmp_path: Path) -> None:
    bundle = bundle_of(logits_alone(network()), tmp_path / "bundle")
    quantize(bundle, tmp_path / "graphs/int8")
    assert output_sizes(tmp_path / "graphs/int8/model.onnx") == {"logits_nc": CLASSES, "embedding_nd": 0}
    assert compile_rtx(tmp_path / "graphs/int8/model.onnx").data
