"""The documents: every link and every script that they name is there, and the README is one screen."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "benchmarks/studies"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *STUDIES.glob("**/README.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
SCRIPT = re.compile(r"(?<![\w/])((?:training|build|clients|benchmarks)/[\w/]+\.(?:py|yaml))")
STUDY = re.compile(r"python -m benchmarks\.studies\.(\w+)")


def anchors(document: Path) -> set[str]:
    """As the common renderers of Markdown name headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_script_that_is_named_is_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    missing = {name for name in SCRIPT.findall(text) if not (ROOT / name).exists()}
    missing |= {name for name in STUDY.findall(text) if not (ROOT / "benchmarks/studies" / name).is_dir()}
    # A decision and the changelog speak of their time.
    assert not missing or document.parent.name == "adr" or document.name == "CHANGELOG.md", missing


def test_the_readme_is_one_screen_and_not_the_manual() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1000


@pytest.mark.parametrize("study", sorted(path.parent.name for path in STUDIES.glob("*/README.md")))
def test_a_study_is_described_in_ten_lines(study: str) -> None:
    lines = (STUDIES / study / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 10, "move what readers of results need to a page of docs/"
    assert max(map(len, lines)) <= 120
    assert lines[2].endswith("?")
    assert lines[4].startswith("    ")


def test_the_drawn_pictures_are_what_make_pictures_draws(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_pictures", ROOT / "docs/pictures/make_pictures.py")
    assert spec is not None
    assert spec.loader is not None
    make_pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_pictures)
    make_pictures.flow(tmp_path / "flow.svg")
    make_pictures.peers(ROOT / "benchmarks/results/peers.json", tmp_path / "peers.svg")
    make_pictures.scale(ROOT / "benchmarks/results/scale.json", tmp_path / "scale.svg")
    for name in ("flow.svg", "peers.svg", "scale.svg"):
        assert (tmp_path / name).read_text() == (ROOT / "docs/pictures" / name).read_text(), f"{name}: make pictures"
