"""`Build` to one self-contained HTML page."""

from pathlib import Path
from typing import Any, Literal

from slipway.pages import environment
from slipway.report import views
from slipway.report.build import Build
from slipway.report.verdict import lane_verdicts, todos
from slipway.report.wording import megabytes, percent, points
from slipway.system.targets import check_file, write_file

PageKind = Literal["build report", "evaluation", "augmentation", "benchmark report"]
TITLES: dict[PageKind, str] = {
    "build report": ": build report</title>",
    "evaluation": ": evaluation</title>",
    "augmentation": ": what training sees</title>",
    "benchmark report": "<title>Benchmark report: ",
}
"""What a page has in its head, and no page of another kind."""


def render(build: Build) -> str:
    """The page; equal files give equal text.

    Labels, file names and the words of specs and tools are untrusted: Jinja escapes every one of them.
    """
    templates = environment("slipway.report")
    templates.filters |= {"points": points, "percent": percent, "megabytes": megabytes}
    context: dict[str, Any] = {
        "tones": views.TONES,
        "build": build,
        "bundle": build.bundle,
        "lanes": lane_verdicts(build),
        "todos": todos(build),
        "accuracy": views.accuracy(build),
        "losses": views.losses(build),
        "class_tables": views.class_tables(build),
        "galleries": views.galleries(build),
        "speed": views.speed(build),
        "latencies": views.latencies(build),
        "sizes": views.sizes(build),
        "layers": views.layers(build),
        "search": views.search(build),
    }
    return templates.get_template("report.html").render(context)


def write(page: str, out: Path, *, kind: PageKind) -> None:
    """Write `page` to `out`, whole or not at all; only a page of the same kind is replaced.

    Raises:
        SpecError: something else stands there.
        StorageError: it cannot be written there.
    """
    check_page(out, kind=kind)
    write_file(out, page)


def check_page(out: Path, *, kind: PageKind) -> None:
    """What `write` would refuse, before the work that comes first."""
    check_file(out, mark=TITLES[kind], what=f"a page of kind {kind}")
