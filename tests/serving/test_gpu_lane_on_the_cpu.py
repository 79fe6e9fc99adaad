"""The gpu lane in a real tritonserver without a GPU: its own guard step, post step and ensembles.

NVIDIA's DALI backend and TensorRT are not in that server. Their two steps keep names, tensors and batching, and are
played in the Python backend: the first by the `dali.py` of the assembled step, the second by OpenVINO.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc import model_config_pb2 as pb

import slipway
from slipway.contract import Lane, Manifest
from slipway.contract.manifest import hashes
from slipway.repository import Classifier, assemble
from slipway.repository.step import ENGINE_CODE, WORKER_CODE
from slipway.serving import Ports, Server, serve
from slipway.steps.guard import CORRUPT, EMPTY, OK, UNSUPPORTED
from tests.support.colours import configs, copy_colours
from tests.support.image_files import encode, good_images
from tests.support.plans import stand_in_plan

PACKAGE = Path(slipway.__file__).parent
DALI_BACKEND = """
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

import dali


class TritonPythonModel:
    def initialize(self, args):
        self.pipeline = dali.pipeline(prefetch_queue_depth=1)
        self.pipeline.build()

    def execute(self, requests):
        batches = [pb_utils.get_input_tensor_by_name(request, "encoded").as_numpy() for request in requests]
        self.pipeline.feed_input("encoded", [row for batch in batches for row in batch])
        (pixels,) = self.pipeline.run()
        parts = np.split(pixels.as_array(), np.cumsum([len(batch) for batch in batches])[:-1])
        return [pb_utils.InferenceResponse([pb_utils.Tensor("pixels_nchw", part)]) for part in parts]
"""


def play_on_the_cpu(repository: Path, engine: Path) -> None:
    """Replace the backends of the decode and the engine step, and call the lane a cpu lane so that it is served."""
    for name, config in configs(repository).items():
        folder = repository / name / "1"
        if name.startswith("decode_"):
            (folder / "model.py").write_text(DALI_BACKEND)
            text = (folder / "preprocess.json").read_text()
            (folder / "preprocess.json").write_text(text.replace('"mixed"', '"cpu"'))
            config.dynamic_batching.max_queue_delay_microseconds = 100_000
        elif name.startswith("engine_"):
            for code in ("repository/backends/engine/model.py", *WORKER_CODE, *ENGINE_CODE):
                shutil.copyfile(PACKAGE / code, folder / Path(code).name)
            for played in folder.glob("*_sm90.*"):  # the plan and its settings
                played.unlink()
            for played in ("model.onnx", "engine.json"):
                shutil.copyfile(engine / played, folder / played)
            config.parameters["threads"].string_value = "1"
            config.parameters["arithmetic"].string_value = "f32"
            config.ClearField("platform")
            config.ClearField("cc_model_filenames")
        if name.startswith(("decode_", "engine_")):
            config.backend = "python"
            config.instance_group[0].kind = pb.ModelInstanceGroup.KIND_CPU
            (repository / name / "config.pbtxt").write_text(text_format.MessageToString(config))
    lane = Lane.read(repository / "lane.json")
    lane.model_copy(update={"lane": "cpu"}).write(repository / "lane.json")
    manifest = Manifest.read(repository / "manifest.json")
    manifest.model_copy(update={"outputs": hashes(repository)}).write(repository / "manifest.json")


@pytest.fixture(scope="module")
def gpu_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("gpu")
    bundle = copy_colours(folder / "colours").bundle
    plan = stand_in_plan(folder / "plan", bundle)
    assemble([Classifier(bundle, plan)], folder / "repository", lane="gpu")
    play_on_the_cpu(folder / "repository", folder / "colours/engine")
    with serve(folder / "repository", ports=Ports.free()) as server:
        yield server


def filled(*colour: int, size: tuple[int, int], kind: str = "PNG") -> bytes:
    return encode(Image.new("RGB", size, colour), kind)


RED = filled(220, 0, 0, size=(600, 500), kind="JPEG")
GREEN, BLUE = filled(0, 160, 0, size=(20, 30)), filled(0, 0, 200, size=(64, 40), kind="WEBP")
CUT = RED[: len(RED) // 2]


@pytest.mark.parametrize("model", ["colours", "colours_full"])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_images_of_any_format_and_size_are_answered_and_bad_ones_get_their_status(
    gpu_server: Server, connect: Callable[..., Any], model: str, protocol: str
) -> None:
    answer = connect(gpu_server, protocol, timeout_s=10).ask(model, [RED, CUT, GREEN, b"", BLUE, b"<svg/>"])
    assert answer["STATUS"][:, 0].tolist() == [OK, CORRUPT, OK, EMPTY, OK, UNSUPPORTED]
    assert answer["LABEL"][:, 0].tolist() == [b"red", b"", b"green", b"", b"blue", b""]


def test_any_of_the_outputs_can_be_asked_for_alone(gpu_server: Server, connect: Callable[..., Any]) -> None:
    client = connect(gpu_server, "grpc", timeout_s=5)  # a deadlock of the ensemble would be a time-out here
    everything = client.ask("colours_full", [RED, CUT, GREEN])
    for subset in (*combinations(everything, 1), ("LABEL", "EMBEDDING")):
        answer = client.ask("colours_full", [RED, CUT, GREEN], subset)
        assert sorted(answer) == sorted(subset)
        for name, array in answer.items():
            np.testing.assert_array_equal(array, everything[name])


def test_both_lanes_give_the_same_answers(
    gpu_server: Server, example_server: Server, connect: Callable[..., Any]
) -> None:
    images = [*good_images(6, seed=21), CUT]
    cpu, gpu = (connect(server, "grpc").ask("colours_full", images) for server in (example_server, gpu_server))
    assert cpu.keys() == gpu.keys()
    for name in cpu.keys() - {"BUNDLE"}:
        np.testing.assert_array_equal(gpu[name], cpu[name])


def test_requests_of_different_sizes_share_a_batch_of_the_decoder(
    gpu_server: Server, connect: Callable[..., Any]
) -> None:
    """Without the ragged input they never would."""
    client = connect(gpu_server, "grpc")

    def decode() -> Any:
        statistics = client.triton.get_inference_statistics().model_stats
        return next(model for model in statistics if model.name.startswith("decode_"))

    before = decode()
    images = [filled(220, 0, 0, size=(20 + 9 * n, 30 + 5 * n)) for n in range(8)]
    assert len({len(image) for image in images}) > 4
    with ThreadPoolExecutor(len(images)) as pool:
        labels = list(pool.map(lambda image: client.ask("colours", [image], ["LABEL"])["LABEL"][0, 0], images))
    after = decode()
    assert labels == [b"red"] * 8
    assert after.inference_count - before.inference_count == 8
    assert after.execution_count - before.execution_count < 8
