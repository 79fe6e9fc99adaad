"""`slipway index` on the real server: one pass over a folder, images like others, and near-duplicates."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.repository import assemble
from slipway.serving import Server
from tests.support.heads import open_heads, write_base, write_head
from tests.support.load_tools import colour_images
from tests.support.scripts import refused, run_here


@pytest.fixture(scope="module")
def server(start: Callable[[Path], Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Two heads, `pets` and `others`, on one base."""
    folder = tmp_path_factory.mktemp("served")
    base = write_base(folder / "base")
    heads = [write_head(folder / name, base, name=name, seed=seed) for seed, name in enumerate(("pets", "others"))]
    assemble([], folder / "repository", bases=open_heads(base, heads))
    return start(folder / "repository")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Red, green and blue images of three sizes, a copy of one, and a file that is no image."""
    folder = colour_images(tmp_path / "photographs")
    shutil.copyfile(folder / "red1.jpg", folder / "copy.jpg")
    (folder / "letter.png").write_text("dear")
    return folder


def said(*words: str | Path, cwd: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run_here("index", *words, "--json", cwd=cwd).stdout.splitlines()[-1])
    return found


def test_a_folder_is_indexed_by_one_pass_and_asked_through_any_head(
    server: Server, photographs: Path, tmp_path: Path
) -> None:
    url = f"--url=grpc://{server.grpc_url}"
    before = server.control.answered("pets_full")
    build = run_here("index", "build", photographs, url, "--model=pets", "--out=index", "--json", cwd=tmp_path)
    *printed, last = build.stdout.splitlines()
    assert printed == ["index: 10 images, 16 numbers each; 1 left out", "  next: slipway index duplicates index"]
    built = json.loads(last)
    assert built["images"] == 10
    assert built["skipped"] == {"letter.png": "unsupported format"}
    assert server.control.answered("pets_full") - before <= 11
    for model in ("pets", "others"):
        found = said("like", "index", photographs / "red1.jpg", url, f"--model={model}", "--count=4", cwd=tmp_path)
        (matches,) = found["like"].values()
        assert found["recall"] == 1.0
        assert {match["file"] for match in matches[:2]} == {"copy.jpg", "red1.jpg"}
        assert matches[0]["similarity"] == pytest.approx(1, abs=1e-5)
        assert {match["file"] for match in matches} == {"copy.jpg", "red0.jpg", "red1.jpg", "red2.jpg"}
    groups = said("duplicates", "index", "--least=0.9999", cwd=tmp_path)["groups"]
    assert any({"copy.jpg", "red1.jpg"} <= {match["file"] for match in group} for group in groups)


def test_an_index_of_another_embedding_and_a_refused_image_are_said(
    server: Server, photographs: Path, tmp_path: Path
) -> None:
    url = f"--url=grpc://{server.grpc_url}"
    said("build", photographs, url, "--model=pets", "--out=index", cwd=tmp_path)
    assert "letter.png: refused: " in refused("index", "like", "index", photographs / "letter.png", url, cwd=tmp_path)
    shutil.copyfile(photographs / "red1.jpg", photographs / "blue0.jpg")  # which is asked for first
    assert "another embedding than in the index" in refused(
        "index", "like", "index", photographs / "red1.jpg", url, cwd=tmp_path
    )
    done = run_here(
        "index", "build", photographs, url, "--model=pets", "--out=photographs/i", cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert "which is read for it" in done.stderr
