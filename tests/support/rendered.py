"""Deployments that tests render: settings, repositories of many classifiers, and the words of a command line."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slipway.cli.render import parser
from slipway.repository import assemble
from tests.support.colours import copy_colours
from tests.support.gateways import write_gateway
from tests.support.gpu_lanes import gpu_classifier
from tests.support.scripts import ROOT

EXAMPLE = ROOT / "model_repository/example"
GOLDEN = ROOT / "build/deployments"
"""What is rendered of the example, for everybody to read; this module, run as a program, writes it anew."""
IMAGE, OTHER, SERVER, ENVOY = (
    f"registry.example/{name}@sha256:{digit * 64}"
    for name, digit in (("team/colours", "1"), ("team/colours", "2"), ("slipway-cpu", "3"), ("envoy", "4"))
)
CLUSTER = ("--image", IMAGE, "--server-image", SERVER)
STABLE = (*CLUSTER, "--gateway-image", ENVOY)
BOTH = (*STABLE, "--candidate-image", OTHER, "--weight", "10")


def render(kind: str, *words: object) -> None:
    """`slipway render KIND WORDS`, in this process."""
    arguments: argparse.Namespace = parser().parse_args([kind, *map(str, words)])
    arguments.run(arguments)


def settings(folder: Path, repository: Path = EXAMPLE, **changes: Any) -> Path:
    usual: dict[str, Any] = {"listen": "127.0.0.1:8443", "metrics_port": 8004, "repository": str(repository)}
    return write_gateway(folder, **usual | changes)


def repository(folder: Path, names: Sequence[str]) -> Path:
    """A repository of the cpu lane with a classifier of each name."""
    classifiers = [copy_colours(folder / name, spec={"name": name}) for name in names]
    assemble(classifiers, folder / "repository")
    return folder / "repository"


def gpu_repository(folder: Path) -> Path:
    assemble([gpu_classifier(folder / "classifier", "9.0")], folder / "repository", lane="gpu")
    return folder / "repository"
