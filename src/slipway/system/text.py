"""Escapes foreign text (labels, file names, a server's answers) for places that would treat it as markup.

HTML is escaped by `slipway.pages`, and charts draw without mathtext (`slipway.pages.charts`).
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

MOST_WORDS = 24
"""Number of words that a line still lists."""
_FORMULA = re.compile(r"['=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


def shown(text: object) -> str:
    """The text as one line for a terminal or log: control characters, line breaks and invalid Unicode are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def few(words: Sequence[str]) -> str:
    """All of the words, or the first of many and the number of the others."""
    listed = (
        words if len(words) <= MOST_WORDS else [*words[: MOST_WORDS // 2], f"{len(words) - MOST_WORDS // 2:,} more"]
    )
    return ", ".join(listed)


def command(verb: str, *arguments: str | Path) -> str:
    """A shell command with quoted arguments; `verb` is trusted text such as `slipway train`."""
    return shlex.join([*verb.split(), *map(str, arguments)])


def to_cell(text: str) -> str:
    """The text as a cell of a CSV file: text that a spreadsheet would run as a formula gets an apostrophe in front.

    Numbers are unchanged. `from_cell` restores the text.
    Source: OWASP, "CSV Injection".
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def from_cell(cell: str) -> str:
    """The text of a cell that `to_cell` wrote."""
    return cell[1:] if cell.startswith("'") and to_cell(cell[1:]) == cell else cell
