"""`auto` chooses by the number of images, says why, and leaves a spec that can be run again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from slipway.contract import Spec, SpecError
from slipway.contract.dataset import Dataset, LabelledImage
from slipway.contract.recipe import Recipe
from slipway.training import train
from slipway.training.learn import preset
from slipway.training.learn.preset import resolve_preset
from tests.support.small_training import make_spec, one_thread, write_digits, write_weights


def make(recipe: Any = "auto", backbone: Any = "auto") -> Spec:
    values = {"name": "pets", "data": {"root": "x"}, "preprocess": {"input_height": 32, "input_width": 32}}
    return Spec.parse({**values, "backbone": backbone, "recipe": recipe}, source="test")


def images(count: int) -> Dataset:
    """`count` images of which 7 of 10 are for training."""
    train_, test = (LabelledImage(path="x", class_id=0, sha256="", split=split) for split in ("train", "test"))
    number = round(count * 0.7)
    rows = (train_,) * number + (test,) * (count - number)
    return Dataset.model_construct(root="x", labels=("a", "b"), images=rows)


@pytest.mark.parametrize(
    ("count", "backbone", "freeze", "unfreeze", "epochs"),
    [
        (300, "efficientnet_b0", 30, 0, 30),
        (999, "efficientnet_b0", 30, 0, 30),
        (1_000, "efficientnet_b0", 5, 10, 30),
        (50_000, "convnext_small", 5, 10, 30),
        (100_000, "convnext_base", 0, 0, 60),
        (600_000, "swin_large_patch4_window7_224", 0, 0, 60),
    ],
)
def test_the_number_of_images_chooses(count: int, backbone: str, freeze: int, unfreeze: int, epochs: int) -> None:
    spec, reasons = resolve_preset(make(), images(count))
    recipe = spec.recipe
    assert spec.backbone.name == backbone
    assert (recipe.freeze_epochs, recipe.unfreeze_epochs, recipe.epochs) == (freeze, unfreeze, epochs)
    assert recipe.preset is None
    assert recipe.monitor == "val_macro_f1"
    assert recipe.warmup_epochs / recipe.epochs == 0.1
    assert f"({count:,})" in reasons[0]
    assert f"because {count:,} images are" in reasons[1]


def test_what_was_given_stays_and_is_said() -> None:
    spec, reasons = resolve_preset(
        make({"preset": "auto", "epochs": 7, "head": {"kind": "mlp"}}, {"name": "resnet10t"}), images(2_000)
    )
    assert spec.backbone.name == "resnet10t"
    assert spec.recipe.epochs == 7
    assert resolve_preset(make({"preset": "auto", "epochs": 90}), images(300))[0].recipe.freeze_epochs == 90
    assert spec.recipe.head.kind == "mlp"
    assert (spec.recipe.freeze_epochs, spec.recipe.unfreeze_epochs) == (1, 2), "in the proportions of 30 epochs"
    assert reasons[-1] == "recipe: epochs, head as the spec says"
    assert not any("backbone:" in reason for reason in reasons)


def test_a_backbone_that_starts_at_random_is_not_frozen() -> None:
    spec, reasons = resolve_preset(make("auto", {"name": "resnet10t", "pretrained": False}), images(300))
    assert spec.recipe.freeze_epochs == 0
    assert spec.recipe.backbone_multiplier == 1
    assert "the backbone starts at random" in reasons[0]


def test_nothing_is_chosen_for_a_spec_that_leaves_nothing_open() -> None:
    spec = make({"epochs": 3}, {"name": "resnet10t"})
    assert resolve_preset(spec, images(300)) == (spec, [])
    assert spec.recipe == Recipe(epochs=3)


@pytest.mark.parametrize(("train_images", "batch"), [(20, 4), (130, 8), (1_100, 64), (10**6, 64)])
def test_the_batch_leaves_some_steps_an_epoch(train_images: int, batch: int) -> None:
    assert preset._batch_size(train_images) == batch


def test_a_preset_is_written_as_it_was_given() -> None:
    spec = make({"preset": "auto", "epochs": 7})
    written = json.loads(spec.to_json())
    assert written["recipe"] == {"preset": "auto", "epochs": 7}
    assert Spec.parse(written, source="again") == spec
    assert resolve_preset(Spec.parse(written, source="again"), images(300)) == resolve_preset(spec, images(300))


RANDOM = {"name": "resnet10t", "pretrained": False}


@pytest.mark.parametrize(
    ("recipe", "backbone", "message"),
    [
        ("car", "auto", "recipe: keys with values are needed"),
        ({"preset": "fast"}, "auto", "recipe.preset: Input should be 'auto'"),
        ("auto", {"name": "auto", "weights": "x"}, "write its name instead of auto"),
        (
            {},
            {"name": "resnet10t", "weights": "x", "pretrained": False},
            "pretrained: false starts from a random state",
        ),
        ({"freeze_epochs": 1}, RANDOM, "pretrained: false starts untrained"),
        ({"preset": "auto", "freeze_epochs": 1}, RANDOM, "starts untrained"),
    ],
)
def test_contradictions_are_errors(recipe: Any, backbone: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make(recipe, backbone)


def test_the_checkpoint_has_the_resolved_recipe_and_its_spec_trains_the_same(tmp_path: Path) -> None:
    data, weights = write_digits(tmp_path / "data"), write_weights(tmp_path / "weights.safetensors")
    with one_thread():
        chosen = train(make_spec(data, weights=weights, preset="auto", epochs=1), tmp_path / "first")
        spec = Spec.read(tmp_path / "first/spec.json")
        assert spec.recipe.preset is None
        assert spec.recipe.freeze_epochs == spec.recipe.epochs == 1, "72 images: the backbone stays as it is"
        assert "only the head is trained, because 72 images are under 1,000" in chosen.measured["chosen"][0]
        again = train(spec, tmp_path / "again")
    assert again.measured["chosen"] == []
    assert again.outputs == chosen.outputs


@pytest.mark.parametrize(
    ("precision", "cpu", "remedy"), [("fp16", {}, "needs a GPU"), ("bf16", {"avx512_bf16": False}, "write fp32")]
)
def test_arithmetic_that_the_device_lacks_is_an_error(
    precision: str, cpu: dict[str, bool], remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
    with pytest.raises(SpecError, match=rf"recipe\.precision: {precision} given, .*{remedy}"):
        train(make_spec(write_digits(tmp_path / "data"), precision=precision), tmp_path / "run")
