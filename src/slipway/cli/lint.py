"""Find what is wrong with a model repository, from its files alone: needs no server and no GPU, and runs no code."""

import argparse
import io
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from slipway.system.json_line import print_json, verb_parser

EPILOG = """examples:
  slipway lint model_repository/example
  slipway lint /srv/models --json | tail -1 | jq .findings

Any Triton repository will do. One from slipway assemble is also checked against its lane.json and manifest.json.
A finding is one line:

  post_0a1b/config.pbtxt: output[1].dims[0]: what is there, and what is allowed → what to change [rule, server]

The last word says what tritonserver 2.51 does with the fault:
  refused      reports an error, and does not load the model
  silent       loads the model, which fails later: on a request, under load, or with wrong answers
  never ready  waits for ever without a message
  ends         ends while it loads the model
  untested     unknown: only a host with a GPU loads DALI and TensorRT models

Every finding has to be fixed. A note is a decision that was made, such as serving without a TensorRT plan, or a legal
setting that costs speed. docs/lint.md describes the rules, and how the server was seen to behave. slipway doctor checks
what depends on the machine.
The exit code is 0 if nothing is found, and 1 otherwise."""
WORDS = {"refuses": "refused", "takes": "silent", "hangs": "never ready", "dies": "ends", "unseen": "untested"}


def main(arguments: argparse.Namespace) -> int:
    from slipway.lint import lint, notes  # not at the top: --help needs no library

    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be any bytes
    findings = lint(arguments.repository)
    for finding in findings:
        print(f"{finding} [{finding.rule}, {WORDS[finding.about.server]}]")
    noted = notes(arguments.repository)
    for note in noted:
        print(f"note: {note}")
    print(summary([WORDS[finding.about.server] for finding in findings]))
    told = [{**asdict(finding), "server": finding.about.server} for finding in findings]
    print_json(arguments, {"repository": str(arguments.repository), "findings": told, "notes": noted})
    return 1 if findings else 0


def summary(words: list[str]) -> str:
    if not words:
        return "nothing found"
    counts = ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())
    return f"{len(words)} to fix: {counts}"


def parser() -> argparse.ArgumentParser:
    parser = verb_parser(__doc__, EPILOG)
    parser.add_argument("repository", type=Path, help="folder with one folder per model")
    return parser
