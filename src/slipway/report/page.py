"""Renders a `Build` as one self-contained HTML page."""

from typing import Any

from slipway.pages import environment
from slipway.report import views
from slipway.report.build import Build
from slipway.report.verdict import lane_verdicts, todos


def render(build: Build) -> str:
    """Render the page; equal files give equal text.

    Labels, file names and the words of specs and tools are untrusted: Jinja escapes all of them.
    """
    context: dict[str, Any] = {
        "title": f"{build.bundle.spec.name}: build report",
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
    return environment("slipway.report").get_template("report.html").render(context)
