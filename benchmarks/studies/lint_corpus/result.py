"""The result file of the study."""

from slipway.contract.typed_file import Evidence
from slipway.lint.rule_table import Reaction


class Observation(Evidence):
    """Reaction of a server to a repository."""

    server: Reaction
    said: str = ""
    """First words about the repository of a server that does not serve it."""
    on_request: tuple[str, ...] = ()
    """Answers that differ from those of the good repository; of several servers, what became of how many."""
    runs: int = 1
    """Number of servers that were asked."""


class DefectObservation(Observation):
    rule: str
    repository: str


class LintCorpusResult(Evidence):
    """The study `lint_corpus`."""

    created: str
    versions: dict[str, str]
    counts: dict[Reaction, int]
    """Number of defects of each reaction."""
    good: dict[str, Observation]
    """The good repositories, asked as the defects are that need luck."""
    defects: dict[str, DefectObservation]
