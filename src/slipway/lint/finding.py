"""The output of the lint: one fault, its place, and its remedy."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from slipway.lint.rule_table import RULES, Rule


@dataclass(frozen=True)
class Finding:
    """One fault of a repository."""

    model: str
    """Name of the model; empty for the repository's own files."""
    file: str
    """Path of the file, relative to the repository."""
    field: str
    """Field in the file, such as `instance_group[0].gpus`; empty for the whole file."""
    reason: str
    """The given value, and the allowed ones."""
    remedy: str
    """The change that mends the fault."""
    rule: str
    """The rule that is broken, a key of `RULES`."""

    def __post_init__(self) -> None:
        assert self.rule in RULES, self.rule

    @property
    def about(self) -> Rule:
        return RULES[self.rule]

    def __str__(self) -> str:
        """The fault as one line; odd characters of names are escaped."""
        where = ": ".join(part for part in (self.file, self.field) if part)
        line = f"{where}: {self.reason} → {self.remedy}"
        return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


Findings: TypeAlias = Iterator[Finding]
