"""Say what is wrong with a model repository, from its files alone: no server, no GPU, nothing of it is run."""

import argparse
import io
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from slipway.system.json_line import add_json, print_json

EPILOG = """examples:
  slipway lint model_repository/example
  slipway lint /srv/models --json | tail -1 | jq .findings

Any repository of Triton's will do. What slipway assemble wrote is also held against its lane.json and manifest.json.
A finding is one line:

  post_0a1b/config.pbtxt: output[1].dims[0]: what is there, and what is allowed → what to change [rule, server]

The last word says what tritonserver 2.51 does with it:
  refused      it says so, and does not load the model
  silent       it loads, and goes wrong later: on a request, under load, or in what is answered
  never ready  the server waits for ever, and says nothing
  ends         the server ends while it loads
  untried      a DALI or TensorRT model, which only a host with a GPU loads

Everything that is found has to be changed. docs/lint.md says of each rule what goes wrong, and what the server was seen
to do. What only a machine can tell, slipway doctor does. The exit code is 0 when nothing is found, and 1 otherwise."""
WORDS = {"refuses": "refused", "takes": "silent", "hangs": "never ready", "dies": "ends", "unseen": "untried"}


def main(arguments: argparse.Namespace) -> int:
    from slipway.lint import lint  # not at the top: --help needs no library

    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be any bytes
    findings = lint(arguments.repository)
    for finding in findings:
        print(f"{finding} [{finding.rule}, {WORDS[finding.about.server]}]")
    print(summary([WORDS[finding.about.server] for finding in findings]))
    told = [{**asdict(finding), "server": finding.about.server} for finding in findings]
    print_json(arguments, {"repository": str(arguments.repository), "findings": told})
    return 1 if findings else 0


def summary(words: list[str]) -> str:
    if not words:
        return "nothing found"
    counts = ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())
    return f"{len(words)} to change: {counts}"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("repository", type=Path, help="folder with one folder for each model")
    add_json(parser)
    return parser
