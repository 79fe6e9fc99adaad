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


OTHERS = "nothing is wrong with it, but with what lies beside it"


@dataclass(frozen=True)
class Verdict:
    """Which ensembles may be served here, and why not the others."""

    would_serve: tuple[str, ...]
    would_not: Mapping[str, tuple[str, ...]]
    """Ensemble to reasons. Empty reasons: nothing is wrong with it, but the repository has a fault."""

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
            f"not to be served: {', '.join(names)}, because {'; '.join(reasons) or OTHERS}"
            for reasons, names in together.items()
        ]
        return "\n".join(lines)


def judge(findings: Sequence[Finding], ensembles: Mapping[str, Iterable[str]], *, faulty: bool) -> Verdict:
    """`ensembles` is name to the steps that it needs; what fails on repository or machine hinders all of them.

    A step that fails hinders those that need it. A repository that is `faulty`, by its files, is not to be served.
    """
    failed = [finding for finding in findings if finding.state == "fail"]
    everybody = [_short(finding) for finding in failed if finding.part in ("repository", "machine")]
    reasons = {}
    for name, steps in sorted(ensembles.items()):
        needed = {name, *steps}
        own = [_short(f) for f in failed if f.part in ("step", "ensemble") and f.subject in needed]
        reasons[name] = tuple(dict.fromkeys([*everybody, *own]))
    would_not = {name: why for name, why in reasons.items() if why or faulty}
    return Verdict(tuple(name for name in reasons if name not in would_not), would_not)


def _short(finding: Finding) -> str:
    return f"{finding.subject}: {finding.reason}"
