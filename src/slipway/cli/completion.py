"""Print a script that completes the verbs and options of `slipway` in a shell."""

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import shtab

from slipway.cli import PROG, VERBS
from slipway.system.json_line import verb_parser

SHELLS = ("bash", "zsh", "fish")
EPILOG = """where the script belongs (make the folder if it is missing; bash needs the package bash-completion):
  slipway completion bash > ~/.local/share/bash-completion/completions/slipway
  slipway completion zsh > ~/.zfunc/_slipway           # with fpath+=(~/.zfunc) before compinit in ~/.zshrc
  slipway completion fish > ~/.config/fish/completions/slipway.fish

It takes effect in the next shell. Write it again after an update of Slipway."""


def main(arguments: argparse.Namespace) -> None:
    print(script(arguments.shell))


def script(shell: str) -> str:
    root = argparse.ArgumentParser(prog=PROG)
    root.add_argument("--version", action="version")
    verbs = root.add_subparsers()
    for name, verb in VERBS.items():
        of_verb: argparse.ArgumentParser = importlib.import_module(verb.module).parser()
        _mark_paths(of_verb)
        verbs.add_parser(name, parents=[of_verb], add_help=False, help=verb.line)
    return shtab.complete(root, shell=shell)


def _mark_paths(parser: argparse.ArgumentParser) -> None:
    """Files are proposed where an argument is converted to a path."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _mark_paths(command)
        elif action.type is Path or (callable(action.type) and Path in _returned(action.type)):
            action.complete = shtab.FILE  # type: ignore[attr-defined]


def _returned(function: Callable[..., Any]) -> tuple[Any, ...]:
    """The types that a function returns by its annotation."""
    hint = get_type_hints(function).get("return")
    return get_args(hint) or (hint,)


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG, with_json=False)
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")
    return parser
