"""The page of training/inspect_augmentation.py: what training will see, and nothing that is loaded."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slipway.contract import Spec, SpecError
from slipway.training.data.inspection.augmentation import render
from tests.support.image_files import encode
from tests.support.report_builds import Page

PICTURE = re.compile(r'<img src="data:image/jpeg;base64,[^"]+" alt="(\w+)"')


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
    values = {
        "name": "pets",
        "data": {"root": str(folder / "images")},
        "preprocess": {"input_height": 32, "input_width": 32},
        "backbone": {"name": "resnet10t", "pretrained": False},
        "recipe": {"batch_size": 8, "augment": augment},
    }
    return Spec.parse(values, source="test")


def test_the_page_shows_originals_serving_draws_and_mixed_batches_and_loads_nothing(folder: Path) -> None:
    augment = {"minority": {"below": 0.8, "erase": {}}, "mix": {"mixup_alpha": 1.0}, "rotate_degrees": 10}
    page, found = render(spec(folder, augment))
    assert found == {"images": 4, "draws": 6, "minority": ["<b>&dog"]}
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
