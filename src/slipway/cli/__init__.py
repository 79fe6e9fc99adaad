"""The command `slipway`: one verb for each thing that a user does, grouped by stage."""

import argparse
import difflib
import importlib
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from slipway import __version__
from slipway.system.process import end_at_ctrl_c, run, to_stderr

PROG = "slipway"
RESULTS = """With --json, the last line on standard output is the result as JSON (all verbs but completion).
The exit code is 0 for success, 2 for wrong usage, 130 after Ctrl-C, else 1 or as VERB --help says."""


class Verb(NamedTuple):
    """A module with `main(arguments)` and `parser()`, and its line in the list of verbs.

    A module whose messages have a form of their own also has `notice(said)`.
    """

    module: str
    line: str


STAGES: Mapping[str, Mapping[str, Verb]] = MappingProxyType(
    {
        "from images to a repository": {
            "init": Verb("slipway.cli.init", "look at a folder of images and write a spec for it"),
            "up": Verb("slipway.cli.up", "run every stage of a spec that is not current"),
        },
        "data": {
            "inspect": Verb("slipway.cli.inspect", "find what is wrong with the images, before any training"),
            "augmentations": Verb("slipway.cli.augmentations", "show the images that the network sees in training"),
            "label-errors": Verb("slipway.cli.label_errors", "find labels that other networks contradict"),
        },
        "demo images": {
            "make-digits": Verb("slipway.cli.make_digits", "write scikit-learn's digits in class folders"),
            "make-pages": Verb("slipway.cli.make_pages", "write pages of one to three digits: several labels each"),
            "make-parity": Verb("slipway.cli.make_parity", "write odd or even, a new task from few digits"),
        },
        "training": {
            "train": Verb("slipway.cli.train", "train a spec to a checkpoint"),
            "search": Verb("slipway.cli.search", "tune any field of the spec with Optuna"),
            "export": Verb("slipway.cli.export", "turn a checkpoint into a bundle: ONNX, decision, calibration sample"),
            "import": Verb("slipway.cli.import_bundle", "turn your ONNX file or timm weights into a bundle"),
            "base": Verb("slipway.cli.base", "make a backbone without a head, with engines, for many heads to share"),
            "head": Verb("slipway.cli.head", "fit a head to the embeddings of a base: a classifier in seconds"),
            "evaluate": Verb("slipway.cli.evaluate", "write the HTML page of a bundle's evaluation"),
        },
        "engines": {
            "quantize": Verb("slipway.cli.quantize", "quantise a bundle to an INT8, FP8 or FP16 graph"),
            "compile": Verb("slipway.cli.compile", "compile a graph, and gate the engine's accuracy"),
            "choose": Verb("slipway.cli.choose", "measure which engine the cpu lane should serve"),
            "engines": Verb("slipway.cli.engines", "rebuild every graph and engine that is not current"),
            "report": Verb("slipway.cli.report", "write the HTML page of a build"),
        },
        "repository": {
            "assemble": Verb("slipway.cli.assemble", "assemble bundles and engines into a Triton model repository"),
            "lint": Verb("slipway.cli.lint", "find what is wrong with a repository, without a server"),
            "image": Verb("slipway.cli.image", "ship a repository as a signed OCI image, to and from a registry"),
            "doctor": Verb("slipway.cli.doctor", "check what would load on this machine, and why not"),
        },
        "serving": {
            "serve": Verb("slipway.cli.serve", "serve a repository with the real tritonserver"),
            "reload": Verb("slipway.cli.reload", "switch the server to the new repository"),
            "container": Verb("slipway.cli.container", "compile plans and serve in NVIDIA's container images"),
            "classify": Verb("slipway.cli.classify", "classify a folder of images into a CSV file"),
            "index": Verb("slipway.cli.index", "find images like others, and near-duplicates, by a base's embedding"),
        },
        "after deployment": {
            "gateway": Verb(
                "slipway.cli.gateway", "run Envoy in front of the server: TLS, keys, rates, and nothing but inference"
            ),
            "release": Verb(
                "slipway.cli.release", "try a candidate beside the server, judge it, promote it or go back"
            ),
            "journal": Verb("slipway.cli.journal", "keep a sample of requests and answers, for the watch and labels"),
            "watch": Verb(
                "slipway.cli.watch",
                "tell drift and accuracy from the journal, with a stated rate of false alarms",
            ),
            "labels": Verb("slipway.cli.labels", "have images of the journal labelled, and grow the data set by them"),
            "explain": Verb("slipway.cli.explain", "show why a row of the journal was answered as it was"),
            "turn": Verb("slipway.cli.turn", "retrain a classifier on newly labelled images, and try the result"),
            "render": Verb("slipway.cli.render", "write files of other tools for a gateway: deployments, monitoring"),
            "plan-fleet": Verb("slipway.cli.plan_fleet", "say how many machines the given rates need, and the cost"),
        },
        "speed": {
            "gate": Verb("slipway.cli.gate", "judge the P99 of a running server, or find its capacity"),
            "tune": Verb("slipway.cli.tune", "find the serving settings that hold the highest rate"),
            "perf-analyzer": Verb("slipway.cli.perf_analyzer", "run NVIDIA's perf_analyzer on an ensemble"),
            "speed": Verb("slipway.cli.speed", "write the HTML page of result files, and the cost per image"),
        },
        "shell": {
            "completion": Verb("slipway.cli.completion", "print the completion of verbs and options for your shell"),
        },
    }
)
VERBS = {name: verb for stage in STAGES.values() for name, verb in stage.items()}


def main() -> None:
    """Run the installed command."""
    end_at_ctrl_c()
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="From a folder of images to a verified, load-tested NVIDIA Triton model repository.",
        epilog=_listed(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="see below; slipway VERB --help explains one")
    given = sys.argv[1:2]
    similar = difflib.get_close_matches(given[0], VERBS, n=3) if given and given[0] not in VERBS else []
    if similar:
        parser.error(f"invalid choice: {given[0]!r}; did you mean {' or '.join(similar)}?")
    run_verb(parser.parse_args(given).verb, prefix=f"{PROG} ", skip=2)


def run_verb(name: str, *, prefix: str = "", skip: int = 1) -> None:
    """Parse the command line after its first `skip` words with the verb's parser, and run the verb."""
    verb = VERBS[name]
    module = importlib.import_module(verb.module)
    parser: argparse.ArgumentParser = module.parser()
    if prefix:
        parser.prog = f"{prefix}{name}"
    run(module.main, parser, sys.argv[skip:], notice=getattr(module, "notice", to_stderr))


def _listed() -> str:
    lines = []
    for stage, verbs in STAGES.items():
        lines += ["", f"{stage}:", *(f"  {name:<14} {verb.line}" for name, verb in verbs.items())]
    return "\n".join([*lines[1:], "", RESULTS])
