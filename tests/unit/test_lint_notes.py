"""What is legal on a gpu lane and costs something: a note of the lint, and no finding."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import Choice
from slipway.lint import lint, notes
from slipway.repository import assemble
from tests.support.cards import H100
from tests.support.gpu_lanes import gpu_classifier, with_gpu

BEST: dict[str, Any] = {"single_image_profile": True}
NO_PLAN_MEASURED = "colours: its plans were taken by name, not as the fastest that were measured"


def assembled(folder: Path, *, measured: bool = True, plan: dict[str, Any] = BEST, **gpu: Any) -> Path:
    """A gpu lane of `colours`, whose plan was measured to be the fastest, or was taken by name."""
    classifier = gpu_classifier(folder, "9.0", plan=plan, spec=with_gpu(**gpu))
    facts: dict[str, Any] = {"bundle": classifier.bundle.id, "chosen": "tensorrt-int8-sm90", "reason": "the only one"}
    facts |= {"candidates": [], "rounds": 1, "images_per_round": 1, "threads": 1, "machine": "test", "versions": {}}
    choice = Choice.parse(facts | {"card": H100}, source="test")
    assemble([replace(classifier, choices=(choice,) if measured else ())], folder / "repository", lane="gpu")
    return folder / "repository"


def test_the_defaults_with_a_measured_plan_of_two_profiles_need_no_note(tmp_path: Path) -> None:
    assert notes(assembled(tmp_path)) == []


@pytest.mark.parametrize(
    ("model", "says", "options"),
    [
        ("decode_", "fails every request of its batch, and the decoder is then built anew", {"decode": "native"}),
        ("preprocess_", "the GPU's hardware JPEG decoder reports success for a damaged image", {"hardware_jpeg": True}),
        ("engine_", "without CUDA graphs the CPU launches each kernel of a batch", {"cuda_graphs": False}),
        ("engine_", "model_sm90.plan is tuned for batches of 32 alone, and single images are slower", {"plan": {}}),
        ("colours", NO_PLAN_MEASURED, {"measured": False}),
    ],
)
def test_what_is_legal_and_costs_something_is_a_note(
    model: str, says: str, options: dict[str, Any], tmp_path: Path
) -> None:
    repository = assembled(tmp_path, **options)
    assert lint(repository) == []
    (note,) = notes(repository)
    assert note.startswith(model)
    assert says in note


def test_the_hardware_decoder_of_the_native_form_is_noted_beside_the_form(tmp_path: Path) -> None:
    native, hardware = notes(assembled(tmp_path, decode="native", hardware_jpeg=True))
    assert "serving.gpu.decode: native" in native
    assert "serving.gpu.hardware_jpeg" in hardware


def test_a_plan_for_single_images_alone_needs_no_second_profile(tmp_path: Path) -> None:
    assert notes(assembled(tmp_path, plan={"batch_sizes": [1, 1, 1]}, max_batch_size=1)) == []
