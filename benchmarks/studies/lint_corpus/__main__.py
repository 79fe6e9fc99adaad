#!/usr/bin/env python3
"""Ask the real tritonserver about every seeded defect, record its reaction, and write the table of rules in docs/."""

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.studies.lint_corpus.result import DefectObservation, LintCorpusResult, Observation
from benchmarks.studies.study import ROOT, study_parser
from slipway.contract.evidence.origin import now, versions
from slipway.lint.rule_table import Reaction
from slipway.system.process import run
from slipway.system.targets import file_option, write_file

RESULT, PAGE = ROOT / "benchmarks/results/lint-corpus.json", ROOT / "docs/lint.md"
SERVED = ("example", "fleet", "heads")
"""Good repositories that the cpu lane's server loads."""
CONTROLS = 10
"""Number of times that each good repository is asked, as the defects are that need luck."""
LIBRARIES = ("nvidia-pytriton", "nvidia-dali-cuda130", "openvino", "protobuf", "tritonclient")
EPILOG = """example:
  python -m benchmarks.studies.lint_corpus                          everything; about 20 minutes on two cores
  python -m benchmarks.studies.lint_corpus --only version-01        one defect, and the others as they were recorded
  python -m benchmarks.studies.lint_corpus --page-only              docs/lint.md anew, from what was recorded

Each defect gets a copy of a good repository and a tritonserver of its own: does it load, and does it then answer as the
good one does, for all outputs, each alone, and many requests at once? Where luck has a part, five servers, and clients
that give up. Defects of the gpu lane are
listed and not tried: the server of the cpu lane has neither backend."""


def main(arguments: argparse.Namespace) -> None:
    if arguments.page_only:
        result = LintCorpusResult.read(arguments.out)
    else:
        before = LintCorpusResult.read(arguments.out) if arguments.out.is_file() else None
        result = record(arguments.only, before)
        write_file(arguments.out, result.to_json())
    write_file(arguments.page, page(result))
    if arguments.json:
        print(json.dumps({"out": str(arguments.out), "page": str(arguments.page), "counts": result.counts}))


def record(only: list[str] | None, before: LintCorpusResult | None) -> LintCorpusResult:
    """Record everything anew, or the defects `only` and the rest as it was `before`."""
    from tests.support.lint_defects import RECORDED
    from tests.support.lint_server import answers, version
    from tests.support.seeded_defects import good

    known = {defect.name: defect for defect in RECORDED}
    unknown = sorted(set(only or ()) - known.keys())
    if unknown:
        sys.exit(f"{', '.join(unknown)}: no such defect; there are {', '.join(sorted(known))}")
    expected = {base: answers(good(base)) for base in SERVED}
    chosen = [known[name] for name in only or known]
    defects = {name: entry for name, entry in before.defects.items() if name in known} if before else {}
    defects |= dict(observations(chosen, expected))
    controls = before.good if before and only else {}
    return LintCorpusResult(
        created=now(),
        versions={"tritonserver": version(good("example")), **versions(LIBRARIES)},
        counts=Counter(entry.server for entry in defects.values()),
        good=controls or {base: several(good(base), expected[base], CONTROLS) for base in SERVED},
        defects=defects,
    )


def observations(chosen: list[Any], expected: dict[str, Any]) -> Iterator[tuple[str, DefectObservation]]:
    """Yield the server's reaction to each defect, or the fact that it was not asked."""
    from tqdm import tqdm

    for defect in tqdm(chosen, desc="defects", unit="server", disable=not sys.stderr.isatty()):
        seen = observed(defect, expected[defect.base]) if defect.served else Observation(server="unseen")
        yield defect.name, DefectObservation(rule=defect.rule, repository=defect.base, **seen.fields())


def observed(defect: Any, expected: Any) -> Observation:
    """Observe one defect; where luck has a part, the worst of each run, and how often it happened."""
    from tests.support.lint_server import observe

    with tempfile.TemporaryDirectory(prefix="lint-corpus-") as folder:
        repository = defect.make(Path(folder) / "repository")
        if defect.runs > 1:
            return several(repository, expected, defect.runs)
        return _without_empty(observe(repository, expected))


def several(repository: Path, expected: Any, count: int) -> Observation:
    from tests.support.lint_server import observe

    runs = [observe(repository, expected, give_up=True) for _ in range(count)]
    worst = Counter(_worst(run.on_request) for run in runs)
    told = tuple(f"{n} of {len(runs)}: {what}" for what, n in worst.most_common())
    return _without_empty(runs[0]).model_copy(update={"runs": len(runs), "on_request": told})


def _without_empty(seen: Any) -> Observation:
    return Observation(**{key: value for key, value in asdict(seen).items() if value})


def _worst(differences: tuple[str, ...]) -> str:
    from tests.support.lint_server import DIED, HANGS

    said = " ".join(differences)
    return next((word for word in (DIED, HANGS) if word in said), "refused" if said else "answered")


WORDS: dict[Reaction, str] = {
    "refuses": "refuses it with a message",
    "takes": "loads it silently",
    "hangs": "never becomes ready, without a message",
    "dies": "ends while it loads",
    "unseen": "untested: needs a GPU host",
}
HEAD = """# Rules of the lint

`slipway lint REPOSITORY` reads the files of a model repository, on any machine, and prints its faults; the exit code is
1 if there are any. Each rule below is tested on seeded defects: a good repository, changed in one place.
[lint-corpus.json](../benchmarks/results/lint-corpus.json) has the reaction of tritonserver {tritonserver} to each of
them, without automatic completion of configurations: {refuses} were refused with a message, {takes} were loaded
silently, {hangs} left a server that is never ready, {dies} ended it while it loaded, and {unseen} are untested, since
they need a host with a GPU. Where chance plays a part, five servers were asked, also by clients that give up; the good
repositories, asked in the same way, answered {answered} times of {controls}. This page is written by
`python -m benchmarks.studies.lint_corpus`.
"""


def page(recorded: LintCorpusResult) -> str:
    """Render docs/lint.md: each rule, its harm, and the reaction of the server."""
    from slipway.lint.rule_table import GROUPS

    controls = {
        "answered": sum(int(good.on_request[0].split()[0]) for good in recorded.good.values()),
        "controls": sum(good.runs for good in recorded.good.values()),
    }
    counts = {word: recorded.counts.get(word, 0) for word in WORDS}
    parts = [HEAD.format(**recorded.versions, **controls, **counts)]
    for title, rules in GROUPS.items():
        parts.append(f"## {title}\n\n| rule | harm | reaction of the server |\n| --- | --- | --- |")
        for name, rule in rules.items():
            entries = [entry for entry in recorded.defects.values() if entry.rule == name]
            parts[-1] += f"\n| `{name}` | {rule.goes_wrong} | {_server(rule.server, entries)} |"
        parts[-1] += "\n"
    return "\n".join(parts)


def _server(word: Reaction, entries: Sequence[Observation]) -> str:
    seen = Counter(entry.server for entry in entries)
    text = WORDS[word] if len(seen) == 1 else "; ".join(f"{WORDS[word]} ({seen[word]})" for word in WORDS if seen[word])
    asked = [difference for entry in entries for difference in entry.on_request]
    asked = sorted((said for said in asked if not said.endswith("is not there")), key=_rank)
    return f"{text or 'untested'}{'; when asked: ' if asked else ''}{_short(asked[0]) if asked else ''}"


def _rank(difference: str) -> int:
    """Sort key that puts the worst first."""
    words = ("the server died", "never answered", "deadlock")
    return next((n for n, word in enumerate(words) if word in difference), len(words) + (": answers " in difference))


def _short(difference: str) -> str:
    """Shorten one cell of the table: it leaves out the content in the names of steps."""
    text = re.sub(r"_[0-9a-f]{12}|\[request id: <id_unknown>\] ", "", difference.replace("|", "/"))
    return text if len(text) < 160 else f"{text[:160].rpartition(' ')[0]} …"


def parser() -> argparse.ArgumentParser:
    parser = study_parser(__doc__, epilog=EPILOG, keys=("defects",), result=RESULT)
    add = parser.add_argument
    add("--only", nargs="+", metavar="DEFECT", help="defects to test; the others keep their record")
    add(
        "--page",
        type=file_option("# Rules of the lint", what="a page of lint_corpus.py"),
        default=PAGE,
        help=f"page of the rules; default: {PAGE.relative_to(ROOT)}",
    )
    add("--page-only", action="store_true", help="write the page again from --out, without a server")
    return parser


if __name__ == "__main__":
    run(main, parser())
