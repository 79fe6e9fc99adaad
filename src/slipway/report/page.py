"""`Build` to one self-contained HTML page."""

import os
from pathlib import Path
from typing import Any

from slipway.contract import SpecError
from slipway.pages import environment
from slipway.report import views
from slipway.report.build import Build
from slipway.report.verdict import lane_verdicts, todos
from slipway.report.wording import megabytes, percent, points


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


def write(page: str, out: Path) -> None:
    """Write `page` to `out`, whole or not at all.

    Raises:
        SpecError: it cannot be written there.
    """
    staging = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            staging.write_text(page, encoding="utf-8")
            staging.replace(out)
        finally:
            staging.unlink(missing_ok=True)
    except OSError as error:
        raise SpecError(f"{out}: cannot be written: {error.strerror}; give another file with --out") from None
