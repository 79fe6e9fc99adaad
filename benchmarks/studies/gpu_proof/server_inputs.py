"""Writes the repository of proof `server`: the gpu lane as `slipway.repository` assembles it, with torch for
TensorRT."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.gpu_proof.folder import CorpusFile, Described, Expected, read_files, write_files

PRECISION = "fp16"
ANSWERED = 96


def write_server(inputs: Path, run: Path, *, small: bool) -> Described:
    """Write `repository/` without weights, which lie in `precision/digits`, and images with the answers of the CPU.

    Raises:
        ProofError: this commit has no isolated decode step.
    """
    from slipway.contract import Bundle
    from slipway.onnx_graph import output_sizes
    from slipway.repository import Classifier, assemble
    from tests.support.plans import stand_in_plan

    bundle = Bundle.open(run / "bundle")
    largest = bundle.spec.serving.gpu.max_batch_size
    size = output_sizes(bundle.path / "model.onnx")["embedding_nd"]
    repository = inputs / "server/repository"
    with tempfile.TemporaryDirectory() as work:
        plan = stand_in_plan(
            Path(work) / "plan",
            bundle,
            plan={"batch_sizes": [1, largest, largest]},
            embedding_size=size,
            precision=PRECISION,
        )
        assemble([Classifier(bundle, plan)], Path(work) / "repository", lane="gpu")
        shutil.copytree(Path(work) / "repository", repository)
    play_the_engine(repository, inputs)
    write_questions(inputs / "server/questions.npz", bundle, run, images=12 if small else ANSWERED)
    write_statuses(inputs)
    return {"bundle": bundle.id, "precision": PRECISION, "max_batch_size": largest}


def play_the_engine(repository: Path, inputs: Path) -> None:
    """Put the carried network of the digits, in torch, instead of the repository's stand-in for a plan."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as pb

    (engine,) = repository.glob("engine_*")
    config = text_format.Parse((engine / "config.pbtxt").read_text(encoding="utf-8"), pb.ModelConfig())
    for played in engine.glob("1/*"):
        played.unlink()
    config.backend = "python"
    for field in ("platform", "cc_model_filenames", "default_model_filename", "optimization", "model_warmup"):
        config.ClearField(field)
    config.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value = "no"  # else pixels come by way of the CPU
    (engine / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
    here = Path(__file__).parent
    shutil.copy(here / "engine_model.py", engine / "1/model.py")
    shutil.copy(here / "torch_graph.py", engine / "1/torch_graph.py")
    shutil.copy(inputs / f"precision/digits/{PRECISION}.json", engine / "1/graph.json")
    shutil.copy(inputs / "precision/digits/network.json", engine / "1/network.json")


def write_questions(path: Path, bundle: Any, run: Path, *, images: int) -> None:
    """Write test images with label and score of the CPU: guard, DALI, OpenVINO in FP32, the bundle's decision."""
    from slipway.contract.dataset import FILE_NAME, Dataset
    from slipway.steps.engine_openvino import Engine
    from slipway.steps.normalize import normalize
    from slipway.steps.postprocess import Postprocessor
    from slipway.steps.preprocess import Preprocessor

    dataset = Dataset.read(bundle.path / FILE_NAME)
    encoded = [dataset.load(entry) for entry in dataset.of("test")[:images]]
    config = bundle.preprocess.model_dump()
    preprocessor = Preprocessor(config, max_batch_size=1, threads=1)
    engine = Engine(run / "graphs" / PRECISION / "model.onnx", arithmetic="f32", threads=1)
    postprocessor = Postprocessor.read(bundle.path)
    facts = []
    for image in encoded:
        pixels_nhwc_u8, status_n = preprocessor.run([image])
        answers = postprocessor.run(*_outputs(engine.run(normalize(pixels_nhwc_u8, config)), status_n))
        facts.append(Expected(answers.label_nk[0, 0].decode(), score=float(answers.score_nk[0, 0])))
    write_files(path, encoded, facts)


def _outputs(outputs: Any, status_n: Any) -> tuple[Any, Any, Any]:
    logits_nc, embedding_nd = outputs
    return logits_nc, status_n, embedding_nd


def write_statuses(inputs: Path) -> None:
    """Write the STATUS of each image of the corpus on the CPU, by the isolated step itself."""
    from slipway.steps.preprocess import Preprocessor

    config = json.loads((inputs / "preprocess.json").read_text(encoding="utf-8"))
    step = Preprocessor(config, max_batch_size=1, threads=1, device_id=None)
    files, _ = read_files(inputs / "corpus.npz", CorpusFile)
    np.save(inputs / "server/statuses.npy", np.array([int(step.run([file])[1][0]) for file in files], np.int32))
