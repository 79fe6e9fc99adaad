"""The doctor's output: one line for each check, and a verdict."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from slipway.system.text import few

CheckedPart = Literal["repository", "machine", "step", "ensemble"]
State = Literal["ok", "fail", "untold"]
MARKS: dict[State, str] = {"ok": "✓", "fail": "✗", "untold": "–"}  # noqa: RUF001  as in an empty cell of a table


@dataclass(frozen=True)
class Check:
    """The result of one check: its subject, its state, and the remedy."""

    part: CheckedPart
    subject: str
    """The subject of the check: a file of the repository, a property of the machine, or a model."""
    state: State
    """`untold` if the check does not apply, or is impossible on this machine; that never prevents serving."""
    reason: str
    remedy: str = ""
    may_serve: bool = False
    """Whether the server may serve the subject all the same, since it may not notice such a fault."""

    def __str__(self) -> str:
        remedy = f" → {self.remedy}" if self.remedy else ""
        return f"{MARKS[self.state]} {self.subject}: {self.reason}{remedy}"


OTHERS = "the repository has another fault"
FAULTY = "has a fault, and may be served all the same"


@dataclass(frozen=True)
class Servable:
    """The ensembles that may be served here, and the reasons against the others."""

    would_serve: tuple[str, ...]
    would_not: Mapping[str, tuple[str, ...]]
    """Ensemble to the reasons against it. They are empty if only the rest of the repository has a fault."""
    may_serve: tuple[str, ...] = ()
    """Subjects of `would_not` that the server may serve all the same, since it may not notice the faults of a head."""

    @property
    def good(self) -> bool:
        return bool(self.would_serve) and not self.would_not

    def __str__(self) -> str:
        """One line for the ensembles that would be served, and one for each set of reasons against the others."""
        together: dict[tuple[str, ...], list[str]] = {}
        for name, reasons in self.would_not.items():
            together.setdefault(reasons, []).append(name)
        may = {reasons for name, reasons in self.would_not.items() if name in self.may_serve}
        lines = [f"would serve: {few(self.would_serve) or 'nothing'}"]
        lines += [
            f"{FAULTY if reasons in may else 'would not serve'}: {few(names)}, because {'; '.join(reasons) or OTHERS}"
            for reasons, names in together.items()
        ]
        return "\n".join(lines)


def judge(checks: Sequence[Check], ensembles: Mapping[str, Iterable[str]], *, faulty: bool) -> Servable:
    """The verdict on `checks`; `ensembles` maps each name to the steps that it needs.

    A failure of the repository or the machine prevents all ensembles, and that of a step those that need it. A
    repository with a fault in its files (`faulty`) must not be served.
    """
    failed = [check for check in checks if check.state == "fail"]
    everybody = [_short(check) for check in failed if check.part in ("repository", "machine")]
    reasons, may_serve = {}, set[str]()
    for name, steps in sorted(ensembles.items()):
        needed = {name, *steps}
        own = [f for f in failed if f.part in ("step", "ensemble") and f.subject in needed]
        reasons[name] = tuple(dict.fromkeys([*everybody, *map(_short, own)]))
        if own and not everybody and not faulty and all(f.may_serve for f in own):
            may_serve.add(name)
    would_not = {name: why for name, why in reasons.items() if why or faulty}
    return Servable(tuple(name for name in reasons if name not in would_not), would_not, tuple(sorted(may_serve)))


def _short(check: Check) -> str:
    return f"{check.subject}: {check.reason}"
