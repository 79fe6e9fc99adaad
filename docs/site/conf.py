"""The documentation as a site, by Sphinx: `make docs`. Every page is a Markdown file that also reads well on its own.

The sources are the repository itself, so that a link to a file outside `docs/` is checked like any other. The README is
the first page. `navigation.md`, which only the site needs, is added to its end.
"""

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

from docutils import nodes
from pydantic import BaseModel
from pygments.lexers import TextLexer
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from slipway import __version__
from slipway.cli import PROG, STAGES

HERE = Path(__file__).parent

project = "Slipway"
author = "The Slipway contributors"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "benchmarks/studies/**.md"]
exclude_patterns = ["docs/site/navigation.md"]
myst_heading_anchors = 4
default_role = "code"
"""Docstrings put code between single backticks."""

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"Slipway {release}"
html_extra_path = ["root"]
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_show_sphinx = False


PARTS = {"docs/adr/README": "0*", "benchmarks/studies/README": "*/README"}
"""Pages that stand above others in the navigation: name to those below it."""

DEFAULTS: dict[str, str] = {}
"""A model's fields to their defaults, which autodoc does not see."""


class Verbs(SphinxDirective):
    """`{verbs}`: what `slipway VERB --help` prints, for every verb below its stage."""

    def run(self) -> list[nodes.Node]:
        return [self.stage(stage) for stage in STAGES]

    def stage(self, stage: str) -> nodes.section:
        section = nodes.section("", nodes.title(text=stage.capitalize()), ids=[nodes.make_id(stage)])
        for name, verb in STAGES[stage].items():
            parser = importlib.import_module(verb.module).parser()
            parser.prog = f"{PROG} {name}"
            help_text = nodes.literal_block("", parser.format_help(), language="text")
            section += nodes.section("", nodes.title(text=name), help_text, ids=[f"slipway-{name}"])
        return section


def add_navigation(_: Sphinx, name: str, source: list[str]) -> None:
    if name == root_doc:
        source[0] += (HERE / "navigation.md").read_text(encoding="utf-8")
    if name in PARTS:
        source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n\n{PARTS[name]}\n```\n"


def simplify_model(
    _app: Sphinx, what: str, name: str, documented: object, _options: object, _signature: object, _returned: object
) -> tuple[str, None] | None:
    """Show a pydantic model by its fields, with plain types and without a signature."""
    if what != "class" or not (isinstance(documented, type) and issubclass(documented, BaseModel)):
        return None
    documented.__annotations__ = get_type_hints(SimpleNamespace(__annotations__=documented.__annotations__))
    fields = documented.model_fields.items()
    DEFAULTS.update({f"{name}.{field}": repr(info.default) for field, info in fields if not info.is_required()})
    return "", None


def finish_attribute(_app: Sphinx, what: str, name: str, _of: object, _options: object, lines: list[str]) -> None:
    """Add the default, and keep Napoleon from reading text before a colon in the first line as a type."""
    if what not in ("attribute", "property"):
        return
    lines.insert(0, "\\")
    if name in DEFAULTS:
        lines += ["", f"Default: ``{DEFAULTS[name]}``", ""]


def setup(app: Sphinx) -> None:
    app.add_directive("verbs", Verbs)
    app.add_lexer("csv", TextLexer)  # Pygments has no colours for it
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-signature", simplify_model)
    app.connect("autodoc-process-docstring", finish_attribute, priority=400)  # before Napoleon, at 500
