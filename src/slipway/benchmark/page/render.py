"""Result files to one self-contained HTML page."""

from collections.abc import Sequence
from typing import Any

from slipway.benchmark.page import plots, views
from slipway.benchmark.page.accuracy import Accuracy
from slipway.benchmark.page.comparisons import comparisons
from slipway.benchmark.page.cost import Priced, costs
from slipway.benchmark.page.files import ResultFile
from slipway.benchmark.page.rates import rates
from slipway.benchmark.page.series import all_series, all_steps
from slipway.benchmark.page.verdicts import cards, notices
from slipway.benchmark.page.wording import figures, percent
from slipway.pages import environment


def render(
    files: Sequence[ResultFile],
    *,
    accuracies: Sequence[Accuracy] = (),
    price: Priced | None = None,
    utilisation: float = 1.0,
) -> str:
    """The page; equal files give equal text.

    The words of files and servers are untrusted: Jinja escapes every one of them.
    """
    series = all_series(files)
    context: dict[str, Any] = {
        "files": files,
        "cards": cards(files, accuracies),
        "notices": notices(files),
        "tails": plots.tails(series) if series else None,
        "distributions": plots.distributions(series) if series else None,
        "percentiles": views.percentiles(series) if series else None,
        "looks": views.look_tables(series),
        "blocks": views.block_tables(series),
        "rates": rates(files),
        "rungs": views.rungs(files),
        "steps": [(steps, views.bars(steps)) for steps in all_steps(files)],
        "resources": views.resources(files),
        "comparisons": comparisons(files),
        "price": price,
        "utilisation": utilisation,
        "costs": costs(files, accuracies, price, utilisation=utilisation) if price else [],
        "facts": [(file, views.facts(file)) for file in files],
    }
    templates = environment("slipway.benchmark.page")
    templates.filters |= {"figures": figures, "percent": percent}
    return templates.get_template("page.html").render(context)
