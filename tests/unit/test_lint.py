"""The lint on whole repositories: every seeded defect is found where it is, and good repositories stay as they are."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.lint import RULES, ensembles, lint
from slipway.lint.rule_table import GROUPS
from slipway.repository import assemble
from tests.support.colours import contents, copy_colours
from tests.support.lint_defects import CORPUS, RECORDED, SWITCHED_OFF
from tests.support.scripts import run_script
from tests.support.seeded_defects import EXAMPLE, Base, Defect, good

ROOT = Path(__file__).parents[2]
RESULT, PAGE = ROOT / "benchmarks/results/lint-corpus.json", ROOT / "docs/lint.md"


@pytest.mark.parametrize("defect", CORPUS, ids=lambda defect: defect.name)
def test_a_seeded_defect_is_found_in_its_file_by_its_rule(defect: Defect, tmp_path: Path) -> None:
    found = lint(defect.make(tmp_path / "repository"))
    assert [(finding.file, finding.rule) for finding in found].count((defect.path, defect.rule)) >= 1, found
    for finding in found:
        assert finding.reason
        assert finding.remedy
        assert "\n" not in str(finding)
        assert len(str(finding)) < 700


@pytest.mark.parametrize("base", ["example", "fleet", "gpu", "isolated", "fallback", "heads"])
def test_a_good_repository_has_no_findings_and_stays_as_it_is(base: Base) -> None:
    before = contents(good(base))
    assert lint(good(base)) == []
    assert contents(good(base)) == before


def test_the_example_in_git_has_no_findings() -> None:
    assert lint(EXAMPLE) == []


def test_a_limit_on_the_first_step_is_a_finding_where_that_rule_is_switched_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (defect,) = SWITCHED_OFF
    repository = defect.make(tmp_path / "repository")
    assert lint(repository) == []
    monkeypatch.setattr(ensembles, "FIRST_STEP_MAY_HAVE_A_LIMIT", False)
    assert {(finding.file, finding.rule) for finding in lint(repository)} == {(defect.path, defect.rule)}


def test_every_rule_has_a_defect() -> None:
    without = RULES.keys() - {defect.rule for defect in RECORDED}
    assert without == {"unreadable"}, "whose test is in test_lint_inputs: root reads everything"
    assert len(RULES) == sum(map(len, GROUPS.values())), "a rule in two groups"
    assert len({defect.name for defect in RECORDED}) == len(RECORDED)


def test_what_the_server_did_was_recorded_of_every_defect_and_is_what_its_rule_says() -> None:
    record = json.loads(RESULT.read_text())
    recorded = record["defects"]
    assert recorded.keys() == {defect.name for defect in RECORDED}
    for defect in RECORDED:
        entry = recorded[defect.name]
        assert entry["rule"] == defect.rule
        assert (entry["server"] == "unseen") != defect.served
    for name, rule in RULES.items():
        seen = {entry["server"] for entry in recorded.values() if entry["rule"] == name}
        if seen:
            assert rule.server in seen, name
    assert all(
        good["on_request"] == [f"{good['runs']} of {good['runs']}: answered"] for good in record["good"].values()
    )
    words = [entry["server"] for entry in recorded.values()]
    assert words.count("takes") >= 30
    assert words.count("refuses") >= 30


def test_the_page_says_what_was_recorded() -> None:
    text = PAGE.read_text()
    for name, rule in RULES.items():
        assert f"| `{name}` | {rule.goes_wrong} |" in text
    for count in json.loads(RESULT.read_text())["counts"].values():
        assert f" {count} " in text


# What assemble writes


@pytest.mark.parametrize(
    "serving",
    [
        {"max_batch_size": 1, "instances": 1, "threads": 2},
        {"max_batch_size": 128, "max_queue_delay_us": 1_000_000},
        {"max_queue_size": 8, "queue_timeout_ms": 50, "warmup_batches": 0},
    ],
)
def test_what_assemble_writes_of_any_spec_has_no_findings(serving: dict[str, int], tmp_path: Path) -> None:
    assemble([copy_colours(tmp_path / "colours", spec={"serving": serving})], tmp_path / "repository")
    assert lint(tmp_path / "repository") == []


def test_the_steps_of_an_older_bundle_that_is_kept_are_not_found_fault_with(tmp_path: Path) -> None:
    def older(part: Path) -> None:
        text = (part / "decision.json").read_text()
        (part / "decision.json").write_text(text.replace('"temperature": 1.0', '"temperature": 2.0'))

    kept = copy_colours(tmp_path / "older", bundle=older, engine=older)
    served = replace(copy_colours(tmp_path / "colours"), kept=(kept,))
    assemble([served], tmp_path / "repository")
    assert len(list((tmp_path / "repository").glob("post_*"))) == 2
    assert lint(tmp_path / "repository") == []


def test_fifty_classifiers_take_about_a_second(tmp_path: Path) -> None:
    classifiers = [
        copy_colours(
            tmp_path / f"c{n}", spec={"name": f"c{n}", "serving": {"threads": 1 + n % 25, "instances": 1 + n // 25}}
        )
        for n in range(50)
    ]
    assemble(classifiers, tmp_path / "repository")
    assert len(list((tmp_path / "repository").glob("*/config.pbtxt"))) >= 150
    started = time.process_time()
    assert lint(tmp_path / "repository") == []
    assert time.process_time() - started < 3.0, "a second on the machine that it was written on"


# The script


def test_the_script_prints_a_line_for_each_finding_and_ends_with_0_or_1(tmp_path: Path) -> None:
    done = run_script("build/lint.py", EXAMPLE, "--json", cwd=ROOT)
    *_, summary, last = done.stdout.splitlines()
    assert summary == "nothing found"
    assert json.loads(last)["findings"] == []
    repository = shutil.copytree(good("example"), tmp_path / "a repository")
    (post,) = repository.glob("post_*")
    (post / "1/labels.txt").write_text("blue\nred\n")
    (repository / "half\ncopied").mkdir()
    done = run_script("build/lint.py", repository, "--json", cwd=ROOT, check=False)
    *lines, summary, last = done.stdout.splitlines()
    assert done.returncode == 1
    assert done.stderr == ""
    found = json.loads(last)["findings"]
    assert len(lines) == len(found)
    assert f"{post.name}/1/labels.txt: changed since it was assembled" in "".join(lines)
    assert "half\\ncopied/config.pbtxt: missing" in "".join(lines)
    assert summary.startswith(f"{len(found)} to fix: ")
    assert {"model", "file", "field", "reason", "remedy", "rule", "server"} == set(found[0])


def test_help_teaches_without_any_library() -> None:
    code = "import sys; sys.modules['tritonclient'] = None; sys.argv = ['slipway', 'lint', '--help']; "
    code += "from slipway.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in ("example", "silent", "exit code", "docs/lint.md"):
        assert word in done.stdout
