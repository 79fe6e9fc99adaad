"""What learns, how fast and when."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from slipway.contract import SpecError
from slipway.contract.recipe import Compute, HeadRecipe, Recipe
from slipway.contract.spec import Backbone
from slipway.steps.engine_openvino import Engine
from slipway.training import train
from slipway.training.bundle.export import write_onnx
from slipway.training.learn.callbacks import moving_average
from slipway.training.learn.network import Network
from slipway.training.learn.phases import (
    Phases,
    configure,
    first_whole_epoch,
    learning_stages,
    parameter_groups,
    stages,
    warmup_and_cosine,
)
from tests.support import small_training as fixtures
from tests.support.small_training import make_spec

single_thread = fixtures.single_thread
folder = fixtures.folder


def make_network(name: str = "resnet10t", head: HeadRecipe | None = None) -> Network:
    return Network(
        Backbone(name=name, pretrained=False),
        classes=3,
        pretrained=False,
        input_size=(32, 32),
        head=head or HeadRecipe(),
    )


def learned(checkpoint: Path, weights: Path) -> set[str]:
    """The tensors of the backbone that training changed, by their first name in timm's model."""
    before, after = load_file(weights), load_file(checkpoint / "model.safetensors")
    names = [name for name in before if not name.startswith("fc.")]
    return {name.split(".")[0] for name in names if not torch.equal(before[name], after[f"backbone.{name}"])}


def test_a_frozen_backbone_keeps_every_weight_and_every_batchnorm_statistic(folder: Path, tmp_path: Path) -> None:
    weights = folder / "weights.safetensors"
    train(make_spec(folder / "data", weights=weights, epochs=2, freeze_epochs=2), tmp_path / "run")
    assert learned(tmp_path / "run", weights) == set()
    rows = json.loads((tmp_path / "run/history.json").read_text())
    assert [row["phase"] for row in rows] == ["head", "head"]
    assert rows[0]["train_loss"] > rows[1]["train_loss"], "the head learns"


def test_the_backbone_joins_from_the_top(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = folder / "weights.safetensors"
    spec = make_spec(folder / "data", weights=weights, epochs=3, freeze_epochs=1, unfreeze_epochs=4, patience_epochs=9)
    manifest = train(spec, tmp_path / "run")
    rows = json.loads((tmp_path / "run/history.json").read_text())
    assert [row["phase"] for row in rows] == ["head", "head and 1 of 5 stages", "head and 2 of 5 stages"]
    assert learned(tmp_path / "run", weights) <= {"layer3", "layer4"}
    assert manifest.measured["phase"] == rows[manifest.measured["best_epoch"]]["phase"]
    printed = capsys.readouterr().out
    assert "from epoch 0: training head" in printed
    assert "from epoch 2: training head and 2 of 5 stages" in printed
    assert "head at random: the file's head is 5x512, this one 3x512" in printed


def test_every_epoch_has_its_phase() -> None:
    recipe = Recipe(epochs=20, freeze_epochs=5, unfreeze_epochs=10)
    counts = [learning_stages(recipe, epoch, 8) for epoch in range(20)]
    assert counts[:6] == [0, 0, 0, 0, 0, 1]
    assert counts == sorted(counts)
    assert counts[15:] == [8] * 5
    assert counts[14] == 8, "rounded up"
    assert [learning_stages(Recipe(), epoch, 8) for epoch in range(3)] == [8, 8, 8]
    assert [learning_stages(Recipe(freeze_epochs=2), epoch, 8) for epoch in range(4)] == [0, 0, 8, 8]
    assert first_whole_epoch(recipe) == 15
    assert first_whole_epoch(Recipe(epochs=3, freeze_epochs=3)) == 0, "one phase: early stopping is awake at once"


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto"])
def test_stages_are_all_of_the_backbone_and_a_frozen_one_is_in_eval_mode(name: str) -> None:
    network = make_network(name)
    parts = stages(network)
    assert len(parts) >= 4
    in_stages = {id(parameter) for stage in parts for parameter in stage}
    in_head = {id(parameter) for parameter in network.head_parameters()}
    assert in_stages.isdisjoint(in_head)
    assert in_stages | in_head == {id(parameter) for parameter in network.parameters()}
    phases = Phases(network, Recipe(freeze_epochs=1, unfreeze_epochs=2))
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert phases.enter(0) == "head"
    assert not any(norm.training for norm in norms)
    assert phases.enter(1).startswith("head and ")
    assert all(norm.training == norm.weight.requires_grad for norm in norms)
    assert phases.enter(3) == "all"
    assert all(module.training for module in network.modules())


def test_norms_and_biases_do_not_decay_and_layers_learn_slower_towards_the_stem() -> None:
    network = make_network(head=HeadRecipe(kind="mlp", units=8))
    recipe = Recipe(learning_rate=0.1, backbone_multiplier=0.1, layer_decay=0.5, weight_decay=0.3)
    groups = parameter_groups(network, recipe)
    settings = {id(parameter): group for group in groups for parameter in group["params"]}
    assert len(settings) == len(list(network.parameters())) == sum(len(group["params"]) for group in groups)
    for name, parameter in network.named_parameters():
        assert settings[id(parameter)]["weight_decay"] == (0.0 if parameter.ndim <= 1 else 0.3), name
        assert (settings[id(parameter)]["part"] == "head") == name.startswith("head."), name
    rate = {name: settings[id(parameter)]["lr"] for name, parameter in network.named_parameters()}
    assert rate["head.1.weight"] == rate["head.4.bias"] == 0.1
    assert 0 < rate["backbone.conv1.0.weight"] < rate["backbone.layer1.0.conv1.weight"]
    assert rate["backbone.layer1.0.conv1.weight"] < rate["backbone.layer4.0.conv1.weight"] < 0.0101


def test_frozen_weights_do_not_decay() -> None:
    network = make_network()
    optimizer = configure(network, Recipe(weight_decay=0.5), steps_per_epoch=3)["optimizer"]
    Phases(network, Recipe(epochs=9, freeze_epochs=9)).enter(0)
    before = network.backbone.conv1[0].weight.clone()
    network(torch.zeros(2, 3, 32, 32))[0].sum().backward()
    optimizer.step()
    assert torch.equal(network.backbone.conv1[0].weight, before)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_optimiser_is_the_one_of_the_recipe(name: str) -> None:
    made = configure(make_network(), Recipe(optimizer=name, momentum=0.8), steps_per_epoch=1)["optimizer"]
    assert type(made).__name__.lower() == name
    assert name != "sgd" or all(group["nesterov"] and group["momentum"] == 0.8 for group in made.param_groups)


def test_the_schedule_is_torchs_linear_warm_up_and_cosine() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, 1.0, 10)
    torchs = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], [10])
    ours = warmup_and_cosine(10, 40)
    for step in range(40):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6), step
        optimizer.step()
        torchs.step()
    assert ours(40) == 0
    assert warmup_and_cosine(0, 5)(0) == 1
    assert warmup_and_cosine(9, 1)(0) == 1, "a run of one step has no warm-up"


def test_the_moving_average_warms_up_to_its_decay() -> None:
    averaged = [torch.zeros(1)]
    for updates, expected in ((0, 0.9), (9, 0.9 + 0.1 * 9 / 19)):
        moving_average(0.999)(averaged, [torch.ones(1)], torch.tensor(updates))
        assert averaged[0].item() == pytest.approx(expected)
    moving_average(0.5)(averaged, [torch.zeros(1)], torch.tensor(10**6))
    assert averaged[0].item() == pytest.approx(expected / 2)


def test_an_mlp_head_survives_onnx_and_the_embedding_is_what_it_sees(tmp_path: Path) -> None:
    network = make_network(head=HeadRecipe(kind="mlp", units=16, dropout=0.5)).eval()
    write_onnx(network, tmp_path / "model.onnx", input_shape=(3, 32, 32))
    pixels_nchw = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits_nc, embedding_nd = Engine(tmp_path / "model.onnx", arithmetic="f32", threads=1).run(pixels_nchw.numpy())
    with torch.inference_mode():
        expected_nc, expected_nd = network(pixels_nchw)
        assert torch.equal(network.head(expected_nd), expected_nc)
    assert torch.allclose(torch.from_numpy(logits_nc), expected_nc, atol=1e-4)
    assert torch.allclose(torch.from_numpy(embedding_nd), expected_nd, atol=1e-4)
    assert embedding_nd.shape == (3, 512)


def test_phases_are_refused_for_several_processes_before_any_starts(folder: Path, tmp_path: Path) -> None:
    spec = make_spec(folder / "data", weights=folder / "weights.safetensors", freeze_epochs=1)
    several = spec.model_copy(update={"compute": Compute(devices=2, accelerator="cpu")})
    with pytest.raises(SpecError, match=r"compute: 2 processes given, but recipe\.freeze_epochs.* need a single one"):
        train(several, tmp_path / "out")
    assert not list(tmp_path.iterdir())
