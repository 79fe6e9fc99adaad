"""Class names and file names are never markup: not for HTML, a spreadsheet, the shell, or a terminal."""

import argparse
import ast
import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slipway.cli import classify
from slipway.client import Candidate, Result
from slipway.contract import Bundle, SlipwayError
from slipway.contract.dataset import Dataset
from slipway.contract.evidence.evaluation import read_bundle_evaluation
from slipway.engines.predictions_csv import read_rows, write_rows
from slipway.report import render
from slipway.report.evaluation import render as render_evaluation
from slipway.system.process import run
from slipway.system.text import command, from_cell, shown, to_cell
from slipway.training import export, train
from slipway.training.data.inspection import inspect
from slipway.training.search.label_errors.find import LabelErrors, Suspect, _read, _write_suspects
from tests.support.colour_training import small_spec
from tests.support.image_files import encode
from tests.support.report_builds import Page, add_engine, evidence, make_bundle, opened

ROOT = Path(__file__).parents[2]
NASTY = (
    "$_$", "$a$", "a$", "<script>", "\"x' y", "=1+1", "+x", "-1", "@x", "'x", "日本語", "العربية", "😀", "a,b", "%s%",
    "{}", "{{ 7 * 7 }}", "\\", "\\frac", "$(touch x)", "&amp;", "w" * 200,
)  # fmt: skip
NOT_PRINTED = "\x1b]0;title\x07\nnext: rm -rf ~\r\u202e"


@given(st.text(max_size=20) | st.sampled_from(NASTY))
def test_a_cell_is_no_formula_and_gives_its_text_back(text: str) -> None:
    cell = to_cell(text)
    assert from_cell(cell) == text
    assert not re.match(r"[=+\-@\t\r]", cell) or re.fullmatch(r"[+-]?\d+([.,]\d+)?", cell)


def test_cells_of_older_files_are_read_as_they_were() -> None:
    assert [from_cell(cell) for cell in ("'tis", "=x", "", "'", "-1")] == ["'tis", "=x", "", "'", "-1"]


def test_the_csv_of_a_folder_runs_no_formula_and_a_second_run_keeps_its_rows(tmp_path: Path) -> None:
    tool, path = classify, tmp_path / "out.csv"
    names = [f"{label}.png" for label in NASTY] + ["=a\nb.png"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, tool.FIELDS)
        writer.writeheader()
        for name, label in zip(names, (*NASTY, "cat"), strict=True):
            result = Result(
                name, "r", label=label, score=0.5, class_id=1, candidates=(Candidate(label, 0.5, 1),), status=0
            )
            writer.writerow(tool.row(name, result, model="m"))
    for _ in range(2):  # written anew each time, and not escaped twice
        assert set(tool.keep_answers(path, model="m")) == set(names)
        with path.open(newline="", encoding="utf-8") as table:
            rows = list(csv.DictReader(table))
        assert [from_cell(row["file"]) for row in rows] == names
        assert [from_cell(row["label"]) for row in rows] == [*NASTY, "cat"]
        assert not [cell for row in rows for cell in row.values() if cell[:1] in ("=", "+", "@")]


def test_suspects_and_predictions_run_no_formula_and_are_read_back(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, labels=("=1+1", "@x", "-y"))
    rows = [{"image": "=a.png", "truth": label, "label": "=1+1", "score": "0.5"} for label in bundle.labels]
    write_rows(rows, tmp_path)
    assert read_rows(tmp_path) == rows
    dataset = Dataset.read(bundle.path / "dataset.json")
    images = [image.model_copy(update={"path": f"={image.path}"}) for image in dataset.images[:2]]
    suspects = tuple(
        Suspect(path=image.path, given=("@x",), suggested=("=1+1",), quality=0.1, probability={}, split="train", fold=0)
        for image in images
    )
    found = LabelErrors.model_construct(suspects=suspects)
    _write_suspects(found, tmp_path / "suspects.csv", separator="|")
    text = (tmp_path / "suspects.csv").read_text()
    assert "\n=" not in text
    assert ",=" not in text
    renamed = dataset.model_copy(update={"images": tuple(images)})
    actions = _read(tmp_path / "suspects.csv", renamed, separator="|", multilabel=False)
    assert actions == {image.path: ("drop", (0,)) for image in images}


@pytest.mark.parametrize("folder", ["my runs/it's", "$(touch x)", "a;b", "日本語", "=1"])
def test_a_shell_line_that_is_printed_has_its_paths_in_one_piece(folder: str) -> None:
    path = Path("runs") / folder
    assert shlex.split(command("slipway choose", path, "--engines", path / "engines")) == [
        "slipway",
        "choose",
        str(path),
        "--engines",
        str(path / "engines"),
    ]


def test_no_script_prints_a_command_with_a_path_that_is_not_quoted() -> None:
    sources = [*ROOT.glob("src/slipway/**/*.py")]
    plain = re.compile(
        r"(?<!f\"from )\bslipway [a-z-]+ [^\"'\n,;`]*?\{(?!command\(|shlex\.quote|proxy_hint|efficiency,)"
    )
    texts = {path: re.sub(r'"\n *f?"', "", path.read_text("utf-8")) for path in sources}  # its strings joined
    found = [f"{path.name}: {match[0]}" for path, text in texts.items() for match in plain.finditer(text)]
    assert len(sources) > 100
    assert not found


UNNAMED = {
    "backup.py: slipway journal backup", "old_test_split.py: slipway labels dataset",
    "projects.py: slipway labels push", "run.py: slipway watch run", "store.py: slipway journal run",
    "turn_release.py: slipway labels push", "turn_release.py: slipway labels pull",
    "release_compare.py: slipway labels push", "release_compare.py: slipway labels pull",
}  # fmt: skip
"""Verbs without the user's file: names of a process or of what a file came from, and parts of a command."""
UNKNOWN = {
    "grow_dataset.py: slipway labels select", "store.py: slipway journal rows",
    "test_split.py: slipway watch reference",
}  # fmt: skip
"""Verbs to run where the user's file is not known."""


def test_a_message_names_a_verb_with_the_users_own_file() -> None:
    verb = re.compile(r"\bslipway (?:watch|labels|journal|release|turn|explain) [a-z]+")
    found = set()
    for path in ROOT.glob("src/slipway/**/*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        apart: set[ast.AST] = set()  # docstrings, the examples of --help, and what `command` is given
        for node in ast.walk(tree):
            is_command = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "command"
            is_example = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EPILOG"
            if is_command or is_example or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                apart.update(ast.walk(node))
        texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in apart)
        found |= {f"{path.name}: {one}" for text in texts for one in verb.findall(str(text.value))}
    assert found == UNNAMED | UNKNOWN


def test_what_is_printed_of_others_has_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(NOT_PRINTED).isprintable()
    assert shown("日本語 \udc80") == "日本語 \\udc80"

    def main(_: argparse.Namespace) -> None:
        raise SlipwayError("a.png:\n  \x1b[2Jb\u202e.png")

    monkeypatch.setattr("sys.argv", ["x"])
    with pytest.raises(SystemExit) as stopped:
        run(main, argparse.ArgumentParser(prog="x"))
    assert str(stopped.value.code) == "x: a.png:\n  \\x1b[2Jb\\u202e.png"


def nasty_folders(root: Path, *, each: int) -> Path:
    rng = np.random.default_rng(0)
    for class_id, label in enumerate(NASTY):
        (root / label).mkdir(parents=True)
        for number in range(each):
            pixels = np.clip(rng.normal(11 * class_id, 12, (24, 24, 3)), 0, 255).astype(np.uint8)
            (root / label / f"=$_${number} <b>.png").write_bytes(encode(Image.fromarray(pixels), "PNG"))
    return root


def test_inspection_says_before_training_what_later_stages_show_otherwise(tmp_path: Path) -> None:
    found = inspect(small_spec(nasty_folders(tmp_path / "data", each=2)), tmp_path / "inspection")
    warned = {problem.what: problem.examples for problem in found.warnings}
    (formulas,) = [examples for what, examples in warned.items() if "formulas" in what]
    assert formulas == ('"\'x"', "'+x'", "'=1+1'", "'@x'")
    assert any("longer than 40 characters" in what for what in warned)
    shows_all(Page((tmp_path / "inspection/inspection.html").read_text()))


def shows_all(page: Page, labels: tuple[str, ...] = NASTY) -> None:
    page.assert_loads_and_runs_nothing()
    for label in labels:
        assert label in page.text


def test_the_build_page_shows_every_name_as_text(tmp_path: Path) -> None:
    for number, start in enumerate(range(0, len(NASTY) - 2, 3)):
        labels = NASTY[start : start + 3]
        bundle = make_bundle(tmp_path / str(number), labels=labels)
        add_engine(bundle, "openvino-int8", evidence(bundle, wrong=[3, 50, 90]))
        shows_all(Page(render(opened(bundle))), labels)


@pytest.mark.nightly
def test_names_go_through_training_export_and_evaluation_as_text(tmp_path: Path) -> None:
    recipe = {"epochs": 1, "batch_size": 16}
    spec = small_spec(nasty_folders(tmp_path / "data", each=14), recipe=recipe, calibration={"images": 8})
    train(spec, tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.labels == tuple(sorted(NASTY))
    shows_all(Page(render_evaluation(bundle, read_bundle_evaluation(bundle.path, task=bundle.decision.task))))
