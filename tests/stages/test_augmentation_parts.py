"""Which images a batch has on which process, how they are mixed, how many processes there are, and the page of it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data.mixup import Mixup
from torch import nn

from slipway.contract import Spec, SpecError
from slipway.contract.augmentation import Augmentation, Mix
from slipway.contract.dataset import LabelledImage
from slipway.contract.recipe import Compute
from slipway.training.data.augment import check_policies
from slipway.training.data.inspection.augmentation import render
from slipway.training.data.mixing import Mixing
from slipway.training.data.order import TrainingProcess, batches, rare_classes, shuffled, steps_per_epoch
from slipway.training.learn.devices import devices_of, is_first
from tests.support.colour_training import small_spec
from tests.support.image_files import encode
from tests.support.report_builds import Page

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
PIXELS, CLASS_ID = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4
PICTURE = re.compile(r'<img src="data:image/jpeg;base64,[^"]+" alt="(\w+)"')


@given(st.integers(1, 8), st.integers(2, 9), st.integers(0, 200), st.integers(0, 5))
def test_all_processes_together_see_every_image_once_an_epoch_in_as_many_batches(
    world_size: int, each: int, more: int, epoch: int
) -> None:
    count, batch_size = world_size + more, each * world_size
    order = shuffled(count, seed=1, epoch=epoch)
    parts = [
        batches(order, batch_size=batch_size, process=TrainingProcess(rank, world_size)) for rank in range(world_size)
    ]
    assert sorted(np.concatenate([np.concatenate(part) for part in parts])) == list(range(count))
    sizes = [[len(batch) for batch in part] for part in parts]
    assert {len(part) for part in parts} == {steps_per_epoch(count, batch_size=batch_size, world_size=world_size)}
    assert max(map(max, sizes)) <= each
    assert min(map(min, sizes)) >= 1
    assert all(max(part) - min(part) <= 1 for part in sizes)


def test_processes_share_the_batches_that_one_would_have() -> None:
    order = shuffled(64, seed=0, epoch=3)
    alone = batches(order, batch_size=16)
    two = zip(*(batches(order, batch_size=16, process=TrainingProcess(rank, 2)) for rank in (0, 1)), strict=True)
    assert [sorted(batch.tolist()) for batch in alone] == [sorted([*a.tolist(), *b.tolist()]) for a, b in two]


def test_epochs_and_seeds_are_shuffled_differently_and_always_the_same() -> None:
    orders = {(seed, epoch): tuple(shuffled(50, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(set(orders.values())) == 4
    assert orders[1, 1] == tuple(shuffled(50, seed=1, epoch=1))


@pytest.mark.parametrize(
    ("count", "batch_size", "says"),
    [(100, 30, "recipe.batch_size: 30 given for 4 processes"), (100, 4, "at least 8"), (3, 8, "for 3 images; use at")],
)
def test_batches_that_cannot_be_shared_are_an_error(count: int, batch_size: int, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        steps_per_epoch(count, batch_size=batch_size, world_size=4)


def test_a_class_is_rare_by_its_different_files() -> None:
    images = [
        LabelledImage(path=f"{c}/{n}", class_id=c, sha256=f"{c}/{n}", split="train")
        for c, count in enumerate((10, 2, 1))
        for n in range(count)
    ]
    assert rare_classes([*images, *[images[-1]] * 20], below=0.2) == {2}
    assert rare_classes(images, below=0.3) == {1, 2}
    assert rare_classes(images, below=0.05) == frozenset()


def mix(draw: tuple[int, ...] = (0, 0, 0, 0), count: int = 8, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    mixing = Mixing(Mix(**{"mixup_alpha": 1.0, **options}), classes=4)
    return mixing(PIXELS[:count].clone(), CLASS_ID[:count], draw=draw)


@pytest.mark.parametrize("options", [{}, {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}, {"mode": "pair"}], ids=str)
def test_targets_are_mixed_as_the_pixels_are(options: dict[str, Any]) -> None:
    pixels, target_nc = mix(**options)
    torch.testing.assert_close(target_nc.sum(1), torch.ones(8))
    own_n = target_nc[torch.arange(8), CLASS_ID]  # classes of pairs differ: 0 with 3, 1 with 2
    kept_n = (pixels - PIXELS.flip(0)).abs().mean((1, 2, 3)) / (PIXELS - PIXELS.flip(0)).abs().mean((1, 2, 3))
    torch.testing.assert_close(kept_n, own_n, atol=0.12 if "cutmix_alpha" in options else 1e-4, rtol=0)
    assert 0.0 < own_n.mean() < 1.0


def test_an_odd_batch_keeps_its_last_image_and_a_single_one_stays() -> None:
    pixels, target_nc = mix(count=7)
    assert torch.equal(pixels[6], PIXELS[6])
    assert target_nc[6].tolist() == [0, 0, 1, 0]
    assert not torch.equal(pixels[0], PIXELS[0])
    pixels, target_nc = mix(count=1)
    assert torch.equal(pixels, PIXELS[:1])
    assert target_nc.tolist() == [[1, 0, 0, 0]]


def test_a_batch_is_mixed_by_its_place_and_leaves_numpys_generator_alone() -> None:
    np.random.seed(7)
    expected = np.random.rand(2)[1]
    np.random.seed(7)
    np.random.rand()
    first = mix((0, 1, 2, 0))
    assert np.random.rand() == expected
    assert torch.equal(mix((0, 1, 2, 0))[0], first[0])
    assert not torch.equal(mix((0, 1, 3, 0))[0], first[0])


def test_a_loss_that_smooths_mixed_targets_is_timms_own_smoothing() -> None:
    np.random.seed(3)
    _, smooth_nc = Mixup(mixup_alpha=1.0, label_smoothing=0.1, num_classes=4)(PIXELS.clone(), CLASS_ID)
    np.random.seed(3)
    _, target_nc = Mixup(mixup_alpha=1.0, label_smoothing=0.0, num_classes=4)(PIXELS.clone(), CLASS_ID)
    logits_nc = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    ours = nn.CrossEntropyLoss(label_smoothing=0.1)(logits_nc, target_nc)
    torch.testing.assert_close(ours, nn.CrossEntropyLoss()(logits_nc, smooth_nc))


@pytest.mark.parametrize("place", ["policy", "minority"])
def test_an_operation_that_a_policy_does_not_have_is_named_with_those_it_has(place: str) -> None:
    policy: dict[str, Any] = {"policy": {"kind": "rand", "without": ["rotate", "spin"]}}
    augment = Augmentation.parse(policy if place == "policy" else {"minority": policy}, source="test")
    with pytest.raises(SpecError, match=r"policy.without: 'spin' given; the operations of rand are auto_contrast, .*"):
        check_policies(augment)


def test_torchrun_says_how_many_processes_there_are_where_the_spec_does_not() -> None:
    options = devices_of(Compute(accelerator="cpu"), TORCHRUN)
    assert options.devices == options.num_nodes == 2
    assert options.strategy == "ddp"
    assert not options.sync_batchnorm
    assert not is_first(TORCHRUN)
    assert is_first({})


def test_one_device_is_the_default() -> None:
    options = devices_of(Compute(), {})
    assert (options.devices, options.num_nodes, options.strategy) == (1, 1, "auto")


@pytest.mark.parametrize(
    ("compute", "environment", "says"),
    [
        ({"devices": 4}, TORCHRUN, "compute.devices: 4 given, but torchrun started 2; leave it out"),
        ({"nodes": 3}, TORCHRUN, "compute.nodes: 3 given, but torchrun started 2"),
        ({"nodes": 2}, {}, "run on each machine: torchrun --nnodes 2"),
        ({"accelerator": "gpu", "devices": 64}, {}, "compute.devices: 64 given, but this machine has"),
    ],
)
def test_processes_that_are_not_there_are_an_error(
    compute: dict[str, Any], environment: dict[str, str], says: str
) -> None:
    with pytest.raises(SpecError, match=says):
        devices_of(Compute(**compute), environment)


def test_no_configuration_of_ours_has_the_old_fields() -> None:
    for path in (Path(__file__).parents[2] / "training/configs").glob("*.yaml"):
        assert "\n  crop_scale" not in path.read_text(), path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 images of one class, 14 of another with a name that is no HTML."""
    folder = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(0)
    for label, count in (("cat", 20), ("<b>&dog", 14)):
        (folder / "images" / label).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            (folder / "images" / label / f"{number}.png").write_bytes(encode(Image.fromarray(pixels), "PNG"))
    return folder


def spec(folder: Path, augment: dict[str, Any]) -> Spec:
    return small_spec(folder / "images", recipe={"augment": augment})


def test_the_page_shows_originals_serving_draws_and_mixed_batches_and_loads_nothing(folder: Path) -> None:
    augment = {"minority": {"below": 0.8, "erase": {}}, "mix": {"mixup_alpha": 1.0}, "rotate_degrees": 10}
    page, found = render(spec(folder, augment))
    assert found == (4, 6, ["<b>&dog"])
    pictures = PICTURE.findall(page)
    assert {name: pictures.count(name) for name in set(pictures)} == {
        **{"original": 4, "serving": 4, "training": 24},  # two images of each class, six draws
        "mixed": 12,
    }
    assert "&lt;b&gt;&amp;dog" in page
    assert "<b>&dog" not in page
    assert re.search(r"0\.\d\d (cat|&lt;b&gt;&amp;dog) \+ 0\.\d\d", page), "targets that are mixed"
    Page(page).assert_loads_and_runs_nothing()


def test_a_recipe_without_rare_classes_or_mixing_says_so(folder: Path) -> None:
    page, _ = render(spec(folder, {"minority": {"below": 0.5}}))
    assert "changes nothing" in page
    assert "Mixed batches" not in page


def test_an_operation_that_there_is_not_is_an_error(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"policy\.without: 'spin' given; the operations of trivial are auto_contrast"):
        render(spec(folder, {"policy": {"without": ["spin"]}}))
