"""training/inspect_augmentation.py: a page of what training will see, that loads nothing."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bad_images import encode
from conftest import run_script
from PIL import Image

ORIGINAL = re.compile(r'<img src="data:image/jpeg;base64,[^"]+" alt="(\w+)"')


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


def write_spec(folder: Path, augment: dict[str, Any]) -> Path:
    spec = {
        "name": "pets",
        "data": {"root": "images"},
        "preprocess": {"input_height": 32, "input_width": 32},
        "backbone": {"name": "resnet10t", "pretrained": False},
        "recipe": {"batch_size": 8, "augment": augment},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    return Path("spec.yaml")


def test_the_page_shows_originals_serving_draws_and_mixed_batches_and_loads_nothing(folder: Path) -> None:
    augment = {"minority": {"below": 0.8, "erase": {}}, "mix": {"mixup_alpha": 1.0}, "rotate_degrees": 10}
    done = run_script("training/inspect_augmentation.py", write_spec(folder, augment), "--out", "a.html", cwd=folder)
    assert "changed by minority: <b>&dog" in done.stdout
    page = (folder / "a.html").read_text()
    pictures = ORIGINAL.findall(page)
    assert {name: pictures.count(name) for name in set(pictures)} == {
        **{"original": 4, "serving": 4, "training": 24},  # two images of each class, six draws
        "mixed": 12,
    }
    assert "&lt;b&gt;&amp;dog" in page
    assert "<b>&dog" not in page
    assert re.search(r"0\.\d\d cat \+ 0\.\d\d", page) or re.search(r"0\.\d\d &lt;b&gt;&amp;dog \+ 0\.\d\d", page)
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "default-src 'none'" in page


def test_an_operation_that_there_is_not_is_an_error_and_no_page(folder: Path) -> None:
    spec = write_spec(folder, {"policy": {"without": ["spin"]}})
    done = run_script("training/inspect_augmentation.py", spec, "--out", "b.html", cwd=folder, check=False)
    assert done.returncode == 1
    assert "recipe.augment.policy.without: 'spin' given; the operations of trivial are auto_contrast" in done.stderr
    assert not (folder / "b.html").exists()
