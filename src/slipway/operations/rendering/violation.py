"""A violation that a rule found."""

from typing import NamedTuple


class Violation(NamedTuple):
    rule: str
    """Name of the rule."""
    where: str
    """The object."""
    said: str

    def __str__(self) -> str:
        return f"{self.where}: {self.said} ({self.rule})"
