"""`labels.txt`: one label per line; the class id is the line number, from 0."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from slipway.errors import SpecError

RESERVED = "unknown"
_JOINERS = "\u200c\u200d"
"""Letters without width that Persian, Hindi and others need inside a word, and emoji too."""


def odd_in(label: str) -> str:
    """The reason why `label` is invalid: empty, padded, or with an invisible character. Empty text if it is valid."""
    if not label:
        return "it is empty"
    if label != label.strip().strip(_JOINERS):
        return "it has spaces around it"
    for character in label:
        if not character.isprintable() and character not in _JOINERS:
            name = unicodedata.name(character, "a control character")
            return f"it holds U+{ord(character):04X} ({name}), which cannot be seen"
    return ""


def check_labels(labels: Sequence[str], *, source: str) -> tuple[str, ...]:
    """Return the labels if they are valid.

    Raises:
        SpecError: fewer than two labels; one that is empty, duplicated, reserved, not printable or padded; two that
            differ only in how Unicode composes their letters.
    """
    if len(labels) < 2:
        raise SpecError(f"{source}: {len(labels)} label(s) given; a classifier needs at least 2")
    seen: dict[str, int] = {}
    for class_id, label in enumerate(labels):
        if odd := odd_in(label):
            raise SpecError(f"{source}: label {class_id} is {label!r}: {odd}; rename the class")
        if label == RESERVED:
            raise SpecError(f"{source}: label {class_id} is {label!r}, reserved for refused answers; rename it")
        composed = unicodedata.normalize("NFC", label)
        if composed in seen:
            raise SpecError(f"{source}: label {label!r} stands for classes {seen[composed]} and {class_id}; rename one")
        seen[composed] = class_id
    return tuple(labels)


def write_labels(labels: Sequence[str], path: Path) -> None:
    path.write_text("".join(f"{label}\n" for label in check_labels(labels, source=str(path))), encoding="utf-8")


def read_labels(path: Path) -> tuple[str, ...]:
    """The `labels.txt` of a bundle, byte for byte as `write_labels` writes it.

    Raises:
        SpecError: the file cannot be read, is not UTF-8, or holds a label that is not allowed.
    """
    text = _decode(path, "utf-8")
    return check_labels(text.removesuffix("\n").split("\n"), source=str(path))


def read_label_list(path: Path) -> tuple[str, ...]:
    """Labels as a user's editor saves them: a byte order mark, Windows line endings and trailing blank lines are fine.

    Raises:
        SpecError: the file cannot be read, is not UTF-8, or holds a label that is not allowed; names its line.
    """
    lines = _decode(path, "utf-8-sig").replace("\r\n", "\n").rstrip("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if "\r" in line:
            raise SpecError(f"{path}: line {number}: a lone carriage return; save the file with Unix line endings")
        if not line.strip():
            raise SpecError(f"{path}: line {number} is blank; remove it: give one label per line, in class order")
        if line != line.strip():
            raise SpecError(f"{path}: line {number}: {line!r} has spaces around it; remove them")
    return check_labels(lines, source=str(path))


def _decode(path: Path, encoding: str) -> str:
    try:
        return path.read_bytes().decode(encoding)  # read_text would take a stray carriage return for a line end
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 text ({error}); save it in UTF-8") from None
