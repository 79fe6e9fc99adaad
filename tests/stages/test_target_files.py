"""No stage writes a file over one of another kind, and no benchmark over another result."""

import argparse
import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slipway.contract import SpecError
from slipway.engines import choose, quantize
from slipway.pages import check_page, write
from slipway.system.targets import check_file
from slipway.training.data.demo_data import write_parity
from slipway.training.search.label_errors import write_clean
from tests.support.colour_training import small_spec
from tests.support.targets import ABSENT, ROOT, bundle, make, spec


def parity_to(out: Path) -> None:
    write_parity(ABSENT, out, images_per_digit=1, seed=0)


def quantize_beside(out: Path) -> None:
    out.rename(out.with_name("int8-search.json"))
    quantize(bundle(), out.with_name("int8"))


def choose_beside(out: Path) -> None:
    out.rename(out.with_name("choice.json"))
    choose(bundle(), out.parent, rounds=1, images_per_round=1)


FILES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "evaluate": ("<title>a: evaluation</title>", lambda out: check_page(out, kind="evaluation")),
    "report": ("<title>a: build report</title>", lambda out: check_page(out, kind="build report")),
    "augmentation": ("<title>a: what training sees</title>", lambda out: check_page(out, kind="augmentation")),
    "speed page": ("<title>Speed: a</title>", lambda out: check_page(out, kind="speed page")),
    "make_parity": ("path,label,split\n", parity_to),
    "clean": ("path,label,split\n", lambda out: write_clean(spec(), ABSENT, out)),
    "failed search": ('{"steps": []}', quantize_beside),
    "choose": ('{"chosen": "a"}', choose_beside),
}


@pytest.mark.parametrize("stage", FILES)
@pytest.mark.parametrize("other", ["a spec", "a model", "the file of another stage"])
def test_no_stage_replaces_a_file_of_another_kind(stage: str, other: str, tmp_path: Path) -> None:
    mine = FILES[stage][0]
    strangers = [text for text, _ in FILES.values() if text != mine]
    texts = {"a spec": ["name: a\n"], "a model": ["\0" * 5000], "the file of another stage": strangers}[other]
    for number, text in enumerate(texts):
        (out := tmp_path / str(number) / "out").parent.mkdir()
        out.write_text(text)
        with pytest.raises(SpecError, match="and nothing else is replaced; give another file, or remove it"):
            FILES[stage][1](out)
        assert next(out.parent.iterdir()).read_text() == text


def test_a_page_of_the_same_kind_and_an_empty_file_are_replaced(tmp_path: Path) -> None:
    (out := tmp_path / "page.html").touch()
    for _ in range(2):
        write("<title>a: evaluation</title>", out, kind="evaluation")
    assert out.read_text() == "<title>a: evaluation</title>"
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_table_is_not_written_over_the_one_that_it_is_made_of(tmp_path: Path) -> None:
    (table := tmp_path / "data.csv").write_text("path,label,split\n")
    listed = small_spec(tmp_path, data={"root": str(tmp_path), "csv": str(table)})
    with pytest.raises(SpecError, match="read for a table"):
        write_clean(listed, ABSENT, table)
    os.link(table, tmp_path / "another name.csv")
    with pytest.raises(SpecError, match="read for a table"):
        write_clean(listed, ABSENT, tmp_path / "another name.csv")


@pytest.mark.parametrize("path", ["/dev/null", "/dev/full", "/tmp"])
def test_a_device_or_a_folder_is_no_file_to_replace(path: str) -> None:
    with pytest.raises(SpecError, match="a folder or device"):
        check_file(Path(path), mark="x", what="a page")


def test_a_page_in_a_bundle_would_spoil_it(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="a folder of kind bundle, which holds nothing else"):
        check_page(make(tmp_path / "bundle", "bundle") / "evaluation.html", kind="evaluation")


def test_the_server_s_log_replaces_no_other_file(tmp_path: Path) -> None:
    from slipway.cli.serve import _log

    (tmp_path / "spec.yaml").write_text("name: a\n")
    (tmp_path / "triton.log").write_text("I1128 …\n")
    for path in (str(tmp_path / "spec.yaml"), "/dev/null"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"give another, for example {path}.log"):
            _log(path)
    assert _log(str(tmp_path / "triton.log")) == tmp_path / "triton.log"
    assert _log(str(tmp_path / "new")) == tmp_path / "new"


VERBS = ("gate", "perf_analyzer", "tune")
STUDIES = (
    "efficiency",
    "robustness",
    "verdict",
    "soak",
    "guard",
    "lifecycle",
    "lint_corpus",
    "training",
    "backbones",
    "peers",
)


@pytest.mark.parametrize("script", [*VERBS, *STUDIES, "peers"])
def test_every_benchmark_replaces_its_own_results_alone(script: str, tmp_path: Path) -> None:
    module = f"slipway.cli.{script}" if script in VERBS else f"benchmarks.studies.{script}.__main__"
    parser = importlib.import_module(module).parser()
    actions = [a for a in parser._actions if a.dest in ("out", "output")]
    (option,) = [action.type for action in actions]
    result = ROOT / "benchmarks/results" / f"{RESULTS.get(script, script)}.json"
    for other in (ROOT / "benchmarks/results").glob("*.json"):
        mine = other == result or {script, other.stem} <= SHARED.get(script, set())
        shutil.copy(other, tmp_path)
        if mine:
            assert option(str(tmp_path / other.name)) == tmp_path / other.name
        else:
            with pytest.raises(argparse.ArgumentTypeError, match="nothing else is replaced"):
                option(str(tmp_path / other.name))
    with pytest.raises(argparse.ArgumentTypeError, match="give a file in a folder that exists"):
        option(str(tmp_path / "nowhere/result.json"))


RESULTS = {"gate": "digits-int8-cpu", "tune": "tuning", "lint_corpus": "lint-corpus", "training": "experiments"}
SHARED = {"gate": {"gate", "digits-capacity-cpu"}, "robustness": {"robustness", "fifty"}}
