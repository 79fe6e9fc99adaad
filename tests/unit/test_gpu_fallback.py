"""The gpu lane of a classifier without a TensorRT plan: what is picked, what is written, and who says so."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.utils import triton_to_np_dtype

from slipway.cli.container import parser as container_parser
from slipway.contract import Bundle, EngineSettings, Fleet, Lane, Manifest, RepositoryError
from slipway.contract.lane import NO_PLAN
from slipway.lint import lint, notes
from slipway.lint.models import read_models
from slipway.repository import Classifier, assemble, open_engines, open_fleet, pick_engines
from slipway.serving.doctor.examine import examine
from tests.support.colours import contents, copy_colours
from tests.support.fallbacks import fallback_classifier, onnxruntime_engine
from tests.support.gpu_lanes import steps, version_folder, with_gpu
from tests.support.plans import stand_in_plan
from tests.support.scripts import run_here, run_script

TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return fallback_classifier(tmp_path_factory.mktemp("in"))


@pytest.fixture(scope="module")
def repository(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("assembled") / "gpu"
    assemble([classifier], out, lane="gpu")
    return out


# What is written


def test_the_engine_step_is_triton_s_onnx_runtime_backend_on_every_gpu(repository: Path) -> None:
    config = steps(repository)["engine"]
    (group,) = config.instance_group
    assert (config.backend, config.platform, config.max_batch_size) == ("onnxruntime", "", 32)
    assert (group.kind, group.count, list(group.gpus)) == (pb.ModelInstanceGroup.KIND_GPU, 2, [])
    assert config.HasField("dynamic_batching")
    assert [sample.batch_size for sample in config.model_warmup] == [1, 32]
    assert not config.optimization.HasField("cuda"), "CUDA graphs are the TensorRT backend's"
    assert not config.cc_model_filenames


def test_tensorrt_runs_the_graph_in_its_own_types_and_builds_one_engine_for_every_batch(repository: Path) -> None:
    (provider,) = steps(repository)["engine"].optimization.execution_accelerators.gpu_execution_accelerator
    settings = EngineSettings.read(version_folder(repository, "engine") / "engine.json")
    assert provider.name == "tensorrt"
    assert dict(provider.parameters) == {
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": ".",
        "trt_engine_cache_prefix": f"slipway-{settings.graph_sha256}",
        "trt_profile_min_shapes": "pixels_nhwc_u8:1x32x32x3",
        "trt_profile_opt_shapes": "pixels_nhwc_u8:32x32x32x3",
        "trt_profile_max_shapes": "pixels_nhwc_u8:32x32x32x3",
    }


def test_the_configuration_has_the_tensors_of_the_graph_as_onnx_runtime_sees_them(repository: Path) -> None:
    config = steps(repository)["engine"]
    graph = version_folder(repository, "engine") / "model.onnx"
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for said, seen in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        written = {tensor.name: (triton_to_np_dtype(_type(tensor)), list(tensor.dims)) for tensor in said}
        assert written == {tensor.name: (TYPES[tensor.type], tensor.shape[1:]) for tensor in seen}
        assert all(isinstance(tensor.shape[0], str) for tensor in seen), "the batch is open"
    pixels_nhwc_u8 = np.zeros((32, *config.input[0].dims), np.uint8)
    answered = session.run([tensor.name for tensor in config.output], {config.input[0].name: pixels_nhwc_u8})
    assert [list(array.shape) for array in answered] == [[32, *tensor.dims] for tensor in config.output]


def _type(tensor: Any) -> str:
    return str(pb.DataType.Name(tensor.data_type)).removeprefix("TYPE_")


def test_two_networks_of_one_architecture_do_not_share_cached_engines(tmp_path: Path) -> None:
    def other_weights(folder: Path) -> None:
        model = onnx.load(folder / "model.onnx")
        (mix,) = (tensor for tensor in model.graph.initializer if tensor.name == "mix")
        mix.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(mix), "mix"))
        onnx.save(model, folder / "model.onnx")

    prefixes = set()
    for name, change in (("one", lambda _: None), ("two", other_weights)):
        spec = with_gpu(fallback="onnxruntime")
        bundle = copy_colours(tmp_path / name, spec=spec, bundle=change).bundle
        engine = onnxruntime_engine(tmp_path / f"{name}-engine", bundle)
        assemble([Classifier(bundle, engine)], tmp_path / f"{name}-gpu", lane="gpu")
        config = steps(tmp_path / f"{name}-gpu")["engine"]
        (provider,) = config.optimization.execution_accelerators.gpu_execution_accelerator
        prefixes.add(provider.parameters["trt_engine_cache_prefix"])
    assert len(prefixes) == 2


def test_the_same_input_gives_the_same_bytes(classifier: Classifier, repository: Path, tmp_path: Path) -> None:
    assemble([classifier], tmp_path / "again", lane="gpu")
    assert contents(tmp_path / "again") == contents(repository)


# What is picked


def bundle_with(folder: Path, *engines: tuple[str, str], fallback: str = "onnxruntime", **spec: Any) -> Bundle:
    """`colours`, and engines of ONNX Runtime with these precisions and verdicts in `folder/engines`."""
    spec = {"precisions": ["fp32", "int8", "fp16"], **with_gpu(fallback=fallback), **spec}
    bundle = copy_colours(folder / "colours", spec=spec).bundle
    (folder / "engines").mkdir()
    for precision, verdict in engines:
        name = f"onnxruntime-{precision}"
        onnxruntime_engine(folder / "engines" / name, bundle, verdict=verdict, precision=precision)
    return bundle


@pytest.mark.parametrize(
    ("engines", "picked"),
    [
        ([("fp32", "pass"), ("int8", "pass"), ("fp16", "pass")], "onnxruntime-fp16"),
        ([("fp32", "pass"), ("int8", "pass"), ("fp16", "fail")], "onnxruntime-int8"),
        ([("fp32", "pass"), ("int8", "too few images to tell")], "onnxruntime-fp32"),
    ],
)
def test_without_a_plan_the_first_precision_that_passed_is_served(
    engines: list[tuple[str, str]], picked: str, tmp_path: Path
) -> None:
    bundle = bundle_with(tmp_path, *engines)
    classifier = pick_engines(bundle, tmp_path / "engines", lane="gpu")
    assert [engine.path.name for engine in classifier.engines] == [picked]


def test_a_plan_that_passed_comes_first_and_is_not_passed_over_for_want_of_a_choice(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path, ("fp16", "pass"))
    stand_in_plan(tmp_path / "engines/tensorrt-int8-sm90", bundle)
    with pytest.raises(RepositoryError, match=r"no choice-sm90\.json.*slipway choose"):
        pick_engines(bundle, tmp_path / "engines", lane="gpu")


@pytest.mark.parametrize("name", ["tensorrt-int8-sm90.old", "tensorrt-int8-sm90-backup", "tensorrt-int8-small"])
def test_a_copy_of_a_plan_asks_for_no_choice_that_nothing_can_make(name: str, tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path, ("fp16", "pass"))
    stand_in_plan(tmp_path / "engines" / name, bundle)
    classifier = pick_engines(bundle, tmp_path / "engines", lane="gpu")
    assert [engine.path.name for engine in classifier.engines] == ["onnxruntime-fp16"]


def test_a_plan_that_failed_its_gate_gives_way_to_the_fallback(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path, ("fp16", "pass"))
    stand_in_plan(tmp_path / "engines/tensorrt-int8-sm90", bundle, verdict="fail")
    assert pick_engines(bundle, tmp_path / "engines", lane="gpu").falls_back


MAKE = r"slipway compile .*colours/bundle --graphs .*graphs --out .*engines --target onnxruntime"


def test_where_nobody_decided_for_the_fallback_it_is_named_as_a_remedy(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path, ("fp16", "pass"), fallback="none")
    with pytest.raises(RepositoryError, match=rf"no TensorRT plan .*set serving.gpu.fallback: onnxruntime.*{MAKE}"):
        pick_engines(bundle, tmp_path / "engines", lane="gpu")


@pytest.mark.parametrize(
    ("engines", "says"), [([], "none was found"), ([("fp16", "fail")], "{'onnxruntime-fp16': 'fail'}")]
)
def test_a_fallback_that_is_missing_or_failed_is_named_with_the_command_that_makes_it(
    engines: list[tuple[str, str]], says: str, tmp_path: Path
) -> None:
    bundle = bundle_with(tmp_path, *engines)
    with pytest.raises(RepositoryError, match=rf"no TensorRT plan .*no engine of ONNX Runtime .*{says}; .*{MAKE}"):
        pick_engines(bundle, tmp_path / "engines", lane="gpu")


def test_a_fleet_file_decides_for_a_bundle_whose_spec_does_not(tmp_path: Path) -> None:
    bundle_with(tmp_path, ("fp16", "pass"), fallback="none")
    text: dict[str, Any] = {
        "lane": "gpu",
        "serving": {"gpu": {"fallback": "onnxruntime"}},
        "classifiers": {"colours": {"active": {"bundle": "colours/bundle", "engines": "engines"}}},
    }
    classifiers = open_fleet(Fleet.parse(text, source="test"), root=tmp_path)
    assert assemble(classifiers, tmp_path / "gpu", lane="gpu").fallback == {"colours": "onnxruntime-fp16"}


# What is refused


def test_an_engine_of_onnx_runtime_that_is_named_needs_the_decision_too(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path, ("fp16", "pass"), fallback="none")
    classifier = open_engines(bundle, [tmp_path / "engines/onnxruntime-fp16"], lane="gpu")
    with pytest.raises(RepositoryError, match=r"served only where that was decided: set serving\.gpu\.fallback"):
        assemble([classifier], tmp_path / "gpu", lane="gpu")


@pytest.mark.parametrize("plan_first", [True, False])
def test_a_fallback_is_not_mixed_with_plans(plan_first: bool, tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path, ("fp16", "pass"))
    plan = stand_in_plan(tmp_path / "plan", bundle)
    fallback = open_engines(bundle, [tmp_path / "engines/onnxruntime-fp16"], lane="gpu").engine
    first, other = (plan, fallback) if plan_first else (fallback, plan)
    with pytest.raises(RepositoryError, match=r"give either plans or this engine alone|leave out .*plan"):
        assemble([Classifier(bundle, first, (other,))], tmp_path / "gpu", lane="gpu")


def test_a_fallback_is_not_an_engine_of_the_cpu_lane(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="compiled by onnxruntime for the gpu lane, but this is the cpu lane"):
        assemble([fallback_classifier(tmp_path / "in")], tmp_path / "cpu")


def test_one_changed_byte_of_the_graph_is_found(tmp_path: Path) -> None:
    classifier = fallback_classifier(tmp_path / "in")
    graph = classifier.engine.path / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\x3a\x00")
    manifest = Manifest.read(classifier.engine.path / "manifest.json")
    Manifest.seal(classifier.engine.path, kind="engine", name="colours", bundle=manifest.bundle)
    with pytest.raises(Exception, match=r"model\.onnx: not the graph that engine\.json names"):
        open_engines(classifier.bundle, [classifier.engine.path], lane="gpu")


# Who says so


def test_the_lane_records_the_decision_and_the_lint_says_it_without_a_finding(repository: Path) -> None:
    assert Lane.read(repository / "lane.json").fallback == {"colours": "onnxruntime-fp16"}
    assert lint(repository) == []
    (note,) = notes(repository)
    assert note.startswith("colours: no TensorRT plan; Triton's ONNX Runtime backend serves the graph itself")
    done = run_script("build/lint.py", repository, "--json", cwd=repository)
    assert f"note: {note}" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["notes"] == [note]


def test_a_lane_with_plans_and_a_cpu_lane_record_nothing(tmp_path: Path) -> None:
    classifier = copy_colours(tmp_path / "colours")
    assemble([classifier], tmp_path / "cpu")
    assemble(
        [Classifier(classifier.bundle, stand_in_plan(tmp_path / "p", classifier.bundle))], tmp_path / "gpu", lane="gpu"
    )
    for lane in ("cpu", "gpu"):
        assert "fallback" not in json.loads((tmp_path / lane / "lane.json").read_text())
        assert not any(NO_PLAN in note for note in notes(tmp_path / lane))


def test_assemble_says_that_there_is_no_plan(tmp_path: Path) -> None:
    bundle_with(tmp_path, ("fp16", "pass"))
    arguments = ("colours/bundle", "--engines", "engines", "--lane", "gpu", "--out", "gpu")
    done = run_here("assemble", *arguments, cwd=tmp_path)
    assert "fallback: no TensorRT plan;" in done.stdout
    assert "its gate ran on CPUExecutionProvider" in done.stdout


def test_the_doctor_names_the_fallback_and_the_backend_that_this_server_lacks(repository: Path) -> None:
    name = steps(repository)["engine"].name
    found = {check.state: check.reason for check in examine(repository).checks if check.subject == name}
    assert "has no onnxruntime backend" in found["fail"]
    assert found["untold"].startswith("a fallback: no TensorRT plan;")


def test_a_container_has_room_and_time_to_build_the_engines(repository: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(repository, tmp_path / "repositories/gpu")
    arguments = container_parser().parse_args(["serve", str(folder)])
    command = arguments.command_of(arguments)
    assert command[-2:] == ["--timeout-s", "1800"]
    size = sum(path.stat().st_size for path in folder.rglob("*"))
    assert f"/tmp:size={4 * size + 512 * 2**20}" in command


def test_every_step_of_the_lane_has_a_backend_of_nvidia_s_image(repository: Path) -> None:
    backends = {model.backend for model in read_models(repository).values()}
    assert backends == {"python", "onnxruntime", "ensemble"}
