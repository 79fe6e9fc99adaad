"""`serving.gpu`: how the steps of the gpu lane are configured, for each of its two decoders."""

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import json_format
from PIL import Image
from tritonclient.grpc import model_config_pb2 as pb

from slipway.contract import ServingError, Spec, SpecError
from slipway.lint.gpu_lane import pool_bytes
from slipway.repository import assemble
from slipway.serving.binary import TritonBinary
from slipway.serving.command import command
from slipway.serving.contents import Contents
from slipway.serving.ports import Ports
from slipway.serving.reload import plan
from slipway.steps import guard
from tests.support.colours import COLOURS, configs, import_step, open_colours
from tests.support.gpu_lanes import KINDS, gpu_classifier, steps, version_folder, with_gpu

SPEC = json.loads((COLOURS / "bundle/spec.json").read_text())


@pytest.fixture(scope="module", params=list(KINDS))
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def repository(form: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    assemble([gpu_classifier(folder / "in", "9.0", spec=with_gpu(decode=form))], folder / "out", lane="gpu")
    return folder / "out"


def test_each_step_runs_where_and_as_serving_gpu_says(form: str, tmp_path: Path) -> None:
    gpu = {"decode": form, "decode_instances": 3, "decode_threads": 2, "engine_instances": 4, "max_batch_size": 16}
    serving = {"instances": 5, "max_queue_delay_us": 9, "gpu": {**gpu, "max_queue_delay_us": 700, "gpus": [0, 2]}}
    assemble([gpu_classifier(tmp_path, "9.0", spec={"serving": serving})], tmp_path / "out", lane="gpu")
    on_cpu, on_gpu = (pb.ModelInstanceGroup.KIND_CPU, []), (pb.ModelInstanceGroup.KIND_GPU, [0, 2])
    expected: dict[str, tuple[Any, ...]] = {
        "preprocess": ("python", "", on_gpu, 3, 700),
        "guard": ("python", "", on_cpu, 5, 0),
        "decode": ("dali", "", on_gpu, 3, 700),
        "engine": ("tensorrt", "tensorrt_plan", on_gpu, 4, 700),
        "post": ("python", "", on_gpu, 1, 0),
    }
    for kind, config in steps(tmp_path / "out").items():
        (group,) = config.instance_group
        assert config.HasField("dynamic_batching")
        delay_us = config.dynamic_batching.max_queue_delay_microseconds
        device = (group.kind, list(group.gpus))
        assert (config.backend, config.platform, device, group.count, delay_us) == expected[kind]
        parameters = {key: value.string_value for key, value in config.parameters.items()}
        assert parameters == {"decode": {"num_threads": "2"}, "preprocess": {"threads": "2"}}.get(kind, {})
    assert {config.max_batch_size for config in configs(tmp_path / "out").values()} == {16}
    if form == "native":
        sizes = json.loads((version_folder(tmp_path / "out", "decode") / "pipeline.json").read_text())
        assert sizes == {"batch_size": 16, "num_threads": 2, "hardware_jpeg": False}


def test_only_the_first_step_rejects(form: str, tmp_path: Path) -> None:
    serving = {"max_queue_size": 9, "queue_timeout_ms": 20, "gpu": {"decode": form}}
    assemble([gpu_classifier(tmp_path, "9.0", spec={"serving": serving})], tmp_path / "out", lane="gpu")
    policies = {kind: c.dynamic_batching.default_queue_policy for kind, c in steps(tmp_path / "out").items()}
    bounds = {kind: (policy.max_queue_size, policy.default_timeout_microseconds) for kind, policy in policies.items()}
    first, *others = KINDS[form]
    assert bounds == {first: (9, 20_000), **dict.fromkeys(others, (0, 0))}


def test_without_gpus_every_gpu_runs_every_step_but_the_guard(repository: Path) -> None:
    assert all(not group.gpus for config in steps(repository).values() for group in config.instance_group)


def test_every_step_is_warmed_up_with_one_image_and_the_largest_batch(form: str, repository: Path) -> None:
    for kind, config in steps(repository).items():
        assert [(sample.batch_size, sample.count) for sample in config.model_warmup] == [(1, 2), (32, 2)], kind
        for sample in config.model_warmup:
            assert set(sample.inputs) == {tensor.name for tensor in config.input}
            files = {given.input_data_file for given in sample.inputs.values()} - {""}
            assert all((repository / config.name / "warmup" / file).is_file() for file in files)
            assert bool(files) is (kind in ("preprocess", "guard", "decode"))
    first = (repository / steps(repository)[KINDS[form][0]].name / "warmup/photograph").read_bytes()
    length, jpeg = int.from_bytes(first[:4], "little"), first[4:]
    assert (length, guard.inspect(jpeg)) == (len(jpeg), guard.OK)
    assert (image := Image.open(io.BytesIO(jpeg))).format == "JPEG"
    assert (image.size, image.layer) == ((512, 512), [(1, 2, 2, 0), (2, 1, 1, 1), (3, 1, 1, 1)]), "4:2:0"  # type: ignore[attr-defined]


def test_without_warm_up_there_is_none_and_no_file_for_one(form: str, tmp_path: Path) -> None:
    spec = {"serving": {"warmup_batches": 0, "gpu": {"decode": form}}}
    assemble([gpu_classifier(tmp_path, "9.0", spec=spec)], tmp_path / "out", lane="gpu")
    assert all(not config.model_warmup for config in configs(tmp_path / "out").values())
    assert not list((tmp_path / "out").glob("*/warmup"))


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1]), (8, [1, 2, 4, 8]), (24, [1, 2, 4, 8, 16, 24])])
def test_cuda_graphs_are_captured_for_powers_of_two_and_the_largest_batch(
    largest: int, sizes: list[int], tmp_path: Path
) -> None:
    assemble([gpu_classifier(tmp_path, "9.0", spec=with_gpu(max_batch_size=largest))], tmp_path / "out", lane="gpu")
    cuda = steps(tmp_path / "out")["engine"].optimization.cuda
    assert cuda.graphs
    assert [graph.batch_size for graph in cuda.graph_spec] == sizes
    assert {tuple(graph.input["pixels_nhwc_u8"].dim) for graph in cuda.graph_spec} == {(32, 32, 3)}


@pytest.mark.parametrize(("second", "profiles"), [(True, ["0", "1"]), (False, [])])
def test_both_profiles_of_a_plan_are_used_where_it_has_two(second: bool, profiles: list[str], tmp_path: Path) -> None:
    classifier = gpu_classifier(tmp_path, "9.0", plan={"single_image_profile": second})
    assemble([classifier], tmp_path / "out", lane="gpu")
    assert list(steps(tmp_path / "out")["engine"].instance_group[0].profile) == profiles


def test_cuda_graphs_can_be_left_out(tmp_path: Path) -> None:
    assemble([gpu_classifier(tmp_path, "9.0", spec=with_gpu(cuda_graphs=False))], tmp_path / "out", lane="gpu")
    assert not steps(tmp_path / "out")["engine"].HasField("optimization")


def test_the_hardware_decoder_is_off_unless_asked_for(form: str, tmp_path: Path) -> None:
    spec = with_gpu(decode=form, hardware_jpeg=True)
    assemble([gpu_classifier(tmp_path, "9.0", spec=spec)], tmp_path / "out", lane="gpu")
    found = steps(tmp_path / "out")
    if form == "isolated":
        assert found["preprocess"].parameters["hardware_jpeg"].string_value == "true"
    else:
        assert json.loads((version_folder(tmp_path / "out", "decode") / "pipeline.json").read_text())["hardware_jpeg"]


@pytest.mark.parametrize("asked", [False, True])
def test_the_isolated_step_hands_its_switch_for_the_hardware_decoder_on(
    asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = with_gpu(decode="isolated", hardware_jpeg=asked, gpus=[3])
    assemble([gpu_classifier(tmp_path, "9.0", spec=spec)], tmp_path / "out", lane="gpu")
    config = steps(tmp_path / "out")["preprocess"]
    model = import_step(tmp_path / "out" / config.name, monkeypatch)
    options: dict[str, Any] = {}
    monkeypatch.setattr(
        model, "Preprocessor", lambda _, **given: options.update(given) or SimpleNamespace(run_on_gpu=0)
    )
    args = {"model_instance_kind": "GPU", "model_instance_device_id": "3"}
    text = json.dumps(json_format.MessageToDict(config, preserving_proto_field_name=True))
    model.TritonPythonModel().initialize({"model_config": text, **args})
    assert options == {"max_batch_size": 32, "threads": 4, "device_id": 3, "hardware_jpeg": asked}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decode": "hardware"}, "serving.gpu.decode: Input should be 'isolated' or 'native'; given 'hardware'"),
        ({"decode_threads": 1}, "serving.gpu.decode_threads: Input should be greater than or equal to 2; given 1"),
        ({"max_batch_size": 129}, "serving.gpu.max_batch_size: "),
        ({"gpus": [0, 0]}, "serving.gpu.gpus: .*name each GPU once"),
        ({"gpus": [-1]}, "serving.gpu.gpus.0: "),
        ({"instances": 2}, "serving.gpu.instances: unknown key; the valid keys here are cuda_graphs, decode"),
    ],
)
def test_what_is_wrong_in_serving_gpu_is_said_with_its_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Spec.parse({**SPEC, "serving": {"gpu": settings}}, source="spec.yaml")


def test_the_optimal_batch_of_a_plan_is_within_the_gpu_lane_s_largest() -> None:
    assert Spec.parse({**SPEC, "tensorrt": {"optimal_batch_size": 32}}, source="test").tensorrt.optimal_batch_size == 32
    with pytest.raises(SpecError, match=r"optimal_batch_size 33 is above serving.gpu.max_batch_size 32"):
        Spec.parse({**SPEC, "tensorrt": {"optimal_batch_size": 33}}, source="test")


# What the server is told of memory


def test_the_pool_holds_what_is_between_the_steps_of_every_classifier(tmp_path: Path) -> None:
    """32 images of 32 pixels: one batch that is decoded, two for each of two engines, and what these make."""
    lane = assemble([gpu_classifier(tmp_path / "one", "9.0")], tmp_path / "out", lane="gpu")
    pixels, logits = 32 * 32 * 3, 2 * 3 * 4
    needed = 32 * (pixels * (1 + 4) + 4 * logits)
    assert pool_bytes(configs(tmp_path / "out").values()) == 64 << 20 >= needed
    assert (lane.cuda_pool_bytes, lane.pinned_pool_bytes, lane.gpus) == (64 << 20, 256 << 20, None)


def test_a_network_of_380_pixels_outgrows_triton_s_own_pool() -> None:
    config = pb.ModelConfig(max_batch_size=64)
    config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_GPU, count=2)
    config.input.add(name="pixels_nhwc_u8", data_type=pb.TYPE_UINT8, dims=[380, 380, 3])
    assert pool_bytes([config]) == 128 << 20 >= 2 * 2 * 64 * 380 * 380 * 3


def test_the_pools_are_options_of_the_server_for_the_gpus_that_are_used(tmp_path: Path) -> None:
    spec = with_gpu(gpus=[0, 3])
    lane = assemble([gpu_classifier(tmp_path, "9.0", spec=spec)], tmp_path / "out", lane="gpu")
    assert lane.gpus == (0, 3)
    assert lane.memory_options == (
        f"--pinned-memory-pool-byte-size={256 << 20}",
        f"--cuda-memory-pool-byte-size=0:{64 << 20}",
        f"--cuda-memory-pool-byte-size=3:{64 << 20}",
    )
    everywhere = lane.model_copy(update={"gpus": None}).memory_options
    assert [option.split("=")[1] for option in everywhere[1:]] == [f"{gpu}:{64 << 20}" for gpu in range(8)]
    binary = TritonBinary(Path("tritonserver"), None, None, "2.71.0")
    given = command(binary, Path("/models"), lane=lane, ports=Ports(), admin_key="key", shm_prefix="prefix")
    assert set(lane.memory_options) < set(given)


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"cuda_pool_bytes": 64 << 20}, True),
        ({"cuda_pool_bytes": 192 << 20}, False),
        ({"pinned_pool_bytes": 512 << 20}, False),
        ({"gpus": (1,)}, True),
        ({"gpus": (1, 4)}, False),
        ({"gpus": None}, False),
    ],
)
def test_a_reload_is_refused_where_the_pools_of_the_running_server_are_too_small(
    change: dict[str, Any], fits: bool, tmp_path: Path
) -> None:
    assemble([gpu_classifier(tmp_path, "9.0")], tmp_path / "out", lane="gpu")
    opened = Contents.open(tmp_path / "out")
    pools = {"cuda_pool_bytes": 128 << 20, "pinned_pool_bytes": 256 << 20, "gpus": (0, 1)}
    running = replace(opened, lane=opened.lane.model_copy(update=pools))
    new = replace(opened, lane=opened.lane.model_copy(update=pools | change))
    # The libraries of the plan are asked for next, and are not here.
    with pytest.raises(ServingError, match="TensorRT .* is needed" if fits else "larger memory pools on a GPU"):
        plan(running, new, loaded=set())


def test_a_cpu_lane_has_no_pools(tmp_path: Path) -> None:
    lane = assemble([open_colours(COLOURS)], tmp_path / "out")
    assert lane.memory_options == ()
    assert (
        not {"cuda_pool_bytes", "pinned_pool_bytes", "gpus"}
        & json.loads((tmp_path / "out/lane.json").read_text()).keys()
    )
