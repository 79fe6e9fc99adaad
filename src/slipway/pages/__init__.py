"""The kit of all HTML pages: each is one file that loads nothing and escapes all foreign text.

`page.html` is the frame, `kit.html` has the macros (tables, strips, badges, pictures), `style.css` is the only style
sheet, and `colours.css` its palette. `charts` draws, `tables` and `thumbnails` hold the content of the macros, and
`wording` formats numbers.
"""

from pathlib import Path
from typing import Literal

from slipway.errors import requiring
from slipway.pages import wording
from slipway.system.targets import check_file, write_file

with requiring("jinja2", extra="train"):
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""The Content-Security-Policy: only styles and images inside the page."""
FILTERS = ("counted", "decimals", "figures", "interval", "megabytes", "percent", "points", "thousands")
PageKind = Literal["build report", "evaluation", "augmentation", "speed page", "explanation"]
TITLES: dict[PageKind, str] = {
    "build report": ": build report</title>",
    "evaluation": ": evaluation</title>",
    "augmentation": ": what training sees</title>",
    "explanation": ": explanation</title>",
    "speed page": "<title>Speed: ",
}
"""Text in the head of a page that no page of another kind has."""


def environment(package: str) -> Environment:
    """Load the templates of `package`, each of which extends `page.html`; `kit` has the macros.

    Labels, file names and the words of specs and tools are untrusted: all of them are escaped.
    """
    found = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("slipway.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {name: getattr(wording, name) for name in FILTERS}
    found.globals |= {"policy": POLICY, "kit": found.get_template("kit.html").module}
    return found


def write(page: str, out: Path, *, kind: PageKind, mode: int | None = None) -> None:
    """Write `page` to `out`, whole or not at all; only a page of the same kind is replaced.

    Args:
        mode: permissions of the file; by default those of a new file.

    Raises:
        SpecError: something else stands there.
        StorageError: it cannot be written there.
    """
    check_page(out, kind=kind)
    write_file(out, page, mode=mode)


def check_page(out: Path, *, kind: PageKind) -> None:
    """Refuse what `write` would refuse, before the work starts."""
    check_file(out, mark=TITLES[kind], what=f"a page of kind {kind}")
