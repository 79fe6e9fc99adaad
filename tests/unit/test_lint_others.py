"""Repositories of another make: what Triton takes, and rightly, the lint takes too."""

from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from slipway.lint import lint

CODE = "class TritonPythonModel:\n    def execute(self, requests): ...\n"


def step(folder: Path, name: str, text: str, *, code: str = CODE) -> None:
    (folder / name / "1").mkdir(parents=True)
    config = text_format.Parse(text, pb.ModelConfig(name=name, backend="python"))
    (folder / name / "config.pbtxt").write_text(text_format.MessageToString(config))
    (folder / name / "1/model.py").write_text(code)


def ensemble(folder: Path, name: str, text: str) -> None:
    (folder / name / "1").mkdir(parents=True)
    config = text_format.Parse(text, pb.ModelConfig(name=name, platform="ensemble"))
    (folder / name / "config.pbtxt").write_text(text_format.MessageToString(config))


IN, OUT = 'input { name: "IN" data_type: TYPE_FP32 dims: 4 }', 'output { name: "OUT" data_type: TYPE_FP32 dims: 4 }'
STEP = (
    'step {{ model_name: "{}" model_version: {} '
    'input_map {{ key: "IN" value: "{}" }} output_map {{ key: "OUT" value: "{}" }} }}'
)


def chained(*steps: str) -> str:
    return f"{IN} {OUT} ensemble_scheduling {{ {' '.join(steps)} }}"


def without_batches(folder: Path) -> None:
    for name in ("a", "b"):
        step(folder, name, f"{IN} {OUT}")
    ensemble(folder, "ab", chained(STEP.format("a", -1, "IN", "x"), STEP.format("b", -1, "x", "OUT")))


def in_any_order(folder: Path) -> None:
    without_batches(folder)
    ensemble(folder, "ba", chained(STEP.format("b", -1, "x", "OUT"), STEP.format("a", -1, "IN", "x")))


def a_batched_step_behind_one_that_takes_any_number(folder: Path) -> None:
    step(folder, "a", f"{IN.replace('4', '[-1, 4]')} {OUT.replace('4', '[-1, 4]')}")
    step(folder, "b", f"max_batch_size: 8 {IN} {OUT}")
    text = chained(STEP.format("a", -1, "IN", "x"), STEP.format("b", -1, "x", "OUT"))
    ensemble(folder, "ab", f"max_batch_size: 8 {text}")


def an_ensemble_in_an_ensemble_with_branches_and_versions(folder: Path) -> None:
    without_batches(folder)
    (folder / "a/3").mkdir()
    (folder / "a/3/model.py").write_text(CODE)
    (folder / "a/assets").mkdir()
    config = folder / "a/config.pbtxt"
    config.write_text(config.read_text() + "version_policy { all { } }\n")
    parts = [STEP.format("ab", -1, "IN", "x"), STEP.format("a", 1, "x", "OUT"), STEP.format("a", 3, "x", "OTHER")]
    ensemble(folder, "outer", f"{chained(*parts)} {OUT.replace('OUT', 'OTHER')}")


def sizes_that_are_open_and_reshaped(folder: Path) -> None:
    step(folder, "a", f"max_batch_size: 4 {IN.replace('dims: 4', 'dims: [-1, 2] reshape { shape: [-1, 1, 2] }')} {OUT}")
    step(folder, "b", f"max_batch_size: 2 dynamic_batching {{ preferred_batch_size: 2 }} {IN} {OUT}")
    text = chained(STEP.format("a", -1, "IN", "x"), STEP.format("b", -1, "x", "OUT"))
    ensemble(folder, "ab", f"max_batch_size: 2 {text.replace('dims: 4', 'dims: [3, 2]', 1)}")


def instances_warmup_and_a_bound_on_the_first_step(folder: Path) -> None:
    first = """max_batch_size: 8
    instance_group { kind: KIND_CPU } instance_group { count: 2 kind: KIND_GPU gpus: [0, 1] }
    dynamic_batching { max_queue_delay_microseconds: 100 priority_levels: 2 default_priority_level: 1
      default_queue_policy { max_queue_size: 4 default_timeout_microseconds: 100000 }
      priority_queue_policy { key: 2 value { max_queue_size: 1 } } }
    model_warmup { name: "w" batch_size: 8 inputs { key: "IN" value { data_type: TYPE_FP32 dims: 4 zero_data: true } } }
    """
    step(folder, "a", f"{first} {IN} {OUT}")
    step(folder, "b", f"max_batch_size: 8 dynamic_batching {{ preserve_ordering: true }} {IN} {OUT}")
    text = chained(STEP.format("a", -1, "IN", "x"), STEP.format("b", -1, "x", "OUT"))
    ensemble(folder, "ab", f"max_batch_size: 8 {text}")


def other_backends(folder: Path) -> None:
    for name, text, file in (
        ("onnx", 'platform: "onnxruntime_onnx"', "model.onnx"),
        ("inferred", "", "model.onnx"),
        ("plan", 'backend: "tensorrt" cc_model_filenames { key: "8.9" value: "l4.plan" }', "l4.plan"),
        ("custom", 'backend: "ours"', "anything"),
        ("dali", 'backend: "dali" default_model_filename: "pipe.dali"', "pipe.dali"),
    ):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / file).write_bytes(b"\0")
        config = text_format.Parse(f"{text} {IN} {OUT}", pb.ModelConfig(name=name))
        (folder / name / "config.pbtxt").write_text(text_format.MessageToString(config))


def a_model_that_is_a_link_within_the_repository(folder: Path) -> None:
    without_batches(folder)
    (folder / "a/1/more.py").symlink_to("model.py")
    (folder / "README.md").write_text("Files beside the models are nobody's business.\n")


def stateful_and_decoupled_models_with_environments_of_their_own(folder: Path) -> None:
    step(folder, "sequences", f"max_batch_size: 4 sequence_batching {{ oldest {{ }} }} {IN} {OUT}")
    text = f"model_transaction_policy {{ decoupled: true }} {IN} {OUT}"
    here = 'key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" }'
    step(folder, "tokens", f"{text} parameters {{ {here} }}", code="from .more import *\n")
    (folder / "tokens/env.tar.gz").touch()
    (folder / "tokens/1/more.cpython-311-x86_64-linux-gnu.so").touch()


OTHERS: tuple[Callable[[Path], None], ...] = (
    without_batches,
    in_any_order,
    a_batched_step_behind_one_that_takes_any_number,
    an_ensemble_in_an_ensemble_with_branches_and_versions,
    sizes_that_are_open_and_reshaped,
    instances_warmup_and_a_bound_on_the_first_step,
    other_backends,
    a_model_that_is_a_link_within_the_repository,
    stateful_and_decoupled_models_with_environments_of_their_own,
)


@pytest.mark.parametrize("make", OTHERS, ids=lambda make: make.__name__)
def test_other_legal_choices_are_not_found_fault_with(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "repository")
    assert lint(tmp_path / "repository") == []
