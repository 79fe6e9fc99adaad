"""`slipway completion`: the real bash proposes verbs, options, choices and files from the script."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from slipway.cli import VERBS
from slipway.cli.completion import SHELLS, script

PROPOSE = """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
function=$(complete -p slipway | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
"$function" slipway "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


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
    assert proposed(completion, "slipway", "gate", "--output", "flo", cwd=tmp_path) == {"flowers.yaml"}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_every_shell_has_every_verb_and_is_accepted(shell: str, tmp_path: Path) -> None:
    text = script(shell)
    assert all(name in text for name in VERBS)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed, so its own check of the syntax was left out")
    path = tmp_path / "script"
    path.write_text(text)
    subprocess.run([shell, "-n", path], check=True, timeout=60, env={**os.environ, "HOME": str(tmp_path)})
