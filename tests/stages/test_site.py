"""`make docs`: the site of the documentation is built strictly, and loads nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(source: Path, out: Path, *, builder: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: autodoc changes the annotations of what it shows."""
    options = ["-W", "--keep-going", "-q", "-b", builder, "-c", ROOT / "docs/site", "-d", out / ".doctrees"]
    command = [sys.executable, "-m", "sphinx", *options, source, out]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_every_link_page_and_docstring_of_the_site_is_sound(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path, builder="dummy")
    assert done.returncode == 0, done.stderr


def test_a_broken_link_and_a_page_that_the_navigation_misses_are_errors(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Slipway\n\n[nowhere](docs/nowhere.md)\n")
    done = build(tmp_path, tmp_path / "site", builder="dummy")
    assert done.returncode != 0
    assert "'docs/nowhere.md'" in done.stderr
    assert "nonexisting document 'docs/walkthrough'" in done.stderr


@pytest.mark.nightly
def test_the_built_site_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path, builder="html")
    assert done.returncode == 0, done.stderr
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")]
    styles = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.css")]
    assert len(pages) > 50
    loaded = re.compile(r"<(?:script|img|link|iframe)[^>]*(?:src|href)=[\"']?(?:https?:)?//")
    assert not [found for page in pages for found in loaded.findall(page)]
    assert not [found for style in styles for found in re.findall(r"(?:url\(|@import)[\"' ]*(?:https?:)?//", style)]
