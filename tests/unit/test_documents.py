"""The documents: every link and every script that they name is there, the README is one screen, and the reference
explains every key of the files that a user writes."""

import ast
import importlib.util
import inspect
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest

from slipway.contract import Fleet, Spec
from slipway.contract.base_bundle import BaseSpec
from slipway.contract.prices import Prices
from slipway.contract.search_space import SearchSpace
from slipway.contract.typed_file import Contract
from slipway.operations.gateway.settings import GatewaySettings
from slipway.operations.planning.demand import Demand

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "benchmarks/studies"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *STUDIES.glob("**/README.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
SCRIPT = re.compile(r"(?<![\w/])((?:training|build|clients|benchmarks)/[\w/]+\.(?:py|yaml))")
STUDY = re.compile(r"python -m benchmarks\.studies\.(\w+)")
REFERENCE = ROOT / "docs/site/reference/contract.md"
WRITTEN = (Spec, SearchSpace, BaseSpec, Fleet, GatewaySettings, Demand, Prices)
"""The models of the files that a user writes."""


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


def models(annotation: Any) -> set[type[Contract]]:
    """The models that a type names, those of their keys, and those that they inherit keys from."""
    if not (isinstance(annotation, type) and issubclass(annotation, Contract)):
        return {model for part in get_args(annotation) for model in models(part)}
    inherited = {base for base in annotation.__mro__ if issubclass(base, Contract) and base is not Contract}
    return inherited.union(*(models(field.annotation) for field in annotation.model_fields.values()))


def bare_keys(source: str) -> list[str]:
    """The public fields of a class without a docstring below them."""
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    return [
        field.target.id
        for field, below in pairwise([*definition.body, ast.Pass()])
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id[0] != "_"
        if not (isinstance(below, ast.Expr) and isinstance(ast.literal_eval(below.value), str))
    ]


USER_MODELS = sorted({model for file in WRITTEN for model in models(file)}, key=lambda model: model.__name__)


@pytest.mark.parametrize("model", USER_MODELS, ids=lambda model: model.__name__)
def test_every_key_that_a_user_writes_has_a_sentence_in_the_reference(model: type[Contract]) -> None:
    bare = bare_keys(inspect.getsource(model))
    assert not bare, f"{inspect.getsourcefile(model)}: {model.__name__}: no docstring below {', '.join(bare)}"
    shown = {f".. automodule:: {model.__module__}", f".. autoclass:: {model.__module__}.{model.__name__}"}
    lines = REFERENCE.read_text(encoding="utf-8").splitlines()
    assert shown.intersection(lines), f"{REFERENCE}: add {' or '.join(sorted(shown))}"


def test_a_key_without_a_sentence_is_found() -> None:
    assert bare_keys('class A:\n    a: int\n    b: int\n    """B."""\n    _c: int\n    d: int = 1\n') == ["a", "d"]
