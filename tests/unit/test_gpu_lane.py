"""The gpu lane of the tiny fixed bundle: configurations that parse and chain, its files, and what both lanes share."""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from slipway.contract import Bundle, EngineSettings, Lane, Manifest
from slipway.repository import Classifier, assemble
from slipway.repository.step import GUARD
from slipway.system.files import sha256_file
from tests.support.colours import COLOURS, configs, contents, open_colours
from tests.support.gpu_lanes import KINDS, gpu_classifier, steps, version_folder, with_gpu
from tests.support.plans import NOT_A_PLAN, stand_in_plan

PUBLIC = {"LABEL", "SCORE", "CLASS_ID", "STATUS", "BUNDLE"}
FULL = PUBLIC | {"PROBABILITY", "EMBEDDING"}
Typed = dict[str, tuple[str, tuple[int, ...]]]


@pytest.fixture(scope="module", params=list(KINDS))
def form(request: pytest.FixtureRequest) -> str:
    """How images are decoded: tests that are given it run for each of the two."""
    return str(request.param)


@pytest.fixture(scope="module")
def classifier(form: str, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return gpu_classifier(tmp_path_factory.mktemp("in"), "9.0", spec=with_gpu(decode=form))


@pytest.fixture(scope="module")
def repository(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("assembled") / "gpu"
    assemble([classifier], out, lane="gpu")
    return out


def typed(tensors: Any) -> Typed:
    return {t.name: (pb.DataType.Name(t.data_type), tuple(t.dims)) for t in tensors}


def test_every_configuration_parses_strictly_and_is_named_as_its_folder(form: str, repository: Path) -> None:
    found = configs(repository)
    assert {name: config.name for name, config in found.items()} == {name: name for name in found}
    assert len(found) == len(KINDS[form]) + 2
    assert {config.max_batch_size for config in found.values()} == {32}
    for name in found:
        assert {path.name for path in (repository / name).iterdir() if path.is_dir()} - {"warmup"} == {"1"}


def test_the_same_input_gives_the_same_bytes(classifier: Classifier, repository: Path, tmp_path: Path) -> None:
    assemble([classifier], tmp_path / "again", lane="gpu")
    assert contents(tmp_path / "again") == contents(repository)


def test_the_manifest_names_every_file_the_bundle_and_each_plan(tmp_path: Path) -> None:
    classifier = gpu_classifier(tmp_path / "in", "9.0", "8.9")
    assemble([classifier], tmp_path / "out", lane="gpu")
    manifest = Manifest.open(tmp_path / "out", kind="repository")
    assert manifest.name == "gpu"
    assert manifest.inputs == {
        "colours/bundle": sha256_file(classifier.bundle.path / "manifest.json"),
        "colours/engine_sm90": sha256_file(tmp_path / "in/9.0/manifest.json"),
        "colours/engine_sm89": sha256_file(tmp_path / "in/8.9/manifest.json"),
    }
    lane = Lane.read(tmp_path / "out/lane.json")
    assert (lane.lane, lane.classifiers) == ("gpu", {"colours": classifier.bundle.id})


def test_the_steps_say_what_they_take_and_give(form: str, repository: Path) -> None:
    found = steps(repository)
    encoded, status = ("TYPE_UINT8", (-1,)), ("TYPE_INT32", (1,))
    pixels, logits = ("TYPE_UINT8", (32, 32, 3)), ("TYPE_FP32", (3,))
    first = found[KINDS[form][0]]
    assert typed(first.input) == {"IMAGE": ("TYPE_STRING", (1,))}
    if form == "native":
        assert typed(first.output) == {"encoded": encoded, "image_status": status}
        assert typed(found["decode"].input) == {"encoded": encoded}
        assert typed(found["decode"].output) == {"pixels_nhwc_u8": pixels}
    else:
        assert typed(first.output) == {"pixels_nhwc_u8": pixels, "image_status": status}
    assert typed(found["engine"].input) == {"pixels_nhwc_u8": pixels}
    assert typed(found["engine"].output) == {"logits_nc": logits, "embedding_nd": logits}
    assert typed(found["post"].input) == {"logits_nc": logits, "image_status": status, "embedding_nd": logits}
    assert typed(found["post"].output).keys() == FULL


def test_ragged_batching_is_written_out_where_the_decoder_takes_its_bytes_and_nowhere_else(
    form: str, repository: Path
) -> None:
    ragged = {
        (kind, tensor.name) for kind, c in steps(repository).items() for tensor in c.input if tensor.allow_ragged_batch
    }
    assert ragged == ({("decode", "encoded")} if form == "native" else set())


def chain(config: pb.ModelConfig) -> Iterator[tuple[str, dict[str, str], dict[str, str]]]:
    for step in config.ensemble_scheduling.step:
        yield step.model_name, dict(step.input_map), dict(step.output_map)


@pytest.mark.parametrize(("name", "public"), [("colours", PUBLIC), ("colours_full", FULL)])
def test_names_types_and_shapes_chain_through_every_step(
    form: str, repository: Path, name: str, public: set[str]
) -> None:
    found = configs(repository)
    config = found[name]
    known: Typed = typed(config.input)
    used: set[str] = set()
    assert known == {"IMAGE": ("TYPE_STRING", (1,))}
    assert [model.split("_")[0] for model, _, _ in chain(config)] == list(KINDS[form])
    for model, inputs, outputs in chain(config):
        step = found[model]
        assert {t.name for t in step.input if not t.optional} <= inputs.keys() <= {t.name for t in step.input}
        assert {inner: known[outer] for inner, outer in inputs.items()} == {
            inner: typed(step.input)[inner] for inner in inputs
        }
        assert known.keys().isdisjoint(outputs.values()), "no two steps write one tensor"
        known |= {outer: typed(step.output)[inner] for inner, outer in outputs.items()}
        used |= set(inputs.values())
    assert typed(config.output) == {tensor: known[tensor] for tensor in public}
    assert known.keys() == used | public, "nothing is computed that nobody uses"
    assert set(outputs.values()) == public, "every public tensor comes from the last step"


def test_the_dali_backend_is_asked_for_every_output_of_its_pipeline(repository: Path) -> None:
    """It fails a request that asks for fewer."""
    found = configs(repository)
    for name in ("colours", "colours_full"):
        for model, _, outputs in chain(found[name]):
            if found[model].backend == "dali":
                assert outputs.keys() == {t.name for t in found[model].output}


def test_the_post_step_is_that_of_the_cpu_lane_but_for_the_decision_of_the_engine(
    classifier: Classifier, repository: Path, tmp_path: Path
) -> None:
    """And for what Triton is told of it. The stand-in's decision is the bundle's own."""
    assemble([open_colours(COLOURS)], tmp_path / "cpu")
    (cpu,) = (tmp_path / "cpu").glob("post_*/1")
    gpu = version_folder(repository, "post")
    assert contents(gpu) == contents(cpu)
    decision = (classifier.engine.path / "decision.json").read_bytes()
    assert (gpu / "decision.json").read_bytes() == decision


def test_both_lanes_offer_the_same_public_interface(repository: Path, tmp_path: Path) -> None:
    assemble([open_colours(COLOURS)], tmp_path / "cpu")
    for name in ("colours", "colours_full"):
        cpu, gpu = configs(tmp_path / "cpu")[name], configs(repository)[name]
        assert (list(gpu.input), list(gpu.output)) == (list(cpu.input), list(cpu.output))


@pytest.mark.parametrize("shared", [*GUARD, "steps/dali_graph.py", "steps/postprocess.py"])
def test_what_both_lanes_run_is_the_same_file(shared: str, repository: Path, tmp_path: Path) -> None:
    assemble([open_colours(COLOURS)], tmp_path / "cpu")
    (cpu,) = (tmp_path / "cpu").rglob(Path(shared).name)
    (gpu,) = repository.rglob(Path(shared).name)
    assert gpu.read_bytes() == cpu.read_bytes()


def test_the_decoder_s_preprocess_is_the_bundle_s_on_mixed(form: str, classifier: Classifier, repository: Path) -> None:
    kind = "decode" if form == "native" else "preprocess"
    written = json.loads((version_folder(repository, kind) / "preprocess.json").read_text())
    read = {key: value for key, value in classifier.bundle.preprocess.plain().items() if key not in ("mean", "std")}
    assert read["decoder"] == "cpu"
    assert written == {**read, "decoder": "mixed"}, "mean and std belong to the engine"


def test_one_plan_is_named_for_its_compute_capability_and_for_no_other(repository: Path) -> None:
    config = steps(repository)["engine"]
    assert dict(config.cc_model_filenames) == {"9.0": "model_sm90.plan"}
    assert config.default_model_filename == "", "Triton's own default is not there: another GPU is refused"
    assert (version_folder(repository, "engine") / "model_sm90.plan").read_bytes() == NOT_A_PLAN
    assert not (version_folder(repository, "engine") / "model.plan").exists()


def test_several_plans_become_one_model_with_a_plan_and_its_settings_for_each_gpu(tmp_path: Path) -> None:
    classifier = gpu_classifier(tmp_path / "in", "9.0", "8.9", "12.0")
    assemble([classifier], tmp_path / "out", lane="gpu")
    config, folder = steps(tmp_path / "out")["engine"], version_folder(tmp_path / "out", "engine")
    assert dict(config.cc_model_filenames) == {
        "8.9": "model_sm89.plan",
        "9.0": "model_sm90.plan",
        "12.0": "model_sm120.plan",
    }
    expected = {f"{kind}_sm{cc}.{end}" for cc in (89, 90, 120) for kind, end in (("model", "plan"), ("engine", "json"))}
    assert {path.name for path in folder.iterdir()} == expected
    for engine in classifier.engines:
        assert engine.settings.plan is not None
        suffix = str(engine.settings.plan.compute_capability).replace(".", "")
        assert EngineSettings.read(folder / f"engine_sm{suffix}.json") == engine.settings


def test_the_order_of_the_plans_changes_nothing_but_whose_decision_is_served(tmp_path: Path) -> None:
    first = gpu_classifier(tmp_path / "in", "9.0", "8.9")
    turned = Classifier(first.bundle, first.others[0], (first.engine,))
    assemble([first], tmp_path / "first", lane="gpu")
    assemble([turned], tmp_path / "turned", lane="gpu")
    assert contents(tmp_path / "first") == contents(tmp_path / "turned")


def test_a_plan_for_every_gpu_from_ampere_on_is_the_default(tmp_path: Path) -> None:
    bundle = Bundle.open(COLOURS / "bundle")
    plans = [
        stand_in_plan(tmp_path / "90", bundle, capability="9.0"),
        stand_in_plan(tmp_path / "80", bundle, capability="8.0", plan={"hardware_compatibility": "ampere_plus"}),
    ]
    assemble([Classifier(bundle, plans[0], (plans[1],))], tmp_path / "out", lane="gpu")
    config = steps(tmp_path / "out")["engine"]
    assert config.default_model_filename == "model_sm80.plan"
    assert dict(config.cc_model_filenames) == {"8.0": "model_sm80.plan", "9.0": "model_sm90.plan"}


@pytest.mark.parametrize("compatible", [True, False])
def test_the_server_is_told_of_plans_that_may_come_from_another_tensorrt(compatible: bool, tmp_path: Path) -> None:
    bundle = Bundle.open(COLOURS / "bundle")
    plan = stand_in_plan(tmp_path / "90", bundle, plan={"version_compatible": compatible})
    lane = assemble([Classifier(bundle, plan)], tmp_path / "out", lane="gpu")
    assert lane.tensorrt_version_compatible is compatible


def test_shared_memory_holds_two_full_batches_of_images_and_pixels(tmp_path: Path) -> None:
    lane = assemble([gpu_classifier(tmp_path, "9.0")], tmp_path / "out", lane="gpu")
    assert lane.shm_default_bytes == 65 << 20 >= 2 * 32 * ((1 << 20) + 3 * 32 * 32 * 4)


def test_the_engine_step_belongs_to_its_plan_alone(tmp_path: Path) -> None:
    """Another classifier's labels or another plan's bytes: the steps that hold them get another name, and no other."""
    bundle = Bundle.open(COLOURS / "bundle")
    one = stand_in_plan(tmp_path / "one", bundle)
    other = stand_in_plan(tmp_path / "other", bundle, data=NOT_A_PLAN + b"Nor are these.\n")
    names: list[dict[str, str]] = []
    for engine in (one, other):
        assemble([Classifier(bundle, engine)], tmp_path / f"out_{engine.path.name}", lane="gpu")
        names.append({kind: config.name for kind, config in steps(tmp_path / f"out_{engine.path.name}").items()})
    assert {kind for kind, name in names[0].items() if name != names[1][kind]} == {"engine"}


RUNTIMES = {
    "preprocess": {"numpy", "nvidia", "cykooz_resizer", "simplejpeg", "triton_python_backend_utils"},
    "guard": {"numpy", "triton_python_backend_utils"},
    "decode": {"nvidia"},
}
NOT_EVERYWHERE = {"tomllib", "asyncore", "asynchat", "cgi", "distutils", "imp", "telnetlib", "uu", "xdrlib", "pipes"}


@pytest.mark.parametrize("kind", RUNTIMES)
def test_a_step_imports_its_one_runtime_and_the_files_beside_it_alone(kind: str, tmp_path: Path) -> None:
    form = next(form for form, kinds in KINDS.items() if kind in kinds)
    assemble([gpu_classifier(tmp_path / "in", "9.0", spec=with_gpu(decode=form))], tmp_path / "out", lane="gpu")
    folder = version_folder(tmp_path / "out", kind)
    beside = {path.stem for path in folder.glob("*.py")}
    assert len(beside) >= 2
    for source in folder.glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text(), feature_version=(3, 10))):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {node.module or alias.name for alias in node.names} if node.level else {str(node.module)}
                names = {name.split(".")[0] for name in names}
                assert node.level == 0 or names <= beside
            # The decode step's files lie in no package: they import each other by their bare names.
            assert names <= (sys.stdlib_module_names - NOT_EVERYWHERE) | RUNTIMES[kind] | beside
