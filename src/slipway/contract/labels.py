"""`labels.txt`: one label a line, the line number is the class id."""

from collections.abc import Sequence
from pathlib import Path

from slipway.errors import SpecError

RESERVED = "unknown"


def check_labels(labels: Sequence[str], *, source: str) -> tuple[str, ...]:
    """Return the labels, or say which one is wrong.

    Raises:
        SpecError: fewer than two, empty, duplicated, reserved, with line breaks, control characters or outer spaces.
    """
    if len(labels) < 2:
        raise SpecError(f"{source}: {len(labels)} label(s) given; a classifier needs at least 2")
    seen: dict[str, int] = {}
    for class_id, label in enumerate(labels):
        if not label or label != label.strip() or not label.isprintable():
            raise SpecError(f"{source}: label {class_id} is {label!r}; use printable text without outer spaces")
        if label == RESERVED:
            raise SpecError(f"{source}: label {class_id} is {label!r}, the word for refused answers; rename it")
        if label in seen:
            raise SpecError(f"{source}: label {label!r} stands for classes {seen[label]} and {class_id}; rename one")
        seen[label] = class_id
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
    """Labels as a user's editor saves them: a byte order mark, Windows line ends and blank last lines are read.

    Raises:
        SpecError: the file cannot be read, is not UTF-8, or holds a label that is not allowed; names its line.
    """
    lines = _decode(path, "utf-8-sig").replace("\r\n", "\n").rstrip("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if "\r" in line:
            raise SpecError(f"{path}: line {number}: a carriage return alone; save it with the line ends of Unix")
        if not line.strip():
            raise SpecError(f"{path}: line {number} is blank; remove it: one label a line, in the order of the classes")
        if line != line.strip():
            raise SpecError(f"{path}: line {number}: {line!r} has outer spaces; remove them")
    return check_labels(lines, source=str(path))


def _decode(path: Path, encoding: str) -> str:
    try:
        return path.read_bytes().decode(encoding)  # read_text would take a stray carriage return for a line end
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 text ({error}); save it in UTF-8") from None
