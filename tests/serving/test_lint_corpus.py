"""A few of the seeded defects in the real server again: it does what was recorded, and the lint sees each of them."""

import json
import re
from pathlib import Path

import pytest

from slipway.lint import lint
from tests.support.lint_defects import RECORDED
from tests.support.lint_server import Answers, answers, observe
from tests.support.seeded_defects import good

RESULT = Path(__file__).parents[2] / "benchmarks/results/lint-corpus.json"
SAMPLE = {
    "misspelt-field": "refuses",
    "other-size-in-public": "refuses",
    "no-model-file": "hangs",
    "folder-for-a-configuration": "dies",
    "logits-in-public": "takes",  # and answers with a deadlock
    "labels-for-label": "takes",  # and dies of a request
    "held-back-until-refused": "takes",  # and answers nobody
}


@pytest.fixture(scope="module")
def expected() -> Answers:
    return answers(good("example"))


def test_a_good_repository_is_served_as_it_should_be(expected: Answers) -> None:
    seen = observe(good("example"), expected)
    assert (seen.server, seen.on_request) == ("takes", ())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.nightly if did == "hangs" else ()) for name, did in SAMPLE.items()]
)
def test_the_server_does_what_was_recorded(name: str, expected: Answers, tmp_path: Path) -> None:
    (defect,) = [defect for defect in RECORDED if defect.name == name]
    recorded = json.loads(RESULT.read_text())["defects"][name]
    repository = defect.make(tmp_path / "repository")
    assert (defect.path, defect.rule) in {(finding.file, finding.rule) for finding in lint(repository)}
    seen = observe(repository, expected)
    assert seen.server == recorded["server"] == SAMPLE[name]
    assert without_hashes(seen.said) == without_hashes(recorded.get("said", ""))
    assert [without_hashes(line) for line in seen.on_request] == [
        without_hashes(line) for line in recorded.get("on_request", ())
    ]


def without_hashes(text: str) -> str:
    """Steps are called by their content, which changes."""
    return re.sub(r"_[0-9a-f]{12}", "_…", text)
