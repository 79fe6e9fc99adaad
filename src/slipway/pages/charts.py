"""Draws charts with matplotlib as SVG in a page: text stays text, and the style sheet sets the colours."""

import io
import re
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from slipway.errors import requiring

with requiring("matplotlib", extra="train"):
    from markupsafe import Markup
    from matplotlib import rc_context
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.rcsetup import cycler
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, PercentFormatter, StrMethodFormatter

Chart = Axes
Svg = Markup
PLAIN_TEXT = {"text.parse_math": False, "text.usetex": False, "font.family": ["DejaVu Sans"]}
"""Settings that draw text literally in matplotlib's own font: a `$` starts no formula, and all machines draw alike."""
_ROOT = (files("slipway.pages") / "templates/colours.css").read_text(encoding="utf-8").partition("}")[0]
LIGHT: dict[str, str] = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", _ROOT))
"""The light palette of `colours.css` by the names of its variables: no two are equal."""
TONES = {name: LIGHT[name] for name in ("good", "warn", "bad", "plain")}
SERIES = tuple(LIGHT[f"s{number}"] for number in range(6))
PAGE, TEXT, DIM, GRID, GOOD_BACK = (LIGHT[name] for name in ("page", "text", "dim", "grid", "good-back"))
VARIABLES = {colour: name for name, colour in LIGHT.items()}
STYLE = {
    **PLAIN_TEXT,
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.prop_cycle": cycler(color=SERIES),
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": DIM,
    "axes.labelcolor": DIM,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.color": GRID,
    "xtick.color": DIM,
    "ytick.color": DIM,
}
styled = rc_context(STYLE)
"""Decorator of every function that draws: limits the settings to its chart."""
LIMIT: dict[str, Any] = {"color": TONES["bad"], "linewidth": 1, "linestyle": (0, (4, 3))}
REM_PER_POINT = 66 / (8.5 * 72)
"""Rem of page width per point of chart width: a chart of 8.5 inches fills the page."""


def axes(width: float, height: float) -> Chart:
    """Make the axes of a new figure, sized in inches; a page is 8.5 inches wide."""
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def logarithmic(axis: Any) -> None:
    """Set ticks at 1, 2 and 5 times each power of ten, written out."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(NullFormatter())


def in_percent(*axis: Any) -> None:
    """Format shares as percentages."""
    for one in axis:
        one.set_major_formatter(PercentFormatter(1, symbol=" %"))


def shades(axes: Chart, share_rc: npt.NDArray[np.float64]) -> None:
    """Shade a table from transparent (0) to blue (1)."""
    blue = LinearSegmentedColormap.from_list("blue", ["#4a80c400", "#4a80c4"])
    axes.imshow(share_rc, cmap=blue, vmin=0, vmax=1, interpolation="none")
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])


def limit(axes: Chart, ms: float) -> None:
    """Draw the limit as a dashed, labelled line across the chart."""
    axes.axhline(ms, **LIMIT)
    axes.text(0.005, ms * 1.02, f"limit {ms:g} ms", transform=axes.get_yaxis_transform(), color=TONES["bad"])


def svg(axes: Chart, *, label: str) -> Svg:
    """Turn the figure of `axes` into SVG for a page; equal charts give equal text.

    The text of an artist's `set_gid("tip:...")` becomes its tooltip.

    Args:
        label: the description that a screen reader speaks.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    buffer = io.StringIO()
    none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.hashsalt": label}):  # ids are unique to the chart
        figure.savefig(buffer, format="svg", metadata=none)
    text = buffer.getvalue()
    width, height = (72 * inches for inches in figure.get_size_inches())
    text = text[text.index("<svg") :].partition(">")[2]
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"""<g id=(["'])tip:(.*?)\1>""", r"<g><title>\2</title>", text)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r'style="font(?:-size)?: ([\d.]+px)[^;"]*(?:; font-family: [^;"]*)?', r'style="font-size: \1', text)
    text = re.sub(r"(?<=fill: |roke: )#[0-9a-f]{6}", lambda found: _variable(found[0]), text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    size = f'viewBox="0 0 {width:g} {height:g}" style="max-width:{width * REM_PER_POINT:g}rem"'
    return Markup(f'<svg {size} role="img" aria-label="{escape(label)}">{text}')


def _variable(colour: str) -> str:
    return f"var(--{VARIABLES[colour]})" if colour in VARIABLES else colour
