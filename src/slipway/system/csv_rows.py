"""Reads the CSV files that people write; errors name the line."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from slipway.errors import DataError


def csv_rows(path: Path, *, what: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and values of each row that is not blank.

    Args:
        what: which file to give instead, for a file that is not there.

    Raises:
        DataError: the file cannot be read, is not UTF-8, holds a NUL character, or is not CSV.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # spreadsheets write a byte order mark
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; {what}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); save it as CSV in UTF-8") from None
    if "\0" in text:
        raise DataError(f"{path}: line {text[: text.index(chr(0))].count(chr(10)) + 1}: a NUL character; remove it")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not CSV: {error}; double each quote inside a value") from None
