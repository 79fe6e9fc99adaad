"""What the lint says: one thing that has to be changed, where it is, and what changes it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from slipway.lint.rules import RULES, Rule


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    model: str
    """The model's folder; empty for the repository's own files."""
    file: str
    """Relative to the repository."""
    field: str
    """Of the file, such as `instance_group[0].gpus`; empty where it is the whole file."""
    reason: str
    """What is there, and what is allowed."""
    remedy: str
    rule: str
    """A key of `RULES`, which knows what the server does with it."""

    def __post_init__(self) -> None:
        assert self.rule in RULES, self.rule

    @property
    def about(self) -> Rule:
        return RULES[self.rule]

    def __str__(self) -> str:
        """One line, whatever characters a name has."""
        where = ": ".join(part for part in (self.file, self.field) if part)
        line = f"{where}: {self.reason} → {self.remedy}"
        return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


Findings: TypeAlias = Iterator[Finding]
