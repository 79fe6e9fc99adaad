"""Renders result files as one self-contained HTML page."""

from collections.abc import Sequence
from typing import Any

from slipway.benchmark.page import plots, views
from slipway.benchmark.page.accuracy import Accuracy
from slipway.benchmark.page.comparisons import comparisons
from slipway.benchmark.page.cost import costs
from slipway.benchmark.page.files import ResultFile
from slipway.benchmark.page.rates import rates
from slipway.benchmark.page.series import all_series, all_steps
from slipway.benchmark.page.verdicts import cards, notices
from slipway.contract.prices import Priced
from slipway.pages import environment


def render(
    files: Sequence[ResultFile],
    *,
    accuracies: Sequence[Accuracy] = (),
    price: Priced | None = None,
    utilisation: float = 1.0,
) -> str:
    """Render the page; equal files give equal text.

    The words of files and servers are untrusted: Jinja escapes all of them.
    """
    series, found_rates, found_steps, compared = all_series(files), rates(files), all_steps(files), comparisons(files)
    context: dict[str, Any] = {
        "files": files,
        "cards": cards(files, accuracies),
        "notices": notices(files),
        "title": f"Speed: {', '.join(file.name for file in files)}",
        "parts": [
            *([("latency", "Latency")] if series else []),
            *([("rates", "Rates")] if found_rates else []),
            *([("steps", "Time per step")] if found_steps else []),
            *([("comparisons", "Comparisons")] if compared else []),
            *(("cost", "Cost"), ("provenance", "Provenance")),
        ],
        "part_colours": list(zip(views.NAMES_OF_PARTS, views.COLOURS_OF_PARTS, strict=True)),
        "series": series,
        "tails": plots.tails(series) if series else None,
        "hills": plots.hills(series),
        "percentiles": views.percentiles(series) if series else None,
        "looks": views.look_tables(series),
        "blocks": views.block_tables(series),
        "rates": found_rates,
        "rungs": views.rungs(files),
        "steps": [(steps, views.bars(steps)) for steps in found_steps],
        "resources": views.resources(files),
        "comparisons": compared,
        "price": price,
        "utilisation": utilisation,
        "costs": costs(files, accuracies, price, utilisation=utilisation) if price else [],
        "facts": [(file, views.facts(file)) for file in files],
    }
    return environment("slipway.benchmark.page").get_template("speed.html").render(context)
