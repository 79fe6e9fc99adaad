"""Words that are not ours (labels, file names, a server's answers) in the places that would take them for markup.

HTML is escaped by `slipway.pages`, and charts draw without mathtext (`slipway.pages.charts`).
"""

import re
import shlex
from pathlib import Path

_FORMULA = re.compile(r"['=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


def shown(text: object) -> str:
    """One line for a terminal or a log: control characters, line breaks and what is not Unicode become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def command(verb: str, *arguments: str | Path) -> str:
    """A line for the shell, whatever the paths are called; `verb` is our own words, such as `slipway train`."""
    return shlex.join([*verb.split(), *map(str, arguments)])


def to_cell(text: str) -> str:
    """A cell of a CSV file that people open in a spreadsheet: an apostrophe before what would be run as a formula.

    Numbers stay as they are. `from_cell` gives the text back.
    Source: OWASP, "CSV Injection".
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def from_cell(cell: str) -> str:
    """The text of a cell that `to_cell` wrote."""
    return cell[1:] if cell.startswith("'") and to_cell(cell[1:]) == cell else cell
