"""Chooses the next classifier to probe, and draws the conclusions from its answer, without a server.

Classifiers that run the same steps are a chain: a whole classifier alone, or the heads of a group. A probe of one of
them tests the steps of all, so each round probes every chain once, with another of its heads each time.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CYCLE_S = 1.0
"""Seconds between two probes of a chain; longer if there are many."""
MIN_PROBE_INTERVAL_S = 0.25
"""Least seconds between two probes. Each sends two images through the server."""


@dataclass
class Chain:
    """Classifiers that run the same steps."""

    steps: tuple[str, ...]
    waiting: deque[str] = field(default_factory=deque)
    """Classifiers of the chain in the order of their probes, the next one first."""
    failures: int = 0
    """Probes that failed since the last one that was answered."""
    problem: str = ""
    """The reason why the last probe failed; empty if it was answered."""
    suspect: str = ""
    """The head whose probe failed first. It is asked again after another one."""
    asked: float = float("-inf")
    """Time of the last probe, in seconds."""


class Turns:
    """The order of the probes, and the problems that they found.

    Args:
        steps: the steps of each classifier that the server has loaded.
        left_out: heads that the server could not load, with the reason.
    """

    def __init__(self, steps: Mapping[str, tuple[str, ...]], left_out: Mapping[str, str]) -> None:
        self.chains: dict[tuple[str, ...], Chain] = {}
        for name, own in steps.items():
            self.chains.setdefault(own, Chain(own)).waiting.append(name)
        self._chain_of = {name: self.chains[own] for name, own in steps.items()}
        self._round = deque(self.chains.values())
        self._last: Chain | None = None
        self.alone = dict(left_out)
        """Heads that fail while others of their group answer, with the reason."""

    @property
    def interval_s(self) -> float:
        """Seconds between two probes."""
        return max(CYCLE_S / max(len(self.chains), 1), MIN_PROBE_INTERVAL_S)

    @property
    def round_s(self) -> float:
        """Seconds in which every chain is probed once."""
        return self.interval_s * len(self.chains)

    @property
    def turn_s(self) -> float:
        """Seconds in which every classifier is probed once."""
        return self.round_s * max((len(chain.waiting) for chain in self.chains.values()), default=0)

    def chain_of(self, name: str) -> Chain:
        return self._chain_of[name]

    def next(self, now: float) -> str | None:
        """The classifier to probe at `now`, in seconds; None if the server has loaded none.

        Every other probe may be of a chain that failed, so that many chains do not delay its repair.
        """
        if not self._round:
            return None
        failing = (chain for chain in self._round if chain.failures and chain is not self._last)
        chain = next((chain for chain in failing if now - chain.asked >= CYCLE_S), None)
        if chain is None:
            chain = self._round[0]
            self._round.rotate(-1)
        self._last, chain.asked = chain, now
        name = chain.waiting[0]
        chain.waiting.rotate(-1)
        return name

    def answered(self, name: str) -> None:
        """The classifier gave the right answer."""
        self.alone.pop(name, None)
        chain = self._chain_of[name]
        if chain.suspect == name:
            chain.suspect = ""
        self._works(chain)

    def left_out(self, name: str, problem: str) -> None:
        """The group of a head answered that it could not load this head."""
        self.alone[name] = problem
        self._works(self._chain_of[name])

    def failed(self, name: str, problem: str, *, counts: bool = True) -> int:
        """Record a missing right answer, and return how often in a row the steps gave none. A failure that does not
        count is the fault of neither the classifier nor its steps."""
        chain = self._chain_of[name]
        if name in self.alone or (chain.suspect == name and not chain.problem):
            self.alone[name], chain.suspect = problem, ""  # another head answered meanwhile
            return 0
        chain.failures = chain.failures + 1 if counts else 0
        chain.problem = problem
        if counts and not chain.suspect and len(chain.waiting) > 1:
            chain.suspect = name
            chain.waiting.remove(name)
            chain.waiting.insert(1, name)
        return chain.failures

    def problem(self, name: str) -> str:
        """The reason why a classifier does not answer; empty if it does."""
        return self.alone.get(name) or self._chain_of[name].problem

    def problems(self, names: Iterable[str]) -> dict[str, str]:
        return {name: self.problem(name) for name in names}

    def none_answers(self, failures: int) -> bool:
        """Whether every chain failed this many times in a row."""
        return all(chain.failures >= failures for chain in self.chains.values())

    def _works(self, chain: Chain) -> None:
        chain.failures, chain.problem = 0, ""
