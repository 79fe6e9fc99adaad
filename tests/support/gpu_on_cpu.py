"""A gpu lane that the tritonserver of the wheel serves on the CPU: its own first steps, post step and ensembles.

TensorRT, ONNX Runtime and NVIDIA's DALI backend are not in that server. Their steps keep names, tensors and batching,
and are played in the Python backend: a plan by OpenVINO, a graph without a plan by ONNX Runtime in Python, the native
decoder by the `dali.py` of the assembled step. The isolated decoder is the assembled step itself, run by the CPU.
"""

import shutil
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

import slipway
from slipway.contract import EngineSettings, Lane
from slipway.repository import assemble
from slipway.repository.step import ENGINE_CODE, WORKER_CODE
from tests.support.colours import configs, reseal
from tests.support.fallbacks import fallback_classifier
from tests.support.gpu_bases import base_plan, gpu_heads, head_form
from tests.support.gpu_lanes import gpu_classifier
from tests.support.heads import ENGINE, write_base, write_heads

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
        return [pb_utils.InferenceResponse([pb_utils.Tensor("pixels_nhwc_u8", part)]) for part in parts]
"""
ONNX_RUNTIME_BACKEND = """
import json
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        (self.input,), self.outputs = ([tensor["name"] for tensor in config[way]] for way in ("input", "output"))
        graph = Path(__file__).with_name("model.onnx")
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [pb_utils.InferenceResponse(self.run(request)) for request in requests]

    def run(self, request):
        pixels = pb_utils.get_input_tensor_by_name(request, self.input).as_numpy()
        arrays = self.session.run(self.outputs, {self.input: pixels})
        return [pb_utils.Tensor(name, array) for name, array in zip(self.outputs, arrays)]
"""


def fallback_on_the_cpu(folder: Path) -> Path:
    """The repository of `colours` without a plan, assembled as a gpu lane and made to run here."""
    assemble([fallback_classifier(folder / "in")], folder / "repository", lane="gpu")
    play_on_the_cpu(folder / "repository", folder / "in/colours/engine")
    return folder / "repository"


def gpu_lane_on_the_cpu(folder: Path, **serving: Any) -> Path:
    """The repository of `colours` with `serving` changed, assembled as a gpu lane and made to run here."""
    classifier = gpu_classifier(folder / "in", "9.0", spec={"serving": serving})
    assemble([classifier], folder / "repository", lane="gpu")
    play_on_the_cpu(folder / "repository", folder / "in/colours/engine")
    return folder / "repository"


def heads_on_the_cpu(folder: Path, *, heads: int, **gpu: Any) -> Path:
    """The repository of a base, its heads `h0000` and so on, and `all` of them together, with `serving.gpu` changed."""
    run = write_base(folder / "base")
    runs, plan = write_heads(folder / "heads", run, heads), base_plan(run)
    for head in runs:
        head_form(head, plan)
    opened = gpu_heads(run, runs, **gpu)
    assemble([], folder / "repository", bases=opened, lane="gpu", multi={"all": [run.name for run in runs]})
    play_on_the_cpu(folder / "repository", run / "engines" / ENGINE)
    return folder / "repository"


def play_on_the_cpu(repository: Path, engine: Path) -> None:
    """Put every step on the CPU, play the absent backends, and call the lane a cpu lane so that it is served."""
    for name, config in configs(repository).items():
        if name.startswith("decode_"):
            _play_the_decoder(config, repository / name / "1")
        elif config.backend == "onnxruntime":
            _play_the_graph(config, repository / name / "1")
        elif name.startswith("engine_"):
            _play_the_engine(config, repository / name / "1", engine)
        for group in config.instance_group:
            group.kind = pb.ModelInstanceGroup.KIND_CPU
            group.ClearField("gpus")
        (repository / name / "config.pbtxt").write_text(text_format.MessageToString(config))
    lane = Lane.read(repository / "lane.json")
    lane.model_copy(update={"lane": "cpu"}).write(repository / "lane.json")
    reseal(repository)


def _play_the_decoder(config: Any, folder: Path) -> None:
    (folder / "model.py").write_text(DALI_BACKEND)
    text = (folder / "preprocess.json").read_text()
    (folder / "preprocess.json").write_text(text.replace('"mixed"', '"cpu"'))
    config.backend = "python"


def _play_the_graph(config: Any, folder: Path) -> None:
    (folder / "model.py").write_text(ONNX_RUNTIME_BACKEND)
    settings = EngineSettings.read(folder / "engine.json")
    settings.model_copy(update={"target": "openvino"}).write(folder / "engine.json")
    config.backend = "python"
    config.ClearField("optimization")


def _play_the_engine(config: Any, folder: Path, engine: Path) -> None:
    for code in ("repository/backends/engine/model.py", *WORKER_CODE, *ENGINE_CODE):
        shutil.copyfile(PACKAGE / code, folder / Path(code).name)
    for path in folder.glob("*_sm90.*"):  # the plan and its settings
        path.unlink()
    for name in ("model.onnx", "engine.json"):
        shutil.copyfile(engine / name, folder / name)
    config.parameters["threads"].string_value = "1"
    config.parameters["arithmetic"].string_value = "f32"
    config.backend = "python"
    for field in ("platform", "cc_model_filenames", "optimization"):
        config.ClearField(field)
