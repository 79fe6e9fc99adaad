"""What the doctor says: one line for each thing that it looked at, and a verdict."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Part = Literal["repository", "machine", "step", "ensemble"]
State = Literal["ok", "fail", "untold"]
MARKS: dict[State, str] = {"ok": "✓", "fail": "✗", "untold": "–"}  # noqa: RUF001  what a table has in an empty cell


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what is so, and what to do about it."""

    part: Part
    subject: str
    """A file of the repository, a thing of the machine, or a model."""
    state: State
    """`untold`: not applicable, or it cannot be told on this machine; it stands in nobody's way."""
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f" → {self.remedy}" if self.remedy else ""
        return f"{MARKS[self.state]} {self.subject}: {self.reason}{remedy}"


@dataclass(frozen=True)
class Verdict:
    """Which ensembles the server would answer for, and why not for the others."""

    would_serve: tuple[str, ...]
    would_not: Mapping[str, tuple[str, ...]]
    """Ensemble to reasons. Empty reasons: nothing is wrong with it, but the server ends when another does not load."""

    @property
    def good(self) -> bool:
        return bool(self.would_serve) and not self.would_not

    def __str__(self) -> str:
        """One line for what would be served, and one for all that would not for the same reasons."""
        together: dict[tuple[str, ...], list[str]] = {}
        for name, reasons in self.would_not.items():
            together.setdefault(reasons, []).append(name)
        lines = [f"would serve: {', '.join(self.would_serve) or 'nothing'}"]
        lines += [
            f"would not serve: {', '.join(names)}, because {'; '.join(reasons) or OTHERS}"
            for reasons, names in together.items()
        ]
        return "\n".join(lines)


OTHERS = "nothing is wrong with it, but the server ends when one model does not load"


def judge(findings: Sequence[Finding], ensembles: Mapping[str, Iterable[str]]) -> Verdict:
    """`ensembles` is name to the steps that it needs; what fails on repository or machine hinders all of them."""
    failed = [finding for finding in findings if finding.state == "fail"]
    everybody = [_short(finding) for finding in failed if finding.part in ("repository", "machine")]
    reasons = {}
    for name, steps in sorted(ensembles.items()):
        needed = {name, *steps}
        theirs = [finding for finding in failed if finding.part in ("step", "ensemble")]
        own = [_short(finding) for finding in theirs if finding.subject in needed]
        reasons[name] = tuple(dict.fromkeys([*everybody, *own]))
    if failed:
        return Verdict((), reasons)
    return Verdict(tuple(reasons), {})


def _short(finding: Finding) -> str:
    return f"{finding.subject}: {finding.reason}"
