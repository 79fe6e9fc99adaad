"""The command `slipway`: its verbs, the scripts of the clone that call the same `main`, and completion in bash."""

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from slipway import cli
from slipway.cli import STAGES, VERBS, quantize
from slipway.cli.completion import SHELLS, script

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    path
    for folder in ("training", "build", "clients", "benchmarks")
    for path in sorted((ROOT / folder).glob("*.py"))
    if "run_verb" in path.read_text(encoding="utf-8")
]
PROPOSE = """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
function=$(complete -p slipway | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
"$function" slipway "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["slipway", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_help_lists_every_verb_below_its_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "--help") == 0
    said = capsys.readouterr().out
    for stage, verbs in STAGES.items():
        below = said.partition(f"\n{stage}:\n")[2].partition("\n\n")[0]
        assert re.findall(r"^  ([\w-]+) ", below, flags=re.M) == list(verbs)
    assert max(map(len, said.splitlines())) <= 100


def test_the_version_is_the_one_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"slipway {metadata.version('slipway')}\n"


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["--verbose"]])
def test_what_is_not_a_verb_is_refused_with_those_that_are(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, *words) == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: slipway")
    if words == ["frobnicate"]:
        assert "invalid choice: 'frobnicate'" in said
        assert "train" in said


@pytest.mark.parametrize(
    ("typed", "meant"), [("trian", "train or turn"), ("quantise", "quantize"), ("serv", "serve or search")]
)
def test_a_mistyped_verb_gets_the_one_that_was_meant(
    typed: str, meant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, typed) == 2
    assert capsys.readouterr().err.endswith(f"slipway: error: invalid choice: {typed!r}; did you mean {meant}?\n")


@pytest.mark.parametrize(("script", "missing"), [("http", "gevent"), ("grpc", "tritonclient")])
def test_a_client_that_was_copied_to_where_its_packages_are_missing_names_them(script: str, missing: str) -> None:
    command = [sys.executable, "-S", str(ROOT / f"clients/classify_{script}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"classify_{script}.py: {missing} is missing: pip install 'tritonclient[{script}]' numpy, and copy "
        "classify_common.py too\n"
    )


WRITES = {
    "inspect": ("spec", "--out"),
    "train": ("spec", "--out"),
    "search": ("spec", "--space", "space", "--out"),
    "label-errors": ("spec", "--out"),
    "export": ("checkpoint", "--out"),
    "import": ("spec", "--onnx", "network.onnx", "--labels-from-folders", "--out"),
    "quantize": ("bundle", "--out"),
    "compile": ("bundle", "--graphs", "graphs", "--out"),
    "evaluate": ("bundle", "--out"),
    "report": ("bundle", "--engines", "engines", "--out"),
    "augmentations": ("spec", "--out"),
    "gate": ("digits", "--images", "images", "--out"),
    "perf-analyzer": ("digits", "--images", "images", "--rate", "1", "--out"),
    "tune": ("fleet.yaml", "--images", "images", "--out"),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_verb_says_that_it_cannot_write_before_it_reads_anything(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its libraries would take seconds; root may write anywhere by its permissions, but /proc takes no file."""
    libraries = {library for library in ("torch", "openvino", "nvidia.dali") if library not in sys.modules}
    said = called(monkeypatch, name, *WRITES[name], "/proc/out")
    said = capsys.readouterr().err if said == 2 else str(said)
    assert "/proc/out" in said
    assert "cannot be written: Read-only file system; give a path on a disk that can be written" in said
    assert not libraries & sys.modules.keys()


@pytest.mark.parametrize(
    ("out", "first"), [("run/graphs/int8", ""), ("run/graphs/mine", "mv run/graphs/mine run/graphs/int8 && ")]
)
def test_the_command_after_quantize_finds_the_graph_where_it_was_written(out: str, first: str) -> None:
    arguments = quantize.parser().parse_args(["run/bundle", "--out", out])
    line = "slipway compile run/bundle --graphs run/graphs --out run/engines"
    assert quantize.next_command(arguments) == f"{first}{line}"


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_teaches_under_the_name_that_it_was_called_by(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = importlib.import_module(VERBS[name].module).parser()
    assert isinstance(parser, argparse.ArgumentParser)
    assert parser.description
    assert called(monkeypatch, name, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: slipway {name} ")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_of_the_clone_runs_one_verb_and_nothing_else(script: Path) -> None:
    source = script.read_text(encoding="utf-8")
    (name,) = re.findall(r'run_verb\("([\w-]+)"\)', source)
    assert name in VERBS
    assert script.stem in {name.replace("-", "_"), "classify_folder"}
    assert f"`slipway {name}`" in source
    assert len(source.splitlines()) <= 7


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "slipway", "lint", "nowhere"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "nowhere" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", sorted(VERBS.keys() - {"completion"}))
def test_every_verb_has_its_result_as_json(name: str) -> None:
    parser = importlib.import_module(VERBS[name].module).parser()
    usage = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            usage = list(action.choices.values())
    assert all("--json" in one.format_usage() for one in usage)


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from parsers(one)


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_the_same_form_of_help(name: str) -> None:
    """Positionals in capitals, a sentence for each argument, its default at the end of it, and `--out` for results."""
    for parser in parsers(importlib.import_module(VERBS[name].module).parser()):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                continue
            assert action.help, action
            if not action.option_strings and not action.choices:
                assert action.metavar == str(action.metavar).upper(), action
            if action.default not in (None, False, [], argparse.SUPPRESS):
                assert "; default: " in action.help, action
            assert "(default:" not in action.help
            assert " (%(default)" not in action.help
            assert "--output" not in action.option_strings


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "slipway.bash"
    path.write_text(script("bash"))
    return path


def proposed(completion: Path, *words: str, cwd: Path = Path("/")) -> set[str]:
    command = ["bash", "--norc", "-c", PROPOSE, "bash", str(completion), *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=60)
    assert not done.stderr
    return set(done.stdout.split())


def test_bash_completes_a_verb(completion: Path) -> None:
    assert proposed(completion, "slipway", "qu") == {"quantize"}
    assert set(VERBS) <= proposed(completion, "slipway", "")


def test_bash_completes_an_option_of_its_verb_and_no_other(completion: Path) -> None:
    assert proposed(completion, "slipway", "compile", "--gr") == {"--graphs"}
    assert not proposed(completion, "slipway", "lint", "--gr")


def test_bash_completes_the_choices_of_an_option_and_a_command_of_a_verb(completion: Path) -> None:
    assert proposed(completion, "slipway", "compile", "--target", "openv") == {"openvino"}
    assert proposed(completion, "slipway", "container", "se") == {"serve"}
    assert proposed(completion, "slipway", "container", "serve", "--gp") == {"--gpus"}


def test_bash_completes_files_where_an_argument_is_a_path(completion: Path, tmp_path: Path) -> None:
    (tmp_path / "flowers.yaml").touch()
    assert proposed(completion, "slipway", "train", "flo", cwd=tmp_path) == {"flowers.yaml"}
    assert proposed(completion, "slipway", "gate", "--out", "flo", cwd=tmp_path) == {"flowers.yaml"}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_every_shell_has_every_verb_and_is_accepted(shell: str, tmp_path: Path) -> None:
    text = script(shell)
    assert all(name in text for name in VERBS)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed, so its own check of the syntax was left out")
    path = tmp_path / "script"
    path.write_text(text)
    subprocess.run([shell, "-n", path], check=True, timeout=60, env={**os.environ, "HOME": str(tmp_path)})
